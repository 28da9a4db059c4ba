// runSourceStream() of source-opener.h: a stream is read to its end into a file without a name, which is then sent: so
// that its size is known, and a transfer is the same whatever it sends.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/content-hash.h"
#include "transport/transfer/source-conversation.h"
#include "transport/transfer/system-problem.h"
#include "transport/transfer/unnamed-file.h"

namespace postern::transfer {

namespace {

// As a shell's redirection makes files.
constexpr uint16_t STREAM_MODE = 0644;

// Whether it is a file already, from its beginning.
bool isWholeFile(int stream) {
  struct stat status {};
  return fstat(stream, &status) == 0 && S_ISREG(status.st_mode) && lseek(stream, 0, SEEK_CUR) == 0;
}

Entry entryOf(kj::StringPtr as, uint64_t bytes) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  Entry entry;
  entry.name = kj::str(as);
  entry.mode = STREAM_MODE;
  entry.modifiedSeconds = now.tv_sec;
  entry.modifiedNanoseconds = static_cast<uint32_t>(now.tv_nsec);
  entry.size = bytes;
  return entry;
}

bool sendInlined(SourceConversation& conversation, SourceListener& listener, Entry entry, int file, bool verify) {
  size_t size = entry.size;
  entry.inlined = true;
  if (verify) {
    auto hash = kj::heapArray<kj::byte>(HASH_BYTES);
    memset(hash.begin(), 0, hash.size());
    entry.hash = kj::mv(hash);
  }
  auto name = kj::str(entry.name);
  auto space = conversation.beginInlined(Forward(kj::mv(entry)), size);
  if (pread(file, space.content.begin(), size, 0) != static_cast<ssize_t>(size)) {
    auto why = problemOf(EIO, "be read", "");
    listener.failed("standard input", why);
    return conversation.put(Forward(EntryFailed{kj::mv(name), kj::mv(why)}));
  }
  if (verify) hashContent(space.content, space.hash);
  return conversation.putInlined(space.content);
}

}  // namespace

OpenerEnd runSourceStream(kj::AutoCloseFd mover, SourceStream stream, const SourceOptions& options,
                          SourceListener& listener) {
  SourceConversation conversation(kj::mv(mover), listener, [](kj::StringPtr path) { return kj::str(path); });
  kj::AutoCloseFd file;
  if (isWholeFile(stream.stream)) {
    file = kj::mv(stream.stream);
  } else {
    auto unnamed = newUnnamedFile();
    if (unnamed.is<Problem>()) return kj::mv(unnamed.get<Problem>());
    file = kj::mv(unnamed.get<kj::AutoCloseFd>());
    auto copied = copyBytes(stream.stream, "standard input", file, "the temporary file for standard input");
    if (copied.is<Problem>()) return kj::mv(copied.get<Problem>());
  }
  struct stat status {};
  if (fstat(file, &status) != 0) return problemOf(errno, "be read", "standard input");

  Totals totals;
  totals.files = 1;
  totals.tops = 1;
  totals.bytes = static_cast<uint64_t>(status.st_size);
  listener.counted(totals);
  KJ_IF_MAYBE (end, conversation.announce(totals)) return kj::mv(*end);
  auto entry = entryOf(stream.as, totals.bytes);
  bool sent = false;
  if (entry.size <= INLINE_BYTES) {
    sent = sendInlined(conversation, listener, kj::mv(entry), file, options.verify);
  } else {
    entry.wantsBase = options.wantsBase && entry.size >= DELTA_MIN_BYTES;
    sent = conversation.put(Forward(kj::mv(entry)), file);
  }
  return sent ? conversation.finish() : conversation.end();
}

}  // namespace postern::transfer
