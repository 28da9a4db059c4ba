#include <capnp/message.h>
#include <capnp/serialize.h>

#include "host/move/vm-export.capnp.h"
#include "host/registry/registry.h"
#include "protocol/checked-line.h"
#include "protocol/identity.h"
#include "protocol/locked.h"
#include "tests/fuzz/sealed-export.h"
#include "tests/fuzz/seed.h"
#include "tests/support/test-random.h"

namespace postern::fuzz {

namespace {

using Fields = host::schema::VmExport::Builder;
enum Kind : uint8_t { LINE, CARRIED, PAYLOAD };

VmId uuid() {
  VmId vm;
  vm.bytes.fill(9);
  return vm;
}

template <typename Change>
kj::Array<kj::byte> stateAfter(Change&& change) {
  test::TestRandom random(7);
  auto state = newLocked(HostState());
  state->vm = uuid();
  HostPair pair;
  pair.identity = {uuid(), HostKeyPair::generate(random), GuestKeyPair::generate(random).publicKey(),
                   LinkSecret::generate(random)};
  pair.sessionCounter = 5;
  state->current = kj::mv(pair);
  change(*state);
  return encodeState(*state);
}

template <typename Change>
kj::Array<kj::byte> payloadAfter(Change&& change) {
  capnp::MallocMessageBuilder message;
  auto fields = message.initRoot<host::schema::VmExport>();
  auto vm = uuid();
  fields.setFormat(1);
  fields.setUuid(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  fields.setName("web1");
  fields.setNumber(42);
  fields.initTags(1).set(0, "front");
  fields.setState(stateAfter([](HostState&) {}));
  fields.setHostGrants("policy = 1\n");
  fields.setGuestGrants("policy = 1\n");
  change(fields);
  return kj::heapArray<kj::byte>(capnp::messageToFlatArray(message).asBytes());
}

void writePayloads(SeedFolder& folder) {
  auto changed = [&](kj::StringPtr name, auto change) { folder.write(name, Seed(PAYLOAD).add(payloadAfter(change))); };
  changed("whole", [](Fields) {});
  changed("bare", [](Fields fields) {
    fields.disownTags();
    fields.disownHostGrants();
    fields.disownGuestGrants();
  });
  changed("newer-format", [](Fields fields) { fields.setFormat(2); });
  changed("number-zero", [](Fields fields) { fields.setNumber(0); });
  changed("number-over-the-bound", [](Fields fields) { fields.setNumber(host::MAX_MOVE_NUMBER + 1); });
  changed("short-uuid", [](Fields fields) { fields.initUuid(15); });
  changed("tags-over-the-bound", [](Fields fields) { fields.initTags(host::MAX_VM_TAGS + 1); });
  changed("state-without-pair",
          [](Fields fields) { fields.setState(stateAfter([](HostState& state) { state.current = nullptr; })); });
  changed("state-of-another-vm",
          [](Fields fields) { fields.setState(stateAfter([](HostState& state) { state.vm.bytes[0] ^= 1; })); });
}

}  // namespace

void writeExportSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "export");
  writePayloads(folder);
  auto payload = payloadAfter([](Fields) {});
  folder.write("odd-length", Seed(PAYLOAD).add(payload).u8(0));

  auto carried = sealedExport(payload);
  folder.write("carried", Seed(CARRIED).add(carried));
  folder.write("key-alone", Seed(CARRIED).add(carried.slice(0, 32)));
  auto line = encodeLine(EXPORT_PREFIX, carried);
  folder.write("line", Seed(LINE).add(line.get().asBytes()));
  folder.write("line-in-white-space", Seed(LINE).add(kj::str(" ", line.get(), "\r\n").asBytes()));
  folder.write("line-cut", Seed(LINE).add(line.get().slice(0, 200).asBytes()));
  folder.write("other-prefix", Seed(LINE).add("postern-export-2:AAAA"_kj.asBytes()));
  carried[carried.size() - 1] ^= 1;
  folder.write("altered", Seed(CARRIED).add(carried));
  carried[0] ^= 1;
  folder.write("for-another-host", Seed(CARRIED).add(carried));
}

}  // namespace postern::fuzz
