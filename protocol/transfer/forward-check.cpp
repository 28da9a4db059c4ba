#include "protocol/transfer/forward-check.h"

namespace postern::transfer {

namespace {

bool isOfFile(const Forward& message) {
  return message.is<Data>() || message.is<Hole>() || message.is<Same>() || message.is<FileEnd>() ||
         message.is<FileFailed>();
}

}  // namespace

// T68
kj::Maybe<FrameError> ForwardCheck::check(const Forward& message, size_t contentBytes) {
  if (done) return FrameError{"nothing follows done"};
  if (!begun) {
    if (!message.is<Totals>()) return FrameError{"totals come first"};
    return begin(message.get<Totals>());
  }
  KJ_IF_MAYBE (current, file) {
    if (isOfFile(message)) return checkInside(*current, message, contentBytes);
    if (form != Form::OPENER || current->covered > 0) return FrameError{"nothing comes between a file and its end"};
    file = nullptr;  // went on as a descriptor
  }
  return checkOutside(message);
}

kj::Maybe<FrameError> ForwardCheck::begin(const Totals& announced) {
  if (announced.stream && form == Form::LISTING) return FrameError{"a listing is no stream"};
  begun = true;
  totals = announced;
  return nullptr;
}

kj::Maybe<FrameError> ForwardCheck::checkOutside(const Forward& message) {
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(entry, Entry) return checkEntry(entry);
    KJ_CASE_ONEOF(leave, Leave) {
      if (directories.empty()) return FrameError{"what is left was entered"};
      directories.removeLast();
      return nullptr;
    }
    KJ_CASE_ONEOF(failed, EntryFailed) {
      if (++failures > mostEntries()) return FrameError{"no more fails than was announced"};
      return nullptr;
    }
    KJ_CASE_ONEOF(end, Done) {
      if (!directories.empty()) return FrameError{"what was entered is left"};
      done = true;
      return nullptr;
    }
    KJ_CASE_ONEOF_DEFAULT break;
  }
  if (message.is<Totals>()) return FrameError{"totals come once"};
  return FrameError{"bytes belong to a file"};
}

kj::Maybe<FrameError> ForwardCheck::checkEntry(const Entry& entry) {
  if (++entries > mostEntries()) return FrameError{"no more entries come than were announced"};
  if (directories.empty() && ++tops > totals.tops) return FrameError{"no more tops come than were announced"};
  if (entry.kind == EntryKind::SOCKET && form != Form::LISTING) return FrameError{"sockets are in lists only"};
  if (entry.kind == EntryKind::FILE) return checkFile(entry);
  if (totals.stream) return FrameError{"a stream is one file"};
  if (entry.kind == EntryKind::DIRECTORY) {
    if (directories.size() >= totals.deepest) return FrameError{"it is no deeper than was announced"};
    directories.add(kj::heapString(entry.name));
  }
  return nullptr;
}

kj::Maybe<FrameError> ForwardCheck::checkFile(const Entry& entry) {
  if (entry.stream != totals.stream) return FrameError{"a stream is announced as one, and is nothing else"};
  if (form == Form::LISTING) {
    if (entry.inlined || entry.wantsBase) return FrameError{"a listing has no content"};
    return nullptr;
  }
  uint64_t most = totals.bytes + ANNOUNCED_SLACK_BYTES;  // neither reaches 2^63
  if (entry.size > most - bytes) return FrameError{"no more bytes come than were announced"};
  bytes += entry.size;
  baseBytes = nullptr;
  if (!entry.inlined) file = File{entry.stream ? MAX_FILE_BYTES : entry.size, entry.wantsBase, entry.stream};
  return nullptr;
}

kj::Maybe<FrameError> ForwardCheck::checkInside(File& current, const Forward& message, size_t contentBytes) {
  if (message.is<FileFailed>()) {
    file = nullptr;
    return nullptr;
  }
  if (form == Form::CHANNEL && current.wantsBase && baseBytes == nullptr) {
    return FrameError{"a file that wants a base waits for it"};
  }
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(data, Data) return cover(current, data.offset, contentBytes);
    KJ_CASE_ONEOF(hole, Hole) {
      if (current.stream) return FrameError{"a stream is data alone"};
      return cover(current, hole.offset, hole.bytes);
    }
    KJ_CASE_ONEOF(same, Same) {
      KJ_IF_MAYBE (error, checkSame(current, same)) return *error;
      return cover(current, same.offset, same.bytes);
    }
    KJ_CASE_ONEOF_DEFAULT break;
  }
  return checkEnd(current);
}

kj::Maybe<FrameError> ForwardCheck::checkSame(const File& current, const Same& same) const {
  uint64_t base = current.wantsBase ? baseBytes.orDefault(0) : 0;
  uint64_t end = same.offset + same.bytes;  // both checked by parseForward(): below 2^63
  if (end > base) return FrameError{"what is the same is in the base that was told"};
  if (same.offset % CHUNK_BYTES != 0 || (same.bytes % CHUNK_BYTES != 0 && end != current.size)) {
    return FrameError{"what is the same is whole chunks, or up to the file's end"};
  }
  return nullptr;
}

kj::Maybe<FrameError> ForwardCheck::checkEnd(const File& current) {
  if (!current.stream && current.covered != current.size) return FrameError{"a file ends at its size"};
  file = nullptr;
  return nullptr;
}

kj::Maybe<FrameError> ForwardCheck::cover(File& current, uint64_t offset, uint64_t length) {
  if (offset != current.covered) return FrameError{"bytes follow each other without gap or overlap"};
  if (length > current.size - current.covered) return FrameError{"bytes end within the file's size"};
  current.covered += length;
  return nullptr;
}

kj::String ForwardCheck::pathOf(kj::StringPtr name) const {
  kj::Vector<char> whole;
  for (auto& directory : directories) {
    whole.addAll(directory);
    whole.add('/');
  }
  whole.addAll(name);
  auto end = whole.asPtr();
  if (end.size() > MAX_PATH_BYTES) end = end.slice(end.size() - MAX_PATH_BYTES, end.size());
  return kj::heapString(end);
}

}  // namespace postern::transfer
