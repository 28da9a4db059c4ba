#pragma once
// FileService: GuestCalls.file, on the agent's loop. It checks an order, asks the guest's policy, takes the channel
// that the host offers, has the broker start a process that opens files (opener-process.h), and moves what goes between
// the two (transport/transfer/mover.h); files are read and written by a thread of each transfer.
//
// At most transfer::MAX_TRANSFERS at one time, of all sessions and callers. A transfer ends, and its opener with it,
// when it is done, when its channel or the session ends, and when its caller goes.

#include <kj/async-unix.h>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/verdict.h"
#include "protocol/guest.capnp.h"
#include "protocol/session.h"

namespace postern::guest {

class FileService {
 public:
  class Caller;

  // Both outlive the service, which outlives every caller.
  FileService(BrokerClient& broker, kj::UnixEventPort& port) : broker(broker), port(port) {}
  KJ_DISALLOW_COPY(FileService);

  // For a caller of a session, by the text that names him to the broker; both are borrowed.
  kj::Own<Caller> newCaller(Session& session, kj::StringPtr callerText);

  unsigned running() const { return count; }

 private:
  class Slot;
  struct Transfer;

  BrokerClient& broker;
  kj::UnixEventPort& port;
  unsigned count = 0;
};

// What one caller has under way; dropping it ends that.
class FileService::Caller final : private kj::TaskSet::ErrorHandler {
 public:
  Caller(FileService& service, Session& session, kj::StringPtr text);
  KJ_DISALLOW_COPY(Caller);

  // As GuestCalls.file says. An offer that breaks the rules of bulk channels ends the session; one above what a session
  // has room for is refused as busy.
  kj::Promise<void> file(DecideFile& decide, schema::GuestCalls::FileParams::Reader untrusted,
                         schema::GuestCalls::FileResults::Builder results);

 private:
  using Channel = kj::Maybe<kj::Own<BulkChannel>>;

  FileService& service;
  Session& session;
  kj::StringPtr text;
  kj::TaskSet tasks;

  kj::Promise<void> carryOut(transfer::FileOrder order, Channel channel, kj::Own<Slot> slot,
                             schema::GuestCalls::FileResults::Builder results);
  void begin(const transfer::FileOrder& order, kj::Own<BulkChannel> channel, OpenedFiles opened, kj::Own<Slot> slot);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
