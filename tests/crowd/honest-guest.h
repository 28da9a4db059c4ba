#pragma once
// HonestGuest: the guest's side as an agent runs it: connect, HELLO, handshake, each attempt with its deadline, and
// again after a back-off until the host has let it in.

#include "tests/crowd/crowd-host.h"
#include "transport/backoff.h"

namespace postern::test {

class HonestGuest {
 public:
  // Starts at once.
  HonestGuest(CrowdHost& host, CrowdHost::Vm& vm);

  bool isIn() const { return session != nullptr; }
  unsigned attempts = 0;

 private:
  CrowdHost& host;
  CrowdHost::Vm& vm;
  Backoff backoff;
  Hello hello;
  Confirmation confirmation;
  kj::Maybe<kj::Own<Session>> session;
  kj::Promise<void> task;

  kj::Promise<void> getIn();
  kj::Promise<void> tryAgain();
  kj::Promise<void> meet(Connection connection);
  kj::Promise<void> establish(kj::Own<FrameLink> link, kj::TimePoint deadline);
};

}  // namespace postern::test
