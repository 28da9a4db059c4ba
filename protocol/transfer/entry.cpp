#include "protocol/transfer/entry.h"

#include <string.h>

#include <algorithm>

#include "protocol/transfer/malformed.h"
#include "protocol/transfer/text.h"

namespace postern::transfer {

namespace {

using SchemaKind = schema::Entry::Kind;
using Error = kj::Maybe<FrameError>;

bool hasKnownNamespace(kj::StringPtr attribute) {
  for (kj::StringPtr prefix : {"user."_kj, "system.posix_acl_"_kj, "security."_kj, "trusted."_kj}) {
    if (attribute.size() > prefix.size() && attribute.startsWith(prefix)) return true;
  }
  return false;
}

Error readAttributes(capnp::List<schema::Attribute>::Reader untrusted, kj::Vector<Attribute>& to) {
  if (untrusted.size() > MAX_ATTRIBUTES) return FrameError{"an entry has at most MAX_ATTRIBUTES"};
  size_t left = MAX_ATTRIBUTE_BYTES;
  for (auto attribute : untrusted) {
    auto name = attribute.getName();
    auto value = attribute.getValue();
    if (!isText(name, MAX_NAME_BYTES) || !hasKnownNamespace(name)) {
      return FrameError{"an attribute's name is of user, system.posix_acl, security or trusted"};
    }
    if (name.size() + value.size() > left) return FrameError{"attributes are at most MAX_ATTRIBUTE_BYTES in all"};
    left -= name.size() + value.size();
    to.add(Attribute{kj::heapString(name), kj::heapArray<kj::byte>(value)});
  }
  return nullptr;
}

Error readHash(capnp::Data::Reader untrusted, kj::Maybe<kj::Array<kj::byte>>& to) {
  if (untrusted.size() == 0) return nullptr;
  if (untrusted.size() != HASH_BYTES) return FrameError{"a hash has HASH_BYTES"};
  to = kj::heapArray<kj::byte>(untrusted);
  return nullptr;
}

Error readFile(schema::Entry::Reader untrusted, size_t contentBytes, Entry& to) {
  to.size = untrusted.getSize();
  to.hasLinks = untrusted.getHasLinks();
  to.inlined = untrusted.getInlined();
  to.wantsBase = untrusted.getWantsBase();
  to.stream = untrusted.getStream();
  if (to.size > MAX_FILE_BYTES) return FrameError{"a file is at most MAX_FILE_BYTES"};
  if (to.inlined && (to.wantsBase || to.stream))
    return FrameError{"an inlined file is neither a stream nor has a base"};
  if (to.stream && (to.size > 0 || to.wantsBase)) return FrameError{"a stream has neither size nor base"};
  if (to.inlined && (to.size > INLINE_BYTES || contentBytes != to.size)) {
    return FrameError{"an inlined file is its frame's content"};
  }
  KJ_IF_MAYBE (error, readHash(untrusted.getHash(), to.hash)) return *error;
  if (!to.inlined && to.hash != nullptr) return FrameError{"the hash of a file that is not inlined comes at its end"};
  return nullptr;
}

Error readTarget(schema::Entry::Reader untrusted, Entry& to) {
  auto target = untrusted.getTarget();
  if (target.size() == 0 || target.size() > MAX_PATH_BYTES || hasNul(target)) {
    return FrameError{"a symbolic link's target has 1 to MAX_PATH_BYTES and no NUL"};
  }
  to.target = stringOf(target);
  return nullptr;
}

Error readLink(schema::Entry::Reader untrusted, Entry& to) {
  auto components = untrusted.getLinkTo();
  if (components.size() == 0 || components.size() > MAX_DEPTH + 1) {
    return FrameError{"a hard link has 1 to MAX_DEPTH + 1 components"};
  }
  for (auto component : components) {
    if (!isComponent(component)) return FrameError{"a hard link has components"};
    to.linkTo.add(stringOf(component));
  }
  return nullptr;
}

Error readKind(SchemaKind kind, Entry& to) {
  switch (kind) {
    case SchemaKind::FILE:
    case SchemaKind::DIRECTORY:
    case SchemaKind::SYMBOLIC_LINK:
    case SchemaKind::HARD_LINK:
    case SchemaKind::FIFO:
    case SchemaKind::CHARACTER_DEVICE:
    case SchemaKind::BLOCK_DEVICE:
    case SchemaKind::SOCKET:
      to.kind = EntryKind(uint8_t(kind));
      return nullptr;
  }
  return FrameError{"an entry is of a kind that is known"};
}

bool isDevice(EntryKind kind) {
  return kind == EntryKind::CHARACTER_DEVICE || kind == EntryKind::BLOCK_DEVICE;
}

// What belongs to other kinds is not there.
bool hasForeign(schema::Entry::Reader untrusted, EntryKind kind) {
  bool ofFile = untrusted.getSize() > 0 || untrusted.getHasLinks() || untrusted.getInlined() ||
                untrusted.getWantsBase() || untrusted.getStream() || untrusted.hasHash();
  bool ofDevice = untrusted.getDeviceMajor() > 0 || untrusted.getDeviceMinor() > 0;
  return (ofFile && kind != EntryKind::FILE) || (ofDevice && !isDevice(kind)) ||
         (untrusted.hasTarget() && kind != EntryKind::SYMBOLIC_LINK) ||
         (untrusted.hasLinkTo() && kind != EntryKind::HARD_LINK);
}

Error readDescription(schema::Entry::Reader untrusted, Entry& to) {
  to.mode = untrusted.getMode();
  to.modifiedSeconds = untrusted.getModifiedSeconds();
  to.modifiedNanoseconds = untrusted.getModifiedNanoseconds();
  to.uid = untrusted.getUid();
  to.gid = untrusted.getGid();
  to.deviceMajor = untrusted.getDeviceMajor();
  to.deviceMinor = untrusted.getDeviceMinor();
  if (to.mode > 07777) return FrameError{"a mode has twelve bits"};
  if (to.modifiedNanoseconds >= 1'000'000'000) return FrameError{"nanoseconds are below 10^9"};
  auto owner = untrusted.getOwner();
  auto group = untrusted.getGroup();
  if (!isText(owner, MAX_OWNER_BYTES) || !isText(group, MAX_OWNER_BYTES)) {
    return FrameError{"owner and group are names of at most MAX_OWNER_BYTES"};
  }
  to.owner = kj::heapString(owner);
  to.group = kj::heapString(group);
  return readAttributes(untrusted.getAttributes(), to.attributes);
}

// T67
Error readEntry(schema::Entry::Reader untrusted, size_t contentBytes, Entry& to) {
  KJ_IF_MAYBE (error, readKind(untrusted.getKind(), to)) return *error;
  auto name = untrusted.getName();
  if (!isComponent(name)) return FrameError{"a name is a component"};
  to.name = stringOf(name);
  if (hasForeign(untrusted, to.kind)) return FrameError{"an entry has what belongs to its kind"};
  if (contentBytes > 0 && !untrusted.getInlined()) return FrameError{"an inlined file alone has content"};
  KJ_IF_MAYBE (error, readDescription(untrusted, to)) return *error;
  if (to.kind == EntryKind::FILE) return readFile(untrusted, contentBytes, to);
  if (to.kind == EntryKind::SYMBOLIC_LINK) return readTarget(untrusted, to);
  if (to.kind == EntryKind::HARD_LINK) return readLink(untrusted, to);
  return nullptr;
}

Error readTotals(schema::Totals::Reader untrusted, Totals& to) {
  to = {untrusted.getFiles(), untrusted.getDirectories(), untrusted.getBytes(), untrusted.getDeepest(),
        untrusted.getTops(),  untrusted.getStream(),      untrusted.getHoles()};
  if (to.files > MAX_COUNT || to.directories > MAX_COUNT) return FrameError{"counts are at most MAX_COUNT"};
  if (to.bytes > MAX_FILE_BYTES) return FrameError{"all bytes are at most MAX_FILE_BYTES"};
  if (to.holes > to.bytes) return FrameError{"holes are among all bytes"};
  if (to.deepest > MAX_DEPTH) return FrameError{"directories are at most MAX_DEPTH deep"};
  if (to.stream && (to.files != 1 || to.tops != 1 || to.directories > 0 || to.bytes > 0)) {
    return FrameError{"a stream is one file"};
  }
  return nullptr;
}

template <typename Run>
Error readRun(uint64_t offset, uint64_t bytes, Forward& to) {
  if (offset > MAX_FILE_BYTES || bytes == 0 || bytes > MAX_FILE_BYTES - offset) {
    return FrameError{"a run has bytes and ends within MAX_FILE_BYTES"};
  }
  to.init<Run>(Run{offset, bytes});
  return nullptr;
}

Error readData(uint64_t offset, size_t contentBytes, Forward& to) {
  if (contentBytes == 0 || contentBytes > DATA_BYTES) return FrameError{"data has 1 to DATA_BYTES"};
  if (offset > MAX_FILE_BYTES - contentBytes) return FrameError{"data ends within MAX_FILE_BYTES"};
  to.init<Data>(Data{offset});
  return nullptr;
}

Error readFailed(schema::Forward::Failed::Reader untrusted, Forward& to) {
  auto name = untrusted.getName();
  if (!isComponent(name)) return FrameError{"a name is a component"};
  to.init<EntryFailed>(EntryFailed{stringOf(name), parseProblem(untrusted.getProblem())});
  return nullptr;
}

}  // namespace

bool isComponent(kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() == 0 || untrusted.size() > MAX_NAME_BYTES) return false;
  if (untrusted[0] == '.' && (untrusted.size() == 1 || (untrusted.size() == 2 && untrusted[1] == '.'))) return false;
  return !hasNul(untrusted) && memchr(untrusted.begin(), '/', untrusted.size()) == nullptr;
}

kj::Maybe<FrameError> readForward(schema::Forward::Reader untrusted, size_t contentBytes, Forward& to) {
  using Which = schema::Forward::Which;
  auto which = untrusted.which();
  if (contentBytes > 0 && which != Which::DATA && which != Which::ENTRY) {
    return FrameError{"data and inlined files alone have content"};
  }
  switch (which) {
    case Which::TOTALS:
      return readTotals(untrusted.getTotals(), to.init<Totals>());
    case Which::ENTRY:
      return readEntry(untrusted.getEntry(), contentBytes, to.init<Entry>());
    case Which::DATA:
      return readData(untrusted.getData().getOffset(), contentBytes, to);
    case Which::HOLE:
      return readRun<Hole>(untrusted.getHole().getHoleOffset(), untrusted.getHole().getHoleBytes(), to);
    case Which::SAME:
      return readRun<Same>(untrusted.getSame().getSameOffset(), untrusted.getSame().getSameBytes(), to);
    case Which::FILE_END:
      return readHash(untrusted.getFileEnd().getHash(), to.init<FileEnd>().hash);
    case Which::FILE_FAILED:
      to.init<FileFailed>(FileFailed{parseProblem(untrusted.getFileFailed())});
      return nullptr;
    case Which::LEAVE:
      to.init<Leave>();
      return nullptr;
    case Which::FAILED:
      return readFailed(untrusted.getFailed(), to);
    case Which::DONE:
      to.init<Done>();
      return nullptr;
  }
  return FrameError{"a message is one that is known"};
}

kj::OneOf<Forward, FrameError> parseForward(FrameView& untrusted) {
  return parsing<Forward>(
      [&](Forward& to) { return readForward(untrusted.as<schema::Forward>(), untrusted.content().size(), to); });
}

kj::OneOf<Forward, FrameError> parseForward(schema::Forward::Reader untrusted, size_t contentBytes) {
  return parsing<Forward>([&](Forward& to) { return readForward(untrusted, contentBytes, to); });
}

}  // namespace postern::transfer
