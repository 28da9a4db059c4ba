#include "host/daemon/moves.h"

#include <kj/debug.h>
#include <kj/time.h>

#include "host/move/carried-grants.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;

Moves::NotDone invalid(kj::String text) {
  return {Kind::INVALID, kj::mv(text)};
}
Moves::NotDone failed(FileError error) {
  return {Kind::FAILED, kj::mv(error.text)};
}

uint64_t nowMilliseconds() {
  auto since = kj::systemPreciseCalendarClock().now() - kj::UNIX_EPOCH;
  return since < 0 * kj::SECONDS ? 0 : uint64_t(since / kj::MILLISECONDS);
}

kj::String boundedFile(kj::StringPtr path, size_t maxBytes) {
  auto read = readFile(path, maxBytes);
  return read.is<kj::String>() ? kj::mv(read.get<kj::String>()) : kj::String();
}

}  // namespace

Moves::Outcome<kj::String> Moves::hostKey() {
  auto own = loadTransferKey(keyFile, random);
  KJ_IF_MAYBE (error, own.tryGet<FileError>()) return failed(kj::mv(*error));
  return toText(own.get<TransferKeyPair>().publicKey());
}

// Departure --------------------------------------------------------------------------------------------------------

kj::Maybe<Moves::NotDone> Moves::whyNotDepart(const VmRecord& record, kj::StringPtr untrustedTo) {
  if (record.isMoved()) {
    return invalid(kj::str("it is moved already, to ", record.movedTo,
                           "; `postern vm export --cancel` takes it back if that host has not imported it"));
  }
  KJ_IF_MAYBE (to, parseTransferKey(untrustedTo)) {
    auto own = loadTransferKey(keyFile, random);
    KJ_IF_MAYBE (error, own.tryGet<FileError>()) return failed(kj::mv(*error));
    if (own.get<TransferKeyPair>().publicKey() == *to) {
      return invalid(kj::str("--to is this host's own key; `postern vm host-key` on the other host shows that one's"));
    }
    return nullptr;
  }
  return invalid(
      kj::str("'", printable(untrustedTo, 100), "' is not the key of a host; `postern vm host-key` there shows it"));
}

kj::String Moves::grantsToCarry(kj::StringPtr vm) const {
  auto grants = boundedFile(policy.grantFile(vm), MAX_EXPORTED_GRANTS_BYTES);
  return areGrantsOf(vm, grants) ? kj::mv(grants) : kj::String();
}

// T121
Moves::Outcome<kj::String> Moves::depart(const VmRecord& record, kj::StringPtr to) {
  auto own = loadTransferKey(keyFile, random);
  KJ_IF_MAYBE (error, own.tryGet<FileError>()) return failed(kj::mv(*error));
  auto state = registry.readState(record.name);
  KJ_IF_MAYBE (error, state.tryGet<FileError>()) return failed(kj::mv(*error));
  VmExport vm;
  vm.state = kj::mv(state.get<kj::Own<HostState>>());
  if (vm.state->current == nullptr) {
    return invalid(kj::str("it is not enrolled, so there is nothing to move; remove it, and enrol it there"));
  }
  vm.state->offer = nullptr;  // a bundle that is out is void
  vm.uuid = record.uuid;
  vm.name = kj::str(record.name);
  vm.number = kj::max(registry.lastMove(record.uuid) + 1, nowMilliseconds());
  for (auto& tag : record.tags) vm.tags.add(kj::str(tag));
  vm.blocked = record.blocked;
  vm.hostGrants = grantsToCarry(record.name);
  if (vm.hostGrants.size() > 0) {
    vm.guestGrants = boundedFile(policy.guestHalfFile(record.name), MAX_BUNDLE_GRANTS_BYTES);
  }
  auto key = KJ_ASSERT_NONNULL(parseTransferKey(to));
  auto sealed = sealExport(vm, own.get<TransferKeyPair>(), key, random);
  KJ_IF_MAYBE (text, sealed) {
    KJ_IF_MAYBE (error, replaceFile(registry.exportFile(record.name), *text, 0600)) return failed(kj::mv(*error));
    auto moved = record.clone();
    moved.lastMove = vm.number;
    moved.movedTo = toText(key);
    KJ_IF_MAYBE (error, registry.put(kj::mv(moved))) return failed(kj::mv(*error));
    return kj::mv(*text);
  }
  return invalid(kj::str("no secret can be shared with the key of --to; it is nobody's"));
}

Moves::Outcome<kj::String> Moves::departedBefore(const VmRecord& record, kj::StringPtr to) {
  auto key = parseTransferKey(to);
  KJ_IF_MAYBE (k, key) {
    if (record.isMoved() && toText(*k) == record.movedTo) {
      auto sealed = readFile(registry.exportFile(record.name), MAX_EXPORT_BYTES);
      KJ_IF_MAYBE (error, sealed.tryGet<FileError>()) return failed(kj::mv(*error));
      return kj::mv(sealed.get<kj::String>());
    }
  }
  auto problem = whyNotDepart(record, to);
  return kj::mv(KJ_ASSERT_NONNULL(problem));
}

kj::Maybe<Moves::NotDone> Moves::cancel(const VmRecord& record) {
  if (!record.isMoved()) return invalid(kj::str("it is here; there is no export to cancel"));
  auto back = record.clone();
  back.movedTo = kj::String();
  KJ_IF_MAYBE (error, registry.put(kj::mv(back))) return failed(kj::mv(*error));
  // It would be refused by nobody who has not seen a later one; here it is of no use any more.
  KJ_IF_MAYBE (error, removeFile(registry.exportFile(record.name))) return failed(kj::mv(*error));
  return nullptr;
}

// Arrival ----------------------------------------------------------------------------------------------------------

Moves::Outcome<OpenedExport> Moves::open(const Arrival& arrival) {
  auto own = loadTransferKey(keyFile, random);
  KJ_IF_MAYBE (error, own.tryGet<FileError>()) return failed(kj::mv(*error));
  auto opened = openExport(arrival.untrustedExport, own.get<TransferKeyPair>());
  KJ_IF_MAYBE (error, opened.tryGet<ExportError>()) return invalid(kj::str("what was given ", describe(*error)));
  auto& found = opened.get<OpenedExport>();
  if (arrival.name.size() > 0 && found.vm.name != arrival.name) {
    return invalid(
        kj::str("the export is of ", printable(found.vm.name, 64), ", not of ", printable(arrival.name, 64)));
  }
  auto from = toText(found.from);
  if (arrival.from.size() > 0 && from != arrival.from) {
    return invalid(kj::str("the export comes from ", from, ", which is not the host of --from"));
  }
  return kj::mv(found);
}

Moves::Outcome<VmRecord> Moves::recordOf(const VmExport& vm, kj::StringPtr transport) const {
  VmRecord record;
  KJ_IF_MAYBE (known, registry.find(vm.name)) {
    if (!(known->uuid == vm.uuid)) return invalid(kj::str("there is another VM ", vm.name, " here; remove that first"));
    if (!known->isMoved()) return invalid(kj::str(vm.name, " is here already; nothing was changed"));
    record = known->clone();
  } else {
    record.name = kj::str(vm.name);
    record.uuid = vm.uuid;
    if (transport.size() == 0) return invalid(kj::str("name where it connects on this host, by --transport"));
  }
  // T121
  if (vm.number <= registry.lastMove(vm.uuid)) {
    return invalid(kj::str("this export of ", printable(vm.name, 64),
                           ", or a later one, was imported here before, and an export is good once; run `postern vm "
                           "export` there again if the VM is there"));
  }
  if (transport.size() > 0) record.transport = kj::str(transport);
  record.tags.clear();
  for (auto& tag : vm.tags) record.tags.add(kj::str(tag));
  record.blocked = record.blocked || vm.blocked;
  record.lastMove = vm.number;
  record.movedTo = kj::String();
  KJ_IF_MAYBE (problem, findProblem(record)) return invalid(kj::mv(*problem));
  return kj::mv(record);
}

Moves::Outcome<kj::String> Moves::putGrants(const VmExport& vm, bool wanted, bool isNew) {
  // What an earlier VM of this name was granted, and kept after a crash, is not for this one.
  kj::Vector<kj::String> problems;
  if (isNew) (void)policy.removeGrants(vm.name, problems);
  if (!wanted || vm.hostGrants.size() == 0) return kj::String();
  if (!areGrantsOf(vm.name, vm.hostGrants)) {
    return invalid(kj::str("its grants are about more than this VM; import it without --grants"));
  }
  KJ_IF_MAYBE (unwritten, policy.putGrants(vm.name, vm.hostGrants, vm.guestGrants)) {
    bool full = unwritten->why == PolicyStore::NotPut::Why::DISK;
    return NotDone{full ? Kind::FAILED : Kind::INVALID, kj::mv(unwritten->lines[0])};
  }
  return kj::str(vm.hostGrants);
}

Moves::Outcome<kj::String> Moves::arrive(OpenedExport opened, const Arrival& arrival) {
  auto& vm = opened.vm;
  auto made = recordOf(vm, arrival.transport);
  KJ_IF_MAYBE (problem, made.tryGet<NotDone>()) return kj::mv(*problem);
  bool isNew = registry.find(vm.name) == nullptr;
  auto granted = putGrants(vm, arrival.takesGrants, isNew);
  if (granted.is<NotDone>()) return kj::mv(granted.get<NotDone>());
  // T122
  KJ_ASSERT_NONNULL(vm.state->current).inherited = true;
  KJ_IF_MAYBE (error, registry.adopt(kj::mv(made.get<VmRecord>()), *vm.state)) {
    kj::Vector<kj::String> problems;
    if (isNew) (void)policy.removeGrants(vm.name, problems);
    return failed(kj::mv(*error));
  }
  return kj::mv(granted.get<kj::String>());
}

}  // namespace postern::host
