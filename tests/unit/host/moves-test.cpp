#include "host/daemon/moves.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "protocol/locked.h"
#include "tests/support/temporary-folder.h"
#include "tests/support/test-random.h"

namespace postern::host {
namespace {

using postern::test::TemporaryFolder;

kj::Own<Registry> openRegistry(kj::StringPtr folder) {
  auto opened = Registry::open(folder);
  return kj::mv(opened.get<Registry::Loaded>().registry);
}

// A host without its processes.
struct Host {
  explicit Host(uint64_t seed) : random(seed) {}
  TemporaryFolder folder;
  kj::String vmFolder = folder.path("vms"), policyFolder = folder.path("policy.d"),
             grantsFolder = folder.path("grants.d"), keyFile = folder.path("key");
  postern::test::TestRandom random;
  kj::Own<Registry> registry = openRegistry(vmFolder);
  PolicyStore policy{policyFolder, grantsFolder};
  Moves moves{*registry, policy, keyFile, random};

  kj::String key() {
    auto key = moves.hostKey();
    return kj::mv(key.get<kj::String>());
  }
  const VmRecord& record() { return KJ_REQUIRE_NONNULL(registry->find("web1")); }
  void enrol() {
    VmRecord record;
    record.name = kj::str("web1");
    record.uuid.bytes[0] = 1;
    record.transport = kj::str("unix:/tmp/web1.sock");
    auto state = newLocked(HostState());
    state->vm = record.uuid;
    HostPair pair;
    pair.identity = {record.uuid, HostKeyPair::generate(random), GuestKeyPair::generate(random).publicKey(),
                     LinkSecret::generate(random)};
    state->current = kj::mv(pair);
    REQUIRE(registry->adopt(kj::mv(record), *state) == nullptr);
  }
  kj::String depart(kj::StringPtr to) {
    auto sealed = moves.depart(record(), to);
    REQUIRE(sealed.is<kj::String>());
    return kj::mv(sealed.get<kj::String>());
  }
  // Null: done.
  kj::Maybe<kj::String> arrive(kj::StringPtr sealed) {
    Moves::Arrival arrival{sealed, "web1", "", "unix:/tmp/web1.sock", false};
    auto opened = moves.open(arrival);
    KJ_IF_MAYBE (problem, opened.tryGet<Moves::NotDone>()) return kj::mv(problem->text);
    auto arrived = moves.arrive(kj::mv(opened.get<OpenedExport>()), arrival);
    KJ_IF_MAYBE (problem, arrived.tryGet<Moves::NotDone>()) return kj::mv(problem->text);
    return nullptr;
  }
  // As the next posternd finds it.
  kj::Own<Registry> again() { return openRegistry(vmFolder); }
};

}  // namespace

// T121
TEST_CASE("a VM is moved on the disk before its export is out, and the export can be had again") {
  Host here(1), there(2);
  here.enrol();
  auto sealed = here.depart(there.key());
  auto again = here.again();
  CHECK((KJ_REQUIRE_NONNULL(again->find("web1")).movedTo == there.key()));
  auto before = here.moves.departedBefore(here.record(), there.key());
  REQUIRE(before.is<kj::String>());
  CHECK((before.get<kj::String>() == sealed));
  CHECK(here.moves.departedBefore(here.record(), Host(3).key()).is<Moves::NotDone>());
  CHECK(here.moves.whyNotDepart(here.record(), there.key()) != nullptr);
}

// T121
TEST_CASE("an export is good once: not while its VM is there, nor after it was removed or has gone on") {
  Host here(1), there(2);
  here.enrol();
  auto sealed = here.depart(there.key());
  CHECK(there.arrive(sealed) == nullptr);
  CHECK(there.arrive(sealed) != nullptr);
  (void)there.depart(here.key());
  CHECK(there.arrive(sealed) != nullptr);
  CHECK(there.moves.cancel(there.record()) == nullptr);
  REQUIRE(there.registry->remove("web1") == nullptr);
  CHECK(there.arrive(sealed) != nullptr);
  CHECK(there.again()->lastMove(here.record().uuid) > here.record().lastMove);
  CHECK(here.moves.cancel(here.record()) == nullptr);
  usleep(2000);  // moves are numbered by the millisecond
  CHECK(there.arrive(here.depart(there.key())) == nullptr);
}

// T121, T122
TEST_CASE("a VM that arrives has its keys on the disk, marked as those of another host") {
  Host here(1), there(2);
  here.enrol();
  CHECK(there.arrive(here.depart(there.key())) == nullptr);
  auto read = there.registry->readState("web1");
  REQUIRE(read.is<kj::Own<HostState>>());
  CHECK(KJ_REQUIRE_NONNULL(read.get<kj::Own<HostState>>()->current).inherited);
  auto again = there.again();
  CHECK_FALSE(KJ_REQUIRE_NONNULL(again->find("web1")).isMoved());
}

}  // namespace postern::host
