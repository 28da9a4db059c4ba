#include "protocol/rpc-load.h"

#include <kj/debug.h>

#include "protocol/limits.h"

namespace postern {

namespace {

// The longest segment table, in words.
constexpr size_t TABLE_WORDS = (limits::MAX_RPC_SEGMENTS + 2) / 2;

}  // namespace

void RpcLoad::checkSize(size_t words) const {
  KJ_REQUIRE(words + TABLE_WORDS <= limits::MAX_RPC_MESSAGE_BYTES / sizeof(capnp::word),
             "RPC message is too large to be sent", words);
}

void RpcLoad::sent(capnp::rpc::Message::Reader message, size_t words) {
  bool ownCall = message.isCall() || message.isBootstrap();
  size_t bytes = words * sizeof(capnp::word);
  queued.push_back({!ownCall, bytes});
  if (!ownCall) {
    ++backlogMessages;
    backlogBytes += bytes;
  }
  forgetWritten();
  if (message.isReturn()) {
    auto found = answers.find(message.getReturn().getAnswerId());
    if (found == answers.end()) return;
    found->second.returned = true;
    if (found->second.finished) answers.erase(found);
  }
}

void RpcLoad::forgetWritten() {
  while (queued.size() > network.getCurrentQueueCount()) {
    auto& written = queued.front();
    if (written.peersDoing) {
      --backlogMessages;
      backlogBytes -= written.bytes;
    }
    queued.pop_front();
  }
}

// T41
void RpcLoad::received(capnp::rpc::Message::Reader untrustedMessage) {
  switch (untrustedMessage.which()) {
    case capnp::rpc::Message::CALL:
      answers.emplace(untrustedMessage.getCall().getQuestionId(), Answer());
      break;
    case capnp::rpc::Message::BOOTSTRAP:
      answers.emplace(untrustedMessage.getBootstrap().getQuestionId(), Answer());
      break;
    case capnp::rpc::Message::FINISH: {
      auto found = answers.find(untrustedMessage.getFinish().getQuestionId());
      if (found == answers.end()) return;  // the RPC system has its own opinion
      found->second.finished = true;
      if (found->second.returned) answers.erase(found);
      return;
    }
    default:
      return;
  }
  if (answers.size() > limits::MAX_RPC_ANSWERS) {
    session.breakOff(CloseCode::RESOURCE_LIMIT, "too many RPC calls in progress or not finished");
  }
}

// T41
bool RpcLoad::mayReceive() {
  forgetWritten();
  bool backlogged = backlogMessages > limits::MAX_RPC_BACKLOG_MESSAGES || backlogBytes > limits::MAX_RPC_BACKLOG_BYTES;
  // A stream that has ended takes nothing any more; the next read says so.
  return !backlogged || session.rpcStream().hasEnded();
}

kj::Promise<void> RpcLoad::whenMayReceive() {
  if (mayReceive()) return kj::READY_NOW;
  return session.rpcStream().whenTaken().then([this]() { return whenMayReceive(); });
}

}  // namespace postern
