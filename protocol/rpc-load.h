#pragma once
// RpcLoad: bounds what a peer makes the RPC system hold for it, which the RPC system itself does not:
//  - answers that the peer does not read: above limits::MAX_RPC_BACKLOG_BYTES or MAX_RPC_BACKLOG_MESSAGES of them no
//    further message is taken from it until it has read (this end's own calls do not count, so that two ends that call
//    much do not wait for each other);
//  - calls that are in progress, or answered and not finished: above limits::MAX_RPC_ANSWERS the session ends;
//  - and a message that is too large to be sent fails alone, at the one who sends it.
//
// One a connection; session and network outlive it.

#include <capnp/rpc-twoparty.h>
#include <capnp/rpc.capnp.h>

#include <deque>
#include <unordered_map>

#include "protocol/session.h"

namespace postern {

class RpcLoad {
 public:
  RpcLoad(Session& session, capnp::TwoPartyVatNetwork& network) : session(session), network(network) {}
  KJ_DISALLOW_COPY(RpcLoad);

  // Throws when a message of this size cannot be sent.
  void checkSize(size_t words) const;
  void sent(capnp::rpc::Message::Reader message, size_t words);
  void received(capnp::rpc::Message::Reader untrustedMessage);
  // Whether the next message may be taken from the peer; and a promise of that.
  bool mayReceive();
  kj::Promise<void> whenMayReceive();

 private:
  struct Answer {
    bool returned = false;
    bool finished = false;
  };

  Session& session;
  capnp::TwoPartyVatNetwork& network;
  std::unordered_map<uint32_t, Answer> answers;  // by the peer's question
  struct Queued {
    bool peersDoing;
    size_t bytes;
  };
  std::deque<Queued> queued;  // the network's queue, as far as it has not been written
  size_t backlogMessages = 0;
  size_t backlogBytes = 0;

  void forgetWritten();
};

}  // namespace postern
