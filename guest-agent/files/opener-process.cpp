#include "guest-agent/files/opener-process.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "guest-agent/files/carry-out.h"
#include "guest-agent/files/opener-order.h"
#include "guest-agent/files/opener-sandbox.h"
#include "transport/transfer/guest-paths.h"
#include "transport/transfer/owner-names.h"
#include "transport/transfer/system-problem.h"

namespace postern::guest {

namespace {

using transfer::Problem;

constexpr int SOCKET_FD = 3;

kj::Array<kj::byte> readInput() {
  kj::FdInputStream input(STDIN_FILENO);
  auto bytes = kj::heapArray<kj::byte>(MAX_OPENER_ORDER_BYTES + 1);
  size_t got = input.tryRead(bytes.begin(), bytes.size(), bytes.size());
  return kj::heapArray(bytes.slice(0, got));
}

Problem aboutRoot(Problem problem, kj::StringPtr root) {
  problem.detail = kj::str("the folder ", root, ", which the guest's policy is about: ", problem.detail);
  return problem;
}

// From "/" on, no link followed: whoever can write to a folder above it must not be able to lead elsewhere.
kj::OneOf<kj::AutoCloseFd, Problem> openRoot(kj::StringPtr root) {
  kj::AutoCloseFd top(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  KJ_REQUIRE(top.get() >= 0, "the root folder cannot be opened", errno);
  auto opened = transfer::openPath(top, "/", root);
  KJ_IF_MAYBE (problem, opened.tryGet<Problem>()) return aboutRoot(kj::mv(*problem), root);
  auto& place = opened.get<transfer::OpenedPath>();
  auto folder = transfer::openFolder(place.folder, place.name);
  KJ_IF_MAYBE (problem, folder.tryGet<Problem>()) return aboutRoot(kj::mv(*problem), root);
  return kj::mv(folder.get<kj::AutoCloseFd>());
}

void serve(OpenerOrder& order, kj::AutoCloseFd socket) {
  // What is behind the sandbox's wall: names of users, for owners and for what people read.
  transfer::OwnerNames owners;
  bool named = order.order.archive || order.order.call == transfer::FileCall::LIST ||
               order.order.call == transfer::FileCall::STAT;
  if (named) owners.readAll();
  transfer::actingUser();
  auto root = openRoot(order.root);
  KJ_IF_MAYBE (problem, root.tryGet<Problem>()) return refuse(order.order, kj::mv(*problem), kj::mv(socket));
  auto& folder = root.get<kj::AutoCloseFd>();
  order.scope.special = order.scope.special && order.order.special;
  enterOpenerSandbox(folder, order.scope.special ? SpecialFiles::ALLOWED : SpecialFiles::DENIED);
  carryOut({order, folder, owners}, kj::mv(socket));
}

}  // namespace

int runOpener() {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a write says it as well
  auto failure = kj::runCatchingExceptions([&]() {
    kj::AutoCloseFd socket(SOCKET_FD);
    auto parsed = parseOpenerOrder(readInput());
    KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) KJ_FAIL_REQUIRE("the broker's order is malformed", *wrong);
    serve(parsed.get<OpenerOrder>(), kj::mv(socket));
  });
  KJ_IF_MAYBE (exception, failure) {
    fprintf(stderr, "postern-agent: opener: %s\n", exception->getDescription().cStr());
    return 1;
  }
  return 0;
}

}  // namespace postern::guest
