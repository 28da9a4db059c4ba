#include "guest-agent/identity/machine.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary-folder.h"

using namespace postern;
using namespace postern::guest;

namespace {

struct MachineRoot {
  test::TemporaryFolder folder;
  Paths paths{folder.path("root")};

  MachineRoot& uuid(const char* text) { return write(paths.productUuid, text); }
  MachineRoot& machineId(const char* text) { return write(paths.machineId, text); }
  Machine read() { return Machine::read(paths); }

 private:
  MachineRoot& write(kj::StringPtr path, const char* text) {
    std::filesystem::create_directories(std::filesystem::path(path.cStr()).parent_path());
    std::ofstream(path.cStr()) << text;
    return *this;
  }
};

constexpr const char* UUID_A = "11111111-2222-3333-4444-555555555555\n";
constexpr const char* UUID_B = "11111111-2222-3333-4444-555555555556\n";
constexpr const char* ID_A = "0123456789abcdef0123456789abcdef\n";
constexpr const char* ID_B = "fedcba9876543210fedcba9876543210\n";

}  // namespace

TEST_CASE("a machine is known by its product UUID, whatever its disk says") {
  auto made = MachineRoot().uuid(UUID_A).machineId(ID_A).read();
  CHECK(made.basis() == Machine::Basis::PRODUCT_UUID);
  CHECK(MachineRoot().uuid(UUID_A).machineId(ID_B).read().made(made.hash()));
  CHECK(!MachineRoot().uuid(UUID_B).machineId(ID_A).read().made(made.hash()));
  // A copy that hides its UUID does not pass by the machine-id it carries along.
  CHECK(!MachineRoot().machineId(ID_A).read().made(made.hash()));
}

TEST_CASE("without a UUID the machine-id counts, also once the UUID can be read") {
  auto made = MachineRoot().machineId(ID_A).read();
  CHECK(made.basis() == Machine::Basis::MACHINE_ID);
  CHECK(MachineRoot().uuid(UUID_A).machineId(ID_A).read().made(made.hash()));
  CHECK(!MachineRoot().uuid(UUID_A).machineId(ID_B).read().made(made.hash()));
}

TEST_CASE("a UUID that is nobody's, or no UUID, is none") {
  for (auto* text : {"00000000-0000-0000-0000-000000000000\n", "ffffffff-ffff-ffff-ffff-ffffffffffff\n", "",
                     "Not Settable\n", "11111111-2222-3333-4444-55555555555\n"}) {
    CHECK(MachineRoot().uuid(text).machineId(ID_A).read().basis() == Machine::Basis::MACHINE_ID);
  }
  CHECK(MachineRoot().uuid("").machineId("uninitialized\n").read().basis() == Machine::Basis::NONE);
}

TEST_CASE("a machine that is known by nothing takes only what was made on such a one") {
  auto unknown = MachineRoot().read();
  CHECK(unknown.basis() == Machine::Basis::NONE);
  CHECK(unknown.made(MachineRoot().read().hash()));
  CHECK(!unknown.made(MachineRoot().uuid(UUID_A).read().hash()));
  CHECK(!MachineRoot().uuid(UUID_A).read().made(unknown.hash()));
}
