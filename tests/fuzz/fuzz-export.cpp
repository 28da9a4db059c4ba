// openExport() over any line, one that another host has sealed around any payload included: what it takes was sealed
// with the key that it names, and is within the bounds of a VM's record.
//
// input = kind | the bytes
// kind: 0 the line, 1 what the line carries, behind the right prefix and checksum, 2 the payload, sealed

#include "host/move/vm-export.h"
#include "host/registry/registry.h"
#include "protocol/checked-line.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/sealed-export.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

void judge(const host::OpenedExport& opened) {
  auto& vm = opened.vm;
  expect(opened.from == MovingHosts::get().source.publicKey(), "an export names the key that it was sealed with");
  expect(vm.number > 0 && vm.number <= host::MAX_MOVE_NUMBER, "a move's number is in bounds");
  expect(vm.name.size() < host::MAX_EXPORT_BYTES, "a name is of bounded length");
  expect(vm.tags.size() <= host::MAX_VM_TAGS, "a VM has as many tags as may be");
  for (auto& tag : vm.tags) expect(tag.size() < host::MAX_EXPORT_BYTES, "a tag is of bounded length");
  expect(vm.hostGrants.size() <= host::MAX_EXPORTED_GRANTS_BYTES, "the host's grants are of bounded length");
  expect(vm.guestGrants.size() <= MAX_BUNDLE_GRANTS_BYTES, "the guest's grants are of bounded length");
  auto& state = *vm.state;
  expect(state.vm == vm.uuid, "the state is of the VM that it comes with");
  expect(state.current != nullptr && state.offer == nullptr, "a state has a pair, and no offer");
  expect(decodeHostState(encodeState(state)).is<kj::Own<HostState>>(), "a state can be stored and read");
}

void run(kj::ArrayPtr<const char> line) {
  auto opened = host::openExport(line, MovingHosts::get().destination);
  KJ_SWITCH_ONEOF(opened) {
    KJ_CASE_ONEOF(vm, host::OpenedExport) {
      judge(vm);
    }
    KJ_CASE_ONEOF(error, host::ExportError) {
      expect(host::describe(error).size() > 0, "every error has a text");
    }
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace postern::fuzz;
  NoFailedAssertions noFailedAssertions;
  Input input(data, size);
  auto kind = input.u8() % 3;
  auto bytes = copyOf(input.takeAll());
  if (kind == 2) bytes = sealedExport(bytes);
  if (kind == 0) {
    run(bytes.asChars());
  } else {
    run(postern::encodeLine(EXPORT_PREFIX, bytes).get());
  }
  return 0;
}
