#pragma once
// QmpConnection: one connection to a QMP socket: lines in, numbered commands out. Guarantees, whatever QEMU sends:
//  - memory for one line and MAX_QMP_COMMANDS commands;
//  - it ends, with a line for a person, at the first thing that is no QMP, at an answer to what was not asked, and at a
//    line that is not finished QMP_ANSWER_DEADLINE after it began;
//  - a command is answered, or its deadline later is not; whoever asked hears the answer before any event that
//    came after it is told.
// Owned by the watch, on its loop. Connects nothing, and has no deadline for the greeting.

#include <kj/function.h>
#include <kj/one-of.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "host/qmp/qmp-line.h"
#include "host/qmp/qmp-message.h"
#include "protocol/byte-pipe.h"

namespace postern::host {

constexpr size_t MAX_QMP_COMMANDS = 8;

class QmpConnection final : private kj::TaskSet::ErrorHandler {
 public:
  class Handler {
   public:
    virtual void qmpGreeting() = 0;  // once, before anything else
    virtual void qmpHeard(const QmpEvent& event) = 0;
  };
  struct NoAnswer {
    kj::String why;
  };
  struct Ended {};  // QEMU closed the connection before the answer
  using Reply = kj::OneOf<QmpAnswer, NoAnswer, Ended>;

  // `timer` and `handler` outlive this.
  QmpConnection(kj::Timer& timer, kj::Own<BytePipe> pipe, Handler& handler);
  ~QmpConnection() noexcept(false);
  KJ_DISALLOW_COPY(QmpConnection);

  // Reads until the connection ends; why it did. Once. The handler is called from within, and must not destroy this.
  kj::Promise<kj::String> run();

  // `name` is one of QMP's, without arguments. The promise may outlive this, but not the timer.
  kj::Promise<Reply> command(kj::StringPtr name, kj::Duration deadline = QMP_ANSWER_DEADLINE);

  // Ends it; run() then says why.
  void fail(kj::String why);

  bool hasHeard() const { return heard; }  // a byte

 private:
  enum class Taken { ALL, UP_TO_AN_ANSWER, FAILED };
  struct Outstanding {
    uint64_t id;
    kj::Own<kj::PromiseFulfiller<Reply>> fulfiller;
  };

  kj::Timer& timer;
  kj::Own<BytePipe> pipe;
  Handler& handler;
  QmpLines lines;
  bool heard = false;
  bool greeted = false;
  bool writing = false;  // a task waits for the pipe
  kj::Array<char> chunk;
  kj::Maybe<kj::TimePoint> lineDeadline;  // of the unfinished line, once it has been waited for
  kj::Maybe<kj::String> failure;
  uint64_t lastId = 0;
  kj::Vector<Outstanding> outstanding;
  kj::Vector<kj::byte> unwritten;
  kj::TaskSet tasks;

  kj::Promise<void> receive();
  kj::Promise<void> whenMore();
  Taken takeLines();
  bool takeLine(kj::ArrayPtr<const char> untrustedLine);
  void takeAnswer(QmpAnswer answer);
  void flush();
  void forgetDropped();
  kj::String finish();
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
