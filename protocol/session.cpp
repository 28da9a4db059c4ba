#include "protocol/session.h"

#include <kj/debug.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol/turns.h"
#include "protocol/wire-int.h"

namespace postern {

namespace {

// Turns of the event loop from a received call to its queued answer: four where the callee answers at once, and as many
// again for what it may have to ask its own side.
constexpr unsigned TURNS_FOR_A_CALL = 8;

kj::Own<kj::PromiseFulfiller<SessionEnd>> takeFulfiller(kj::PromiseFulfillerPair<SessionEnd>& pair) {
  return kj::mv(pair.fulfiller);
}

kj::StringPtr describe(EndReason reason) {
  switch (reason) {
    case EndReason::CLOSED_HERE:
      return "closed by this end";
    case EndReason::CLOSED_BY_PEER:
      return "closed by the peer";
    case EndReason::LINK_ENDED:
      return "the link ended without a word";
    case EndReason::PEER_RESTARTED:
      return "the peer started anew";
    case EndReason::BAD_FRAME:
      return "the peer sent what is no frame";
    case EndReason::BAD_RECORD:
      return "the peer sent what does not authenticate";
    case EndReason::PROTOCOL_ERROR:
      return "the peer broke the protocol";
    case EndReason::PING_TIMEOUT:
      return "the peer did not answer a ping in time";
    case EndReason::FAILED_HERE:
      return "this end failed";
  }
  KJ_UNREACHABLE;
}

}  // namespace

kj::String describe(const SessionEnd& end) {
  auto text = kj::str(describe(end.reason));
  KJ_IF_MAYBE (code, end.code) text = kj::str(text, " (", describe(*code), ")");
  if (end.detail.size() > 0) text = kj::str(text, ": ", end.detail);
  return text;
}

Session::Session(Role self, kj::Own<FrameLink> linkParam, RecordSealer sealer, RecordOpener openerParam, bool enrolment,
                 const SessionEnvironment& environment)
    : self(self),
      link(kj::mv(linkParam)),
      opener(kj::mv(openerParam)),
      timer(environment.timer),
      pool(environment.pool),
      began(timer.now()),
      lastPeerRekey(timer.now()),
      enrolling(enrolment),
      ended(nullptr),
      rpc(environment.pool, [this]() { writer.wake(); }),
      bulkMux(self, environment.pool, environment.timer, [this]() { writer.wake(); }),
      writer(
          *link, kj::mv(sealer), environment.timer, *this, rpc, bulkMux, [this]() { writingEnded(); },
          [this](kj::Exception&& exception) { failed(kj::mv(exception)); }),
      readTask(nullptr) {
  auto pair = kj::newPromiseAndFulfiller<SessionEnd>();
  endFulfiller = takeFulfiller(pair);
  ended = pair.promise.fork();
  link->authenticated();
  // Behind this turn, so that the owner can set up what receives before anything is received.
  readTask = kj::evalLater([this]() { return readLoop(); }).eagerlyEvaluate([this](kj::Exception&& exception) {
    failed(kj::mv(exception));
  });
}

Session::~Session() noexcept(false) {
  end({EndReason::CLOSED_HERE, nullptr, "dropped"});
}

// Receiving ------------------------------------------------------------------------------------------------------

kj::Promise<void> Session::readLoop() {
  // What this session owes from earlier turns is sent first: under a full-speed stream the end of a turn may be far
  // away.
  writer.flush();
  while (!over) {
    if (rpc.isFull()) {
      link->park();
      return rpc.whenDrained().then([this]() { return readLoop(); });
    }
    auto next = link->readFrame();
    if (next.is<LinkEnd>()) {
      linkEnded(next.get<LinkEnd>());
    } else if (next.is<NoFrame>()) {
      writer.flush();
      if (over) break;
      return link->whenReadable().then([this]() { return readLoop(); });
    } else {
      receiveFrame(next.get<Frame>());
      if (!over && rpc.hasMessage()) {
        // A call is not to wait for the bulk records that were read together with it.
        link->park();
        return afterTurns(TURNS_FOR_A_CALL).then([this]() { return readLoop(); });
      }
    }
  }
  return kj::READY_NOW;
}

void Session::receiveFrame(const Frame& frame) {
  if (frame.kind != FrameKind::RECORD) {
    // Not authenticated, so anybody on the way may have done it: no word to the peer.
    return end({EndReason::BAD_FRAME, nullptr, "handshake message inside a session"});
  }
  if (frame.body.size() < TAG_BYTES + RECORD_HEADER_BYTES) {
    return end({EndReason::BAD_RECORD, nullptr, describe(RecordError::TOO_SHORT)});
  }
  auto storage = pool.take(RecordOpener::innerBytes(frame.body.size()));
  auto opened = opener.open(frame.body, storage);
  if (opened.is<RecordError>()) {
    auto error = opened.get<RecordError>();
    if (error == RecordError::BAD_RECORD) return breach(describe(error));
    return end({EndReason::BAD_RECORD, nullptr, describe(error)});
  }
  if (opener.recordsSinceRekey() > limits::MAX_RECORDS_WITHOUT_REKEY) return breach("too many records under one key");
  auto& record = opened.get<Record>();
  // T27
  if (record.header.padLength > 0) {
    // What credit and limits count is the data. The padding is not kept with it.
    auto compact = pool.take(record.data.size());
    if (record.data.size() > 0) memcpy(compact.begin(), record.data.begin(), record.data.size());
    record.data = compact;
    storage = kj::mv(compact);
  }
  receiveRecord(record, kj::mv(storage));
}

void Session::receiveRecord(const Record& record, kj::Array<kj::byte> storage) {
  // T12
  if (enrolling && record.header.type != RecordType::CLOSE && record.header.type != RecordType::COMMIT) {
    return breach("record before the enrolment's commit");
  }
  switch (record.header.type) {
    case RecordType::RPC:
      KJ_IF_MAYBE (error, rpc.receive(kj::mv(storage), record.data)) breach(describe(*error));
      return;
    case RecordType::BULK:
      KJ_IF_MAYBE (error, bulkMux.receive(record, kj::mv(storage))) breach(describe(*error));
      return;
    case RecordType::PING:
      // T28
      owedPong = getLittleEndian<uint64_t>(record.data.begin());
      writer.wake();
      return;
    case RecordType::PONG:
      return receivePong(getLittleEndian<uint64_t>(record.data.begin()));
    case RecordType::REKEY:
      return receiveRekey();
    case RecordType::COMMIT:
      return receiveCommit();
    case RecordType::CLOSE:
      KJ_IF_MAYBE (code, parseCloseCode(record.data[0])) {
        return end({EndReason::CLOSED_BY_PEER, *code, nullptr});
      }
      // A code of a later version: the peer has closed all the same.
      return end({EndReason::CLOSED_BY_PEER, nullptr, "with a code that this version does not know"});
    case RecordType::CONFIRM:
      return breach("CONFIRM or ACCEPT inside a session");
  }
  KJ_UNREACHABLE;
}

// T18
void Session::receiveRekey() {
  auto now = timer.now();
  // The REKEY record itself is counted.
  bool early =
      opener.recordsSinceRekey() < limits::REKEY_STORM_RECORDS && now - lastPeerRekey < limits::REKEY_STORM_TIME;
  if (early) return breach("REKEY too soon");
  opener.rekey();
  lastPeerRekey = now;
}

void Session::receivePong(uint64_t number) {
  if (number == 0 || number > lastPing) return breach("PONG without a PING");
  while (!pings.empty() && pings.front().number <= number) {
    auto& ping = pings.front();
    ping.fulfiller->fulfill(timer.now() - ping.sent);
    pings.pop_front();
  }
  if (pings.empty()) {
    pingDeadline = nullptr;  // no timer without an unanswered PING
    pingDeadlineRuns = false;
  }
}

void Session::receiveCommit() {
  if (!enrolling || commitReceived) return breach("COMMIT out of place");
  // The guest gets COMMITTED only after it has sent COMMIT.
  if (self == Role::GUEST && commitWaiter == nullptr) return breach("COMMITTED without a COMMIT");
  commitReceived = true;
  if (self == Role::GUEST) enrolling = false;
  KJ_IF_MAYBE (waiter, commitWaiter) (*waiter)->fulfill();
}

// Sending --------------------------------------------------------------------------------------------------------

kj::Maybe<OutgoingRecord> Session::nextRecord() {
  if (closeSent) return nullptr;
  kj::byte number[8];
  KJ_IF_MAYBE (pong, owedPong) {
    putLittleEndian<uint64_t>(*pong, number);
    owedPong = nullptr;
    return smallRecord({RecordType::PONG}, number);
  }
  KJ_IF_MAYBE (ping, owedPing) {
    putLittleEndian<uint64_t>(*ping, number);
    owedPing = nullptr;
    return smallRecord({RecordType::PING}, number);
  }
  if (owedCommit) {
    owedCommit = false;
    return smallRecord({RecordType::COMMIT}, nullptr);
  }
  KJ_IF_MAYBE (code, owedClose) {
    // Behind what RPC still has to say.
    KJ_IF_MAYBE (record, rpc.nextRecord()) return kj::mv(*record);
    const kj::byte data[1] = {static_cast<kj::byte>(*code)};
    // Nothing goes behind CLOSE: the streams have ended, here and now.
    closeSent = true;
    rpc.sessionEnded(RpcStream::End::FAILED, "closed by this end");
    bulkMux.sessionEnded();
    return smallRecord({RecordType::CLOSE}, data);
  }
  return nullptr;
}

kj::Promise<kj::Duration> Session::ping() {
  if (over) return KJ_EXCEPTION(DISCONNECTED, "the session is over");
  KJ_REQUIRE(!enrolling, "no ping before the enrolment's commit");
  auto pair = kj::newPromiseAndFulfiller<kj::Duration>();
  owedPing = ++lastPing;
  pings.push_back({lastPing, timer.now(), kj::mv(pair.fulfiller)});
  writer.wake();
  if (!pingDeadlineRuns) {
    pingDeadlineRuns = true;
    pingDeadline = watchPings().eagerlyEvaluate(nullptr);
  }
  return kj::mv(pair.promise);
}

kj::Promise<void> Session::watchPings() {
  // Runs only while a PING is unanswered.
  if (over || pings.empty()) {
    pingDeadlineRuns = false;
    return kj::READY_NOW;
  }
  auto deadline = pings.front().sent + limits::PING_DEADLINE;
  if (timer.now() >= deadline) {
    pingDeadlineRuns = false;
    end({EndReason::PING_TIMEOUT, nullptr, nullptr});
    return kj::READY_NOW;
  }
  return timer.atTime(deadline).then([this]() { return watchPings(); });
}

kj::Promise<void> Session::close(CloseCode code) {
  if (over) return kj::READY_NOW;
  if (!closing) {
    closing = true;
    owedClose = code;
    closeTask = writer.whenEmpty()
                    .exclusiveJoin(timer.afterDelay(limits::CLOSE_LINGER))
                    .then([this]() {
                      end({EndReason::CLOSED_HERE, nullptr, nullptr});
                    })
                    .eagerlyEvaluate(nullptr);
  }
  return onEnd().ignoreResult();
}

// Enrolment ------------------------------------------------------------------------------------------------------

kj::Promise<void> Session::commit() {
  KJ_REQUIRE(self == Role::GUEST && enrolling);
  owedCommit = true;
  writer.wake();
  return whenCommit();
}

kj::Promise<void> Session::whenCommit() {
  if (commitReceived) return kj::READY_NOW;
  if (over) return KJ_EXCEPTION(DISCONNECTED, "the session is over");
  auto pair = kj::newPromiseAndFulfiller<void>();
  commitWaiter = kj::mv(pair.fulfiller);
  return kj::mv(pair.promise);
}

void Session::confirmCommit() {
  KJ_REQUIRE(self == Role::HOST && enrolling && commitReceived);
  enrolling = false;
  owedCommit = true;
  writer.wake();
}

// Ending ---------------------------------------------------------------------------------------------------------

bool Session::isRenewalDue() const {
  return timer.now() - began >= limits::RENEW_AFTER || bytesSent() + bytesReceived() >= limits::RENEW_AFTER_BYTES;
}

// T19
void Session::linkEnded(LinkEnd why) {
  switch (why) {
    case LinkEnd::ENDED:
      return end({EndReason::LINK_ENDED, nullptr, nullptr});
    case LinkEnd::PEER_RESTARTED:
      return end({EndReason::PEER_RESTARTED, nullptr, nullptr});
    case LinkEnd::BAD_FRAME:
      return end({EndReason::BAD_FRAME, nullptr, nullptr});
    case LinkEnd::CLOSED:
      return end({EndReason::CLOSED_HERE, nullptr, nullptr});
  }
}

// What the peer sent before it closed counts, and is often a CLOSE.
void Session::writingEnded() {
  if (breaking) return;  // which ends the session itself
  writer.stop();
  while (!over) {
    auto next = link->readFrame();
    if (next.is<Frame>()) {
      receiveFrame(next.get<Frame>());
    } else {
      linkEnded(next.is<LinkEnd>() ? next.get<LinkEnd>() : LinkEnd::ENDED);
    }
  }
}

void Session::failed(kj::Exception&&) {
  end({EndReason::FAILED_HERE, nullptr, "exception in reading or writing"});
}

// T20
void Session::breakOff(CloseCode code, kj::StringPtr detail) {
  if (over || breaking) return;
  breaking = true;
  // The peer is authenticated: it is told, if the pipe takes it at once.
  owedClose = code;
  rpc.sessionEnded(RpcStream::End::FAILED, detail);
  auto ignored = kj::runCatchingExceptions([this]() { writer.flush(); });
  end({EndReason::PROTOCOL_ERROR, nullptr, detail});
}

void Session::end(SessionEnd how) {
  if (over) return;
  over = true;
  bool clean = how.reason == EndReason::CLOSED_BY_PEER && how.code != nullptr;
  auto why = describe(how);
  writer.stop();
  link->close();
  rpc.sessionEnded(clean ? RpcStream::End::CLEAN : RpcStream::End::FAILED, why);
  bulkMux.sessionEnded();
  auto failure = KJ_EXCEPTION(DISCONNECTED, "session ended", why);
  for (auto& ping : pings) ping.fulfiller->reject(kj::cp(failure));
  pings.clear();
  KJ_IF_MAYBE (waiter, commitWaiter) {
    if (!commitReceived) (*waiter)->reject(kj::cp(failure));
  }
  endFulfiller->fulfill(kj::mv(how));
}

}  // namespace postern
