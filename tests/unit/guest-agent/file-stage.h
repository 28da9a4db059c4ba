#pragma once
// FileStage: a host's and a guest's session over a socket pair, the guest's file service with a real broker and real
// openers (the agent's program in processes of their own), and a host that copies with the real movers and openers.
// All below a folder of the test's own. Not for a tree with sanitizers: an opener's sandbox ends their runtime.

#include <kj/thread.h>

#include "guest-agent/agent/guest-server.h"
#include "protocol/read-scratch.h"
#include "protocol/rpc-system.h"
#include "tests/support/test-random.h"
#include "tests/unit/guest-agent/broker-fixture.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/mover.h"
#include "transport/transfer/source-opener.h"

namespace postern::guest::test {

using transfer::FileCall;
using transfer::FileOrder;
using transfer::OpenerEnd;
using transfer::ProblemKind;
using Response = capnp::Response<schema::GuestCalls::FileResults>;

struct Pair {
  kj::AutoCloseFd one, other;
};
Pair socketPair(int type);

// What a program on the host hears.
struct HostListener final : transfer::SourceListener, transfer::DestinationListener, transfer::ListingListener {
  kj::Vector<kj::String> entries;   // of a listing
  kj::Vector<kj::String> failures;  // "path: word-of-the-problem"
  kj::Vector<kj::String> details;

  void failed(kj::StringPtr path, const transfer::Problem& problem) override;
  void entry(kj::StringPtr path, const transfer::Entry&) override { entries.add(kj::str(path)); }
};

struct FileStage : BrokerLab {
  // Rules of agent.toml behind `policy = 1`; "@" in them is this stage's folder, "%" the
  // run-as of whom the test runs as.
  // `opener` stands in for the agent's program, `theHost` is what the guest finds there.
  explicit FileStage(kj::StringPtr rules, kj::Maybe<kj::Array<kj::String>> opener = nullptr,
                     kj::Maybe<schema::Host::Client> theHost = nullptr);
  ~FileStage() noexcept(false);

  kj::String root = folder.path("guest");
  kj::Own<const GuestPolicy> policy;
  RunAs agentRunsAs{geteuid(), getegid(), false, {}};

  postern::test::TestRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  kj::Own<BrokerClient> brokerClient;
  InfoService info;
  PowerService power;
  FileService files;
  ChannelService channels;
  GuestServices services;
  struct NoRekeying final : public Rekeying {
    kj::Maybe<NotDone> rekey(const HostPublicKey&, EnrolmentToken) override { KJ_UNREACHABLE; }
  } rekeying;
  kj::Own<Session> guest, host;
  kj::Own<RpcConnection> guestRpc, hostRpc;
  HostListener heard;

  kj::String inGuest(kj::StringPtr name) { return kj::str(root, '/', name); }
  schema::GuestCalls::Client callsFor(kj::StringPtr user);
  FileOrder order(FileCall call, kj::StringPtr path);

  // With a channel of its own, where the call has one.
  struct Called {
    kj::Promise<Response> response;
    kj::Maybe<kj::Own<BulkChannel>> channel;
  };
  Called call(schema::GuestCalls::Client calls, const FileOrder& order);
  // The guest took the order; fails the test otherwise.
  kj::Own<BulkChannel> begin(const FileOrder& order);
  kj::String refusalOf(const FileOrder& order);              // its reason and detail
  kj::Maybe<ProblemKind> problemOf(const FileOrder& order);  // of mkdir and remove

  OpenerEnd put(kj::StringPtr folder, kj::StringPtr name, const FileOrder& order);
  OpenerEnd get(const FileOrder& order, kj::StringPtr folder);
  OpenerEnd list(const FileOrder& order);

  void waitUntilIdle();  // no transfer runs in the guest

 private:
  OpenerEnd run(kj::Own<transfer::Mover> mover, kj::Function<OpenerEnd()> opener);
};

// `rules` as FileStage has them.
kj::Own<const GuestPolicy> policyOf(kj::StringPtr rules, kj::StringPtr folder);

kj::String readFile(kj::StringPtr path);
// Openers that this process has started and that live.
size_t openersAlive();

}  // namespace postern::guest::test
