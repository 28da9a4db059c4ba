#include "host/audit/audit-verify.h"

#include <dirent.h>
#include <errno.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "host/audit/chain-check.h"
#include "host/audit/line-reader.h"

namespace postern::host {

namespace {

using Kind = AuditProblem::Kind;

AuditProblem problem(Kind kind, kj::StringPtr file, uint64_t line, kj::StringPtr what) {
  auto place = line == 0 ? kj::str(file) : kj::str(file, ":", line);
  return {kind, kj::str(file), line, kj::str(place, ": ", what)};
}

}  // namespace

kj::Maybe<AuditProblem> ChainCheck::readFile(kj::StringPtr path) {
  auto opened = LineReader::open(path);
  KJ_IF_MAYBE (reader, opened) {
    kj::Maybe<AuditProblem> found;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { found = readLines(path, *reader); })) {
      return problem(Kind::UNREADABLE, path, 0, exception->getDescription());
    }
    return found;
  }
  return problem(Kind::UNREADABLE, path, 0, errno == EINVAL ? "is not a file" : strerror(errno));
}

kj::Maybe<AuditProblem> ChainCheck::readLines(kj::StringPtr path, LineReader& reader) {
  auto number = uint64_t(0);
  soundBytes = 0;
  for (;;) {
    auto next = reader.next();
    KJ_IF_MAYBE (line, next) {
      auto found = check(path, ++number, *line);
      if (found != nullptr) return found;
      soundBytes = line->offset + line->text.size() + 1;
    } else {
      return nullptr;
    }
  }
}

kj::Maybe<AuditProblem> ChainCheck::check(kj::StringPtr path, uint64_t number, const LineReader::Line& line) {
  if (!line.ended) {
    tail = kj::heapString(line.text);
    return problem(Kind::UNFINISHED, path, number, "the last line has no end: a crash, or the log was cut");
  }
  auto parsed = line.tooLong ? kj::Maybe<ParsedLine>() : parseLine(line.text);
  KJ_IF_MAYBE (content, parsed) {
    KJ_IF_MAYBE (text, fault(number, *content)) return problem(Kind::CHAIN, path, number, *text);
    previous = hashLine(line.text);
    sequence = content->sequence;
    KJ_IF_MAYBE (fileNumber, content->file) file = *fileNumber;
    if (lines++ == 0) firstSequence = sequence;
    KJ_IF_MAYBE (head, wanted) {
      if (hexOf(previous) == *head) wantedSeen = true;
    }
    return nullptr;
  }
  return problem(Kind::ALTERED, path, number, "the line is not as it was written");
}

// How a line that is whole by itself does not follow the one before.
kj::Maybe<kj::String> ChainCheck::fault(uint64_t number, const ParsedLine& line) const {
  if ((number == 1) != (line.file != nullptr)) {
    return number == 1 ? kj::str("the file does not begin with its first line")
                       : kj::str("the first line of a file stands within one");
  }
  bool first = lines == 0;
  if (first && line.sequence == 1 && line.previous != hexOf(LineHash{}).asArray()) {
    return kj::str("line 1 of the log names a line before it");
  }
  if (first) return nullptr;
  if (line.sequence != sequence + 1) {
    return kj::str("event ", line.sequence, " follows event ", sequence, ": something was dropped, moved or doubled");
  }
  KJ_IF_MAYBE (fileNumber, line.file) {
    if (*fileNumber != file + 1) return kj::str("file ", *fileNumber, " follows file ", file, ": a file is missing");
  }
  if (line.previous != hexOf(previous).asArray()) {
    return kj::str("event ", line.sequence, " was written after another event ", sequence, " than the one before it");
  }
  return nullptr;
}

// T55
kj::OneOf<AuditSummary, AuditProblem> verifyAudit(kj::ArrayPtr<const kj::String> files,
                                                  kj::Maybe<kj::StringPtr> rememberedHead) {
  ChainCheck chain;
  chain.wanted = rememberedHead;
  for (auto& file : files) {
    auto found = chain.readFile(file);
    KJ_IF_MAYBE (bad, found) {
      bool last = &file == &files.back();
      // A line without an end in the middle of the log was not cut by a crash.
      if (bad->kind == Kind::UNFINISHED && !last) {
        return problem(Kind::ALTERED, bad->file, bad->line, "the line is not as it was written: it has no end");
      }
      return kj::mv(*bad);
    }
  }
  if (rememberedHead != nullptr && !chain.wantedSeen) {
    auto newest = files.size() == 0 ? kj::StringPtr("(no files)") : kj::StringPtr(files.back());
    return problem(Kind::HEAD, newest, 0, "the remembered line is not in the log: it was cut or written anew");
  }
  AuditSummary summary;
  summary.lines = chain.lines;
  summary.firstSequence = chain.firstSequence;
  summary.lastSequence = chain.sequence;
  summary.head = hexOf(chain.previous);
  return kj::mv(summary);
}

kj::Vector<kj::String> auditFiles(kj::StringPtr path) {
  size_t nameAt = 0;
  KJ_IF_MAYBE (slash, path.findLast('/')) nameAt = *slash + 1;
  auto folder = nameAt == 0 ? kj::str(".") : kj::heapString(path.slice(0, nameAt));
  auto prefix = kj::str(path.slice(nameAt), ".");
  kj::Vector<unsigned long> ages;
  if (auto entries = opendir(folder.cStr())) {
    KJ_DEFER(closedir(entries));
    while (auto entry = readdir(entries)) {
      auto name = kj::StringPtr(entry->d_name);
      if (!name.startsWith(prefix)) continue;
      auto age = strtoul(name.cStr() + prefix.size(), nullptr, 10);
      if (age > 0 && name == kj::str(prefix, age)) ages.add(age);
    }
  }
  std::sort(ages.begin(), ages.end(), std::greater<>());
  kj::Vector<kj::String> files;
  for (auto age : ages) files.add(kj::str(path, ".", age));
  if (access(path.cStr(), F_OK) == 0) files.add(kj::str(path));
  return files;
}

kj::Vector<kj::String> auditTail(kj::ArrayPtr<const kj::String> files, size_t count) {
  kj::Vector<kj::String> newestFirst;
  for (size_t i = files.size(); i > 0 && newestFirst.size() < count; --i) {
    auto opened = LineReader::open(files[i - 1]);
    KJ_IF_MAYBE (reader, opened) {
      kj::Vector<kj::String> ring;  // the last of this file
      size_t wanted = count - newestFirst.size();
      size_t oldest = 0;
      for (;;) {
        auto next = reader->next();
        KJ_IF_MAYBE (line, next) {
          if (!line->ended || line->tooLong || parseLine(line->text) == nullptr) continue;
          if (ring.size() < wanted) {
            ring.add(kj::heapString(line->text));
          } else {
            ring[oldest] = kj::heapString(line->text);
            oldest = (oldest + 1) % wanted;
          }
        } else {
          break;
        }
      }
      for (size_t k = ring.size(); k > 0; --k) newestFirst.add(kj::mv(ring[(oldest + k - 1) % ring.size()]));
    }
  }
  kj::Vector<kj::String> lines(newestFirst.size());
  for (size_t k = newestFirst.size(); k > 0; --k) lines.add(kj::mv(newestFirst[k - 1]));
  return lines;
}

}  // namespace postern::host
