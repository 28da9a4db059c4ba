#include "protocol/transfer/progress.h"

#include <kj/debug.h>

#include <algorithm>

#include "protocol/transfer/malformed.h"
#include "protocol/transfer/text.h"

namespace postern::transfer {

namespace {

using Error = kj::Maybe<FrameError>;

Error readHashes(capnp::Data::Reader untrusted, Hashes& to) {
  if (untrusted.size() == 0 || untrusted.size() % HASH_BYTES != 0 || untrusted.size() > MAX_HASHES * HASH_BYTES) {
    return FrameError{"hashes are 1 to MAX_HASHES of HASH_BYTES"};
  }
  to.hashes = kj::heapArray<kj::byte>(untrusted);
  return nullptr;
}

Error readFailed(schema::Backward::Failed::Reader untrusted, DestinationFailed& to) {
  auto path = untrusted.getPath();
  if (path.size() > MAX_PATH_BYTES || hasNul(path)) return FrameError{"a path has at most MAX_PATH_BYTES and no NUL"};
  to.entry = untrusted.getEntry();
  to.path = stringOf(path);
  to.problem = parseProblem(untrusted.getProblem());
  return nullptr;
}

Error readProgress(schema::Backward::Progress::Reader untrusted, Progress& to) {
  to = {untrusted.getEntries(), untrusted.getBytes()};
  if (to.bytes > MAX_FILE_BYTES) return FrameError{"all bytes are at most MAX_FILE_BYTES"};
  return nullptr;
}

Error readBase(uint64_t bytes, Base& to) {
  to = {bytes};
  if (bytes > MAX_FILE_BYTES) return FrameError{"a base is at most MAX_FILE_BYTES"};
  return nullptr;
}

}  // namespace

Summary parseSummary(schema::Summary::Reader untrusted) {
  Summary result;
  result.files = std::min(untrusted.getFiles(), MAX_COUNT);
  result.directories = std::min(untrusted.getDirectories(), MAX_COUNT);
  result.bytes = std::min(untrusted.getBytes(), MAX_FILE_BYTES);
  result.sentBytes = std::min(untrusted.getSentBytes(), MAX_FILE_BYTES);
  result.failures = std::min(untrusted.getFailures(), MAX_COUNT);
  result.unchanged = std::min(untrusted.getUnchanged(), MAX_COUNT);
  return result;
}

void write(const Summary& from, schema::Summary::Builder to) {
  to.setFiles(from.files);
  to.setDirectories(from.directories);
  to.setBytes(from.bytes);
  to.setSentBytes(from.sentBytes);
  to.setFailures(from.failures);
  to.setUnchanged(from.unchanged);
}

kj::Maybe<FrameError> readBackward(schema::Backward::Reader untrusted, Backward& to) {
  using Which = schema::Backward::Which;
  switch (untrusted.which()) {
    case Which::READY:
      to.init<Ready>(Ready{untrusted.getReady().getInto()});
      return nullptr;
    case Which::REFUSED:
      to.init<Refused>(Refused{parseProblem(untrusted.getRefused())});
      return nullptr;
    case Which::BASE:
      return readBase(untrusted.getBase().getBytes(), to.init<Base>());
    case Which::HASHES:
      return readHashes(untrusted.getHashes(), to.init<Hashes>());
    case Which::FAILED:
      return readFailed(untrusted.getFailed(), to.init<DestinationFailed>());
    case Which::PROGRESS:
      return readProgress(untrusted.getProgress(), to.init<Progress>());
    case Which::FINISHED:
      to.init<Summary>(parseSummary(untrusted.getFinished()));
      return nullptr;
  }
  return FrameError{"a message is one that is known"};
}

kj::OneOf<Backward, FrameError> parseBackward(FrameView& untrusted) {
  return parsing<Backward>([&](Backward& to) -> Error {
    if (untrusted.content().size() > 0) return FrameError{"nothing goes back that has content"};
    return readBackward(untrusted.as<schema::Backward>(), to);
  });
}

kj::OneOf<Backward, FrameError> parseBackward(schema::Backward::Reader untrusted) {
  return parsing<Backward>([&](Backward& to) { return readBackward(untrusted, to); });
}

void write(const Backward& from, schema::Backward::Builder to) {
  KJ_SWITCH_ONEOF(from) {
    KJ_CASE_ONEOF(ready, Ready) to.initReady().setInto(ready.into);
    KJ_CASE_ONEOF(refused, Refused) write(refused.problem, to.initRefused());
    KJ_CASE_ONEOF(base, Base) to.initBase().setBytes(base.bytes);
    KJ_CASE_ONEOF(hashes, Hashes) to.setHashes(hashes.hashes);
    KJ_CASE_ONEOF(failed, DestinationFailed) {
      auto out = to.initFailed();
      out.setEntry(failed.entry);
      out.setPath(failed.path.asBytes());
      write(failed.problem, out.initProblem());
    }
    KJ_CASE_ONEOF(progress, Progress) {
      auto out = to.initProgress();
      out.setEntries(progress.entries);
      out.setBytes(progress.bytes);
    }
    KJ_CASE_ONEOF(summary, Summary) write(summary, to.initFinished());
  }
}

}  // namespace postern::transfer
