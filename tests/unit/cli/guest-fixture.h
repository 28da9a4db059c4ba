#pragma once
// FakeGuest: VmCalls.file of a session whose guest is a folder of the test's own: real openers at both ends, the
// caller's and the guest's, and a TransferRelay between them in place of movers and link.

#include <functional>

#include "host/control/control.capnp.h"
#include "protocol/transfer/problem.h"
#include "tests/support/transfer-relay.h"

namespace postern::test {

class FakeGuest {
 public:
  using Context = capnp::CallContext<host::schema::VmCalls::FileParams, host::schema::VmCalls::FileResults>;

  // An order, as a test looks at it.
  struct Order {
    schema::FileOrder::Call call;
    kj::String path;
    bool recursive, archive, intoDirectory, noClobber, resume, verify, makeParents;
    schema::FileOrder::Sparse sparse;
    uint64_t rate;
  };

  kj::String root;  // of the guest's files
  kj::Vector<Order> orders;
  // In place of carrying an order out; null: it is carried out.
  std::function<kj::Maybe<kj::Promise<void>>(Context&)> instead = [](Context&) { return nullptr; };
  RelayOptions relay;
  // With relay.vanishInFile, what the session does then. It owes the answer.
  std::function<kj::Promise<void>()> whenVanished = []() { return kj::NEVER_DONE; };

  kj::Promise<void> serve(Context context);
};

// The kind and the line of a whole operation's problem.
void answer(FakeGuest::Context& context, transfer::ProblemKind kind, kj::StringPtr detail);

}  // namespace postern::test
