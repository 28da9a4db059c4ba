#include "host/qmp/qmp-connection.h"

#include <kj/debug.h>

namespace postern::host {

namespace {

constexpr size_t CHUNK_BYTES = size_t(4) << 10;
// One turn of the loop reads no more, so that a flood of lines does not hold up the others on the loop.
constexpr size_t TURN_BYTES = 8 * CHUNK_BYTES;
// Of commands that QEMU does not take, beside those that it does not answer.
constexpr size_t MAX_UNWRITTEN_BYTES = size_t(1) << 10;

}  // namespace

QmpConnection::QmpConnection(kj::Timer& timer, kj::Own<BytePipe> pipe, Handler& handler)
    : timer(timer), pipe(kj::mv(pipe)), handler(handler), chunk(kj::heapArray<char>(CHUNK_BYTES)), tasks(*this) {}

QmpConnection::~QmpConnection() noexcept(false) {
  for (auto& command : outstanding) command.fulfiller->fulfill(NoAnswer{kj::str("its connection to QEMU was ended")});
}

kj::Promise<kj::String> QmpConnection::run() {
  return receive().then([this] { return finish(); });
}

kj::Promise<void> QmpConnection::receive() {
  for (size_t taken = 0; taken < TURN_BYTES;) {
    switch (takeLines()) {
      case Taken::ALL:
        break;
      case Taken::UP_TO_AN_ANSWER:
        // Whoever asked hears it before what follows it is looked at.
        return kj::evalLast([this] { return receive(); });
      case Taken::FAILED:
        return kj::READY_NOW;
    }
    auto result = pipe->read(chunk.asPtr().asBytes());
    if (result.state != PipeState::OPEN) return kj::READY_NOW;
    if (result.bytes == 0) return whenMore();
    heard = true;
    lines.begin(chunk.slice(0, result.bytes));
    taken += result.bytes;
  }
  return kj::evalLast([this] { return receive(); });
}

kj::Promise<void> QmpConnection::whenMore() {
  auto readable = pipe->whenReadable();
  if (lines.isInLine()) {
    auto deadline = lineDeadline.orDefault(timer.now() + QMP_ANSWER_DEADLINE);
    lineDeadline = deadline;
    if (timer.now() >= deadline) {
      fail(kj::str("QEMU stopped in the middle of a line"));
      return kj::READY_NOW;
    }
    readable = readable.exclusiveJoin(timer.atTime(deadline));
  }
  return readable.then([this] { return receive(); });
}

QmpConnection::Taken QmpConnection::takeLines() {
  for (;;) {
    auto next = lines.next();
    if (next.is<QmpLines::UsedUp>()) return Taken::ALL;
    KJ_IF_MAYBE (line, next.tryGet<QmpLines::Line>()) {
      lineDeadline = nullptr;
      bool answer = takeLine(line->untrustedText);
      if (failure != nullptr) return Taken::FAILED;
      if (answer) return Taken::UP_TO_AN_ANSWER;
    } else {
      fail(kj::str("QEMU sent a line of more than ", MAX_QMP_LINE_BYTES, " bytes"));
      return Taken::FAILED;
    }
  }
}

// Whether it was an answer.
bool QmpConnection::takeLine(kj::ArrayPtr<const char> untrustedLine) {
  auto message = parseQmp(untrustedLine);
  KJ_IF_MAYBE (bad, message.tryGet<QmpGarbage>()) {
    fail(kj::str("QEMU sent ", bad->why));
  } else if (message.is<QmpGreeting>() == greeted) {
    fail(kj::str(greeted ? "QEMU greeted a second time" : "QEMU did not begin with its greeting"));
  } else if (!greeted) {
    greeted = true;
    handler.qmpGreeting();
  } else KJ_IF_MAYBE (event, message.tryGet<QmpEvent>()) {
    handler.qmpHeard(*event);
  } else {
    takeAnswer(kj::mv(message.get<QmpAnswer>()));
    return true;
  }
  return false;
}

void QmpConnection::takeAnswer(QmpAnswer answer) {
  for (auto& command : outstanding) {
    if (command.id != answer.id) continue;
    auto fulfiller = kj::mv(command.fulfiller);
    command = kj::mv(outstanding.back());
    outstanding.removeLast();
    fulfiller->fulfill(kj::mv(answer));
    return;
  }
  // One that came too late, for a command that nobody waits for any more, is no fault.
  if (answer.id == 0 || answer.id > lastId) fail(kj::str("QEMU answered what was not asked"));
}

kj::Promise<QmpConnection::Reply> QmpConnection::command(kj::StringPtr name, kj::Duration deadline) {
  KJ_IF_MAYBE (why, failure) return Reply(NoAnswer{kj::str(*why)});
  forgetDropped();
  if (outstanding.size() == MAX_QMP_COMMANDS || unwritten.size() > MAX_UNWRITTEN_BYTES) {
    return Reply(NoAnswer{kj::str("QEMU has left earlier commands unanswered")});
  }
  auto answer = kj::newPromiseAndFulfiller<Reply>();
  outstanding.add(Outstanding{++lastId, kj::mv(answer.fulfiller)});
  unwritten.addAll(kj::str("{\"execute\":\"", name, "\",\"id\":", lastId, "}\n").asBytes());
  flush();
  return answer.promise.exclusiveJoin(timer.afterDelay(deadline).then([name = kj::str(name), deadline]() -> Reply {
    return NoAnswer{kj::str("QEMU did not answer ", name, " within ", deadline / kj::SECONDS, " s")};
  }));
}

// Those whose deadline has passed, or whose caller has gone.
void QmpConnection::forgetDropped() {
  kj::Vector<Outstanding> waiting;
  for (auto& command : outstanding) {
    if (command.fulfiller->isWaiting()) waiting.add(kj::mv(command));
  }
  outstanding = kj::mv(waiting);
}

void QmpConnection::flush() {
  if (writing) return;
  while (!unwritten.empty()) {
    kj::ArrayPtr<const kj::byte> pieces[] = {unwritten.asPtr()};
    auto result = pipe->write(pieces);
    // An end shows in the next read as well.
    if (result.state != PipeState::OPEN) return unwritten.clear();
    if (result.bytes == 0) {
      writing = true;
      tasks.add(pipe->whenWritable().then([this] {
        writing = false;
        flush();
      }));
      return;
    }
    kj::Vector<kj::byte> rest;
    rest.addAll(unwritten.asPtr().slice(result.bytes, unwritten.size()));
    unwritten = kj::mv(rest);
  }
}

void QmpConnection::fail(kj::String why) {
  if (failure != nullptr) return;
  failure = kj::mv(why);
  pipe->close();
}

kj::String QmpConnection::finish() {
  for (auto& command : outstanding) {
    Reply reply = Ended();
    KJ_IF_MAYBE (why, failure) reply = NoAnswer{kj::str(*why)};
    command.fulfiller->fulfill(kj::mv(reply));
  }
  outstanding.clear();
  if (failure == nullptr) fail(kj::str(greeted ? "QEMU closed it" : "it was closed without a greeting"));
  return kj::str(KJ_ASSERT_NONNULL(failure));
}

void QmpConnection::taskFailed(kj::Exception&& exception) {
  fail(kj::str("QMP could not be written: ", exception.getDescription()));
}

}  // namespace postern::host
