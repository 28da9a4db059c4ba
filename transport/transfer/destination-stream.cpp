// runDestinationStream() of destination-opener.h. A larger file is received into one without a name and copied when it
// is whole: what is written to a stream cannot be taken back.
#include <sys/stat.h>
#include <unistd.h>

#include "transport/transfer/content-hash.h"
#include "transport/transfer/destination-conversation.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/system-problem.h"
#include "transport/transfer/unnamed-file.h"

namespace postern::transfer {

namespace {

constexpr kj::StringPtr SHOWN = "standard output"_kj;

class StreamRun {
 public:
  StreamRun(kj::AutoCloseFd mover, kj::AutoCloseFd stream, DestinationListener& listener)
      : stream(kj::mv(stream)), listener(listener), conversation(kj::mv(mover), ForwardCheck::Form::OPENER) {}

  OpenerEnd run() {
    for (;;) {
      auto heard = conversation.next(nullptr);
      kj::Maybe<Problem> over;
      KJ_SWITCH_ONEOF(heard) {
        KJ_CASE_ONEOF(forward, Forward) over = hear(kj::mv(forward));
        KJ_CASE_ONEOF(commit, Commit) over = committed(kj::mv(commit));
        KJ_CASE_ONEOF(sent, Sent) summary.sentBytes = kj::max(summary.sentBytes, sent.bytes);
        KJ_CASE_ONEOF(problem, Problem) over = kj::mv(problem);
        KJ_CASE_ONEOF_DEFAULT break;
      }
      KJ_IF_MAYBE (problem, over) {
        conversation.flush();
        return kj::mv(*problem);
      }
      if (conversation.order().isDone() && large == nullptr) {
        conversation.put(Backward(Summary(summary)));
        conversation.flush();
        return summary;
      }
    }
  }

 private:
  struct Large {
    kj::AutoCloseFd file;
    Entry entry;
  };

  kj::AutoCloseFd stream;
  DestinationListener& listener;
  DestinationConversation conversation;
  Summary summary;
  kj::Maybe<Large> large;

  kj::Maybe<Problem> hear(Forward&& forward) {
    KJ_SWITCH_ONEOF(forward) {
      KJ_CASE_ONEOF(totals, Totals) return announced(totals);
      KJ_CASE_ONEOF(entry, Entry) return arrived(kj::mv(entry));
      KJ_CASE_ONEOF(failed, EntryFailed) {
        ++summary.failures;
        listener.failed(failed.name, failed.problem);
      }
      KJ_CASE_ONEOF_DEFAULT break;
    }
    return nullptr;
  }

  kj::Maybe<Problem> announced(const Totals& totals) {
    listener.announced(totals);
    if (totals.tops == 1 && totals.directories == 0) {
      conversation.put(Backward(Ready{false}));
      return nullptr;
    }
    auto why = problem(ProblemKind::IS_DIRECTORY, kj::str("only a single file can be written to ", SHOWN));
    conversation.put(Backward(Refused{copy(why)}));
    return kj::mv(why);
  }

  void failed(const Entry& entry, Problem why) {
    ++summary.failures;
    listener.failed(entry.name, atDestination(why));
    conversation.put(Backward(DestinationFailed{conversation.order().entryNumber(), kj::str(entry.name), kj::mv(why)}));
  }
  void done(const Entry& entry) {
    ++summary.files;
    summary.bytes += entry.size;
    listener.made(entry.name, entry);
  }

  // A problem ends it: nothing but one file belongs into a stream.
  kj::Maybe<Problem> arrived(Entry entry) {
    if (conversation.order().entriesSeen() > 1) {
      return problem(ProblemKind::PROTOCOL, kj::str("the other end sent more than the file that it announced"));
    }
    if (entry.kind != EntryKind::FILE) {
      failed(entry, problem(ProblemKind::UNSUPPORTED, kj::str("is no file, and cannot be written to ", SHOWN)));
      return nullptr;
    }
    if (entry.inlined) {
      KJ_IF_MAYBE (why, writeInlined(entry)) {
        failed(entry, kj::mv(*why));
      } else {
        summary.sentBytes += entry.size;
        done(entry);
      }
      return nullptr;
    }
    auto unnamed = newUnnamedFile();
    if (unnamed.is<Problem>()) {
      failed(entry, kj::mv(unnamed.get<Problem>()));
      return nullptr;
    }
    int descriptor = unnamed.get<kj::AutoCloseFd>();
    large = Large{kj::mv(unnamed.get<kj::AutoCloseFd>()), kj::mv(entry)};
    conversation.put(Opened{0, false, false}, kj::arrayPtr(&descriptor, 1));
    return nullptr;
  }

  kj::Maybe<Problem> writeInlined(const Entry& entry) {
    auto content = conversation.content();
    KJ_IF_MAYBE (hash, entry.hash) {
      kj::byte found[HASH_BYTES];
      hashContent(content, found);
      if (kj::arrayPtr(found, HASH_BYTES) != hash->asPtr()) {
        return problem(ProblemKind::BAD_HASH, kj::str("what came is not what was sent"));
      }
    }
    if (int error = writeAll(stream, content)) return problemOf(error, "be written", SHOWN);
    return nullptr;
  }

  kj::Maybe<Problem> committed(Commit commit) {
    KJ_IF_MAYBE (l, large) {
      auto file = kj::mv(*l);
      large = nullptr;
      if (commit.outcome.is<Problem>()) {
        failed(file.entry, kj::mv(commit.outcome.get<Problem>()));
        return nullptr;
      }
      struct stat status {};
      bool isWhole = commit.outcome.is<Whole>() && fstat(file.file, &status) == 0 &&
                     (file.entry.stream || uint64_t(status.st_size) == file.entry.size);
      if (!isWhole) {
        failed(file.entry, problem(ProblemKind::FAILED, kj::str("did not arrive whole")));
        return nullptr;
      }
      lseek(file.file, 0, SEEK_SET);
      auto copied = copyBytes(file.file, "the temporary file", stream, SHOWN);
      if (copied.is<Problem>()) {
        failed(file.entry, kj::mv(copied.get<Problem>()));
        return nullptr;
      }
      file.entry.size = copied.get<uint64_t>();
      done(file.entry);
    }
    return nullptr;
  }
};

}  // namespace

OpenerEnd runDestinationStream(kj::AutoCloseFd mover, kj::AutoCloseFd stream, DestinationListener& listener) {
  StreamRun run(kj::mv(mover), kj::mv(stream), listener);
  return run.run();
}

}  // namespace postern::transfer
