#include "host/move/vm-export.h"

#include <doctest/doctest.h>
#include <string.h>

#include "host/move/carried-grants.h"
#include "protocol/locked.h"
#include "tests/support/test-random.h"

namespace postern::host {
namespace {

struct Lab {
  postern::test::TestRandom random{7};
  TransferKeyPair source = TransferKeyPair::generate(random);
  TransferKeyPair destination = TransferKeyPair::generate(random);

  VmExport vm() {
    VmExport vm;
    vm.uuid.bytes[3] = 9;
    vm.name = kj::str("web1");
    vm.number = 42;
    vm.tags.add(kj::str("front"));
    vm.blocked = true;
    vm.hostGrants = kj::str("host");
    vm.guestGrants = kj::str("guest");
    vm.state = newLocked(HostState());
    vm.state->vm = vm.uuid;
    HostPair pair;
    pair.identity = {vm.uuid, HostKeyPair::generate(random), GuestKeyPair::generate(random).publicKey(),
                     LinkSecret::generate(random)};
    pair.sessionCounter = 5;
    vm.state->current = kj::mv(pair);
    return vm;
  }
  kj::String seal(const VmExport& vm) {
    auto sealed = sealExport(vm, source, destination.publicKey(), random);
    return kj::mv(KJ_REQUIRE_NONNULL(sealed));
  }
};

bool opens(kj::StringPtr text, const TransferKeyPair& key) {
  return openExport(text, key).is<OpenedExport>();
}
ExportError errorOf(kj::StringPtr text, const TransferKeyPair& key) {
  auto opened = openExport(text, key);
  REQUIRE(opened.is<ExportError>());
  return opened.get<ExportError>();
}

}  // namespace

// T120
TEST_CASE("what was sealed comes out at the other host, with the key of the one that it comes from") {
  Lab lab;
  auto vm = lab.vm();
  auto text = lab.seal(vm);
  CHECK(text.size() < MAX_EXPORT_BYTES);
  auto opened = openExport(kj::str(" ", text, "\r\n"), lab.destination);
  REQUIRE(opened.is<OpenedExport>());
  auto& out = opened.get<OpenedExport>();
  CHECK((out.from == lab.source.publicKey()));
  CHECK((out.vm.uuid == vm.uuid));
  CHECK((out.vm.name == "web1"));
  CHECK(out.vm.number == 42);
  REQUIRE(out.vm.tags.size() == 1);
  CHECK((out.vm.tags[0] == "front"));
  CHECK(out.vm.blocked);
  CHECK((out.vm.hostGrants == "host"));
  CHECK((out.vm.guestGrants == "guest"));
  auto& pair = KJ_REQUIRE_NONNULL(out.vm.state->current);
  CHECK(pair.sessionCounter == 5);
  CHECK(pair.identity.linkSecret.bytes.equals(KJ_REQUIRE_NONNULL(vm.state->current).identity.linkSecret.bytes));
}

// T120
TEST_CASE("an export opens at no other host, nor where it comes from, and every changed byte is refused") {
  Lab lab;
  auto text = lab.seal(lab.vm());
  CHECK((errorOf(text, lab.source) == ExportError::FOR_ANOTHER_HOST));
  CHECK((errorOf(text, TransferKeyPair::generate(lab.random)) == ExportError::FOR_ANOTHER_HOST));
  for (size_t size = 0; size < text.size(); ++size) REQUIRE_FALSE(opens(kj::str(text.slice(0, size)), lab.destination));
  // With the checksum put right: it is the seal that refuses.
  constexpr kj::StringPtr PREFIX = "postern-export-1:"_kj;
  auto room = kj::heapArray<kj::byte>(MAX_EXPORT_BYTES);
  auto size = decodeLine(PREFIX, text, room).get<size_t>();
  for (size_t at = 0; at < size; ++at) {
    room[at] ^= 1;
    auto changed = kj::str(encodeLine(PREFIX, room.slice(0, size)).get());
    REQUIRE((errorOf(changed, lab.destination) == (at < 32 ? ExportError::FOR_ANOTHER_HOST : ExportError::ALTERED)));
    room[at] ^= 1;
  }
  CHECK((errorOf(kj::str(encodeLine(PREFIX, room.slice(0, 31)).get()), lab.destination) == ExportError::DAMAGED));
  CHECK(opens(text, lab.destination));
}

// T120
TEST_CASE("an export that authenticates and makes no sense is refused") {
  Lab lab;
  auto refusedWith = [&](auto change) {
    auto vm = lab.vm();
    change(vm);
    return errorOf(lab.seal(vm), lab.destination) == ExportError::ALTERED;
  };
  CHECK(refusedWith([](VmExport& vm) { vm.number = 0; }));
  CHECK(refusedWith([](VmExport& vm) { vm.number = ~uint64_t(0); }));
  CHECK(refusedWith([](VmExport& vm) { vm.state->current = nullptr; }));
  CHECK(refusedWith([](VmExport& vm) { vm.state->vm.bytes[0] ^= 1; }));
  CHECK(refusedWith([](VmExport& vm) {
    for (int i = 0; i < 33; ++i) vm.tags.add(kj::str("t"));
  }));
  CHECK(refusedWith([](VmExport& vm) { vm.guestGrants = kj::heapString(4096); }));
}

TEST_CASE("a host's key is a line that is whole or none, and no low-order point is sealed to") {
  Lab lab;
  auto text = toText(lab.source.publicKey());
  CHECK((KJ_REQUIRE_NONNULL(parseTransferKey(text)) == lab.source.publicKey()));
  for (size_t at = 0; at < text.size(); ++at) {
    auto wrong = kj::str(text);
    wrong[at] = wrong[at] == 'A' ? 'B' : 'A';
    CHECK(parseTransferKey(wrong) == nullptr);
  }
  CHECK(sealExport(lab.vm(), lab.source, TransferPublicKey(), lab.random) == nullptr);
}

// T123
TEST_CASE("grants that came along are rules about that VM for callers of the host, or are not taken") {
  auto rules = [](kj::StringPtr rest) { return kj::str("policy = 1\n", rest); };
  auto allow = [&](kj::StringPtr from, kj::StringPtr to, kj::StringPtr more = "") {
    return rules(kj::str("[[allow]]\nid = \"g\"\nfrom = ", from, "\nto = ", to, "\ncall = \"ping\"\n", more));
  };
  CHECK(areGrantsOf("web1", allow("\"user:alice\"", "\"web1\"")));
  CHECK(areGrantsOf("web1", allow("[\"host\", \"group:ops\"]", "\"web1\"")));
  for (auto to : {"\"web2\""_kj, "\"any\""_kj, "\"tag:front\""_kj, "[\"web1\", \"web2\"]"_kj}) {
    CHECK_FALSE(areGrantsOf("web1", allow("\"user:alice\"", to)));
  }
  CHECK_FALSE(
      areGrantsOf("web1", rules("[[allow]]\nid = \"g\"\nfrom = \"user:a\"\nto = \"host\"\ncall = \"admin.*\"\n")));
  CHECK_FALSE(
      areGrantsOf("web1", rules("[[allow]]\nid = \"g\"\nfrom = \"web2\"\nto = \"web1\"\ncall = \"service.x\"\n")));
  CHECK_FALSE(areGrantsOf("web1", rules("[[deny]]\nid = \"g\"\nfrom = \"any\"\nto = \"any\"\ncall = \"service.*\"\n")));
  CHECK_FALSE(areGrantsOf("web1", rules("vm-to-vm = \"enabled\"\n")));
  CHECK_FALSE(areGrantsOf("web1", rules("[port.web2]\nblocked = true\n")));
  CHECK_FALSE(areGrantsOf("web1", "no TOML"));
}

}  // namespace postern::host
