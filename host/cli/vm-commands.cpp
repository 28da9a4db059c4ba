// postern vm list, show, set, remove.

#include <algorithm>
#include <utility>

#include "host/audit/audit-line.h"
#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/vm-state.h"

namespace postern::cli {

namespace {

using Vm = host::schema::Vm;

Table::Cell cell(kj::String text, Tint tint = Tint::NONE) {
  return {kj::mv(text), tint};
}

kj::StringPtr enrolmentOf(Vm::Reader vm) {
  if (vm.getMovedTo().size() > 0) return "moved away"_kj;
  if (vm.getQuarantined()) return "quarantined"_kj;
  if (vm.getOfferPending()) return vm.getEnrolled() ? "new bundle out"_kj : "bundle out"_kj;
  if (vm.getInheritedKeys()) return "keys of another host"_kj;
  return vm.getEnrolled() ? "enrolled"_kj : "no"_kj;
}

kj::String listed(capnp::List<capnp::Text>::Reader texts) {
  auto all = KJ_MAP(text, texts) {
    return shown(text, 64);
  };
  return kj::strArray(all, ",");
}

kj::String tableOf(kj::ArrayPtr<const Vm::Reader> vms, Colours colours) {
  Table table({"VM", "ENROLMENT", "LINK", "STATE", "TRANSPORT", "TAGS"});
  for (auto& vm : vms) {
    auto settings = vm.getSettings();
    auto colour = vm.getStatus().getColour();
    table.add(kj::arr(cell(shown(settings.getName(), 64)), cell(kj::str(enrolmentOf(vm))),
                      cell(kj::str(vm.getConnected() ? "up" : "down")), cell(shown(colour, 16), tintOf(colour)),
                      cell(shown(settings.getTransport(), 120)), cell(listed(settings.getTags()))));
  }
  return table.format(colours);
}

// Each is looked at once: what a message's reader may look at in all is bounded.
kj::Vector<Vm::Reader> byName(capnp::List<Vm>::Reader list) {
  kj::Vector<std::pair<kj::StringPtr, Vm::Reader>> named(list.size());
  for (auto vm : list) named.add(vm.getSettings().getName(), vm);
  std::sort(named.begin(), named.end(), [](auto& a, auto& b) { return a.first < b.first; });
  kj::Vector<Vm::Reader> sorted(named.size());
  for (auto& one : named) sorted.add(one.second);
  return sorted;
}

void writeVm(JsonWriter& json, Vm::Reader vm) {
  auto settings = vm.getSettings();
  json.beginObject().field("vm", settings.getName()).field("uuid", settings.getUuid());
  json.field("transport", settings.getTransport()).field("qmp", settings.getQmp()).key("tags").beginArray();
  for (auto tag : settings.getTags()) json.value(tag);
  json.endArray().field("enrolled", vm.getEnrolled()).field("offerPending", vm.getOfferPending());
  json.field("quarantined", vm.getQuarantined()).field("hostFingerprint", vm.getHostFingerprint());
  json.field("guestFingerprint", vm.getGuestFingerprint()).field("sessionPid", vm.getSessionPid());
  json.field("inheritedKeys", vm.getInheritedKeys()).field("movedTo", vm.getMovedTo());
  json.field("movedMilliseconds", vm.getMovedMilliseconds());
  json.field("connected", vm.getConnected()).field("peer", vm.getPeer()).field("sessions", vm.getSessions());
  json.key("status").beginObject();
  writeFields(json, stateOf(vm.getStatus()));
  json.endObject().endObject();
}

kj::String movedText(Vm::Reader vm) {
  auto at = kj::UNIX_EPOCH + int64_t(vm.getMovedMilliseconds()) * kj::MILLISECONDS;
  return kj::str(shown(vm.getMovedTo(), 100), ", at ", host::formatTime(at));
}

kj::String textOf(Vm::Reader vm) {
  auto settings = vm.getSettings();
  auto or_ = [](kj::StringPtr text, kj::StringPtr otherwise) {
    return text.size() == 0 ? kj::str(otherwise) : shown(text);
  };
  auto line = [](kj::StringPtr name, kj::String value) { return kj::str("  ", name, value, '\n'); };
  auto peer = vm.getPeer().size() == 0 ? kj::str() : kj::str(" (", shown(vm.getPeer(), 80), ")");
  return kj::str(lineOf(stateOf(vm.getStatus())), '\n', line("uuid               ", or_(settings.getUuid(), "-")),
                 line("transport          ", or_(settings.getTransport(), "-")),
                 line("qmp                ", or_(settings.getQmp(), "none")),
                 line("tags               ", or_(listed(settings.getTags()), "none")),
                 line("enrolment          ", kj::str(enrolmentOf(vm))),
                 line("host fingerprint   ", or_(vm.getHostFingerprint(), "-")),
                 line("guest fingerprint  ", or_(vm.getGuestFingerprint(), "-")),
                 vm.getMovedTo().size() == 0 ? kj::String() : line("moved to           ", movedText(vm)),
                 line("session process    ", vm.getSessionPid() == 0 ? kj::str("none") : kj::str(vm.getSessionPid())),
                 line("link               ", kj::str(vm.getConnected() ? "up" : "down", peer)),
                 line("sessions made      ", kj::str(vm.getSessions())));
}

// A result that is nothing but done.
ExitStatus done(Invocation& run, kj::StringPtr vm, kj::StringPtr what) {
  if (run.options.json) {
    JsonWriter json;
    json.beginObject().field("ok", true).field("vm", vm).endObject();
    run.world.out(kj::str(json.finish(), '\n'));
  } else {
    run.world.out(kj::str(vm, ": ", what, '\n'));
  }
  return ExitStatus::DONE;
}

}  // namespace

ExitStatus runVmList(Invocation& run) {
  auto response = run.await(run.control().control().listVmsRequest().send(), "posternd");
  auto vms = byName(response.getVms());
  if (!run.options.json) {
    run.world.out(vms.empty() ? kj::str("no VMs; `postern enroll VM --transport ENDPOINT` adds one\n")
                              : tableOf(vms, run.colours()));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).key("vms").beginArray();
  for (auto& vm : vms) writeVm(json, vm);
  json.endArray().endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runVmShow(Invocation& run, const VmShowArguments& arguments) {
  auto request = run.control().control().showVmRequest();
  request.setName(arguments.vm);
  auto response = run.await(request.send(), "posternd");
  run.check(response, arguments.vm);
  if (!run.options.json) {
    run.world.out(textOf(response.getVm()));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).key("vm");
  writeVm(json, response.getVm());
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runVmSet(Invocation& run, const VmSetArguments& arguments) {
  auto request = run.control().control().setVmRequest();
  auto settings = request.initVm();
  settings.setName(arguments.vm);
  settings.setTransport(arguments.transport);
  settings.setQmp(arguments.qmp);
  auto tags = settings.initTags(static_cast<capnp::uint>(arguments.tags.size()));
  for (capnp::uint i = 0; i < tags.size(); ++i) tags.set(i, arguments.tags[i]);
  run.check(run.await(request.send(), "posternd"), arguments.vm);
  return done(run, arguments.vm, "changed");
}

ExitStatus runVmRemove(Invocation& run, const VmRemoveArguments& arguments) {
  auto request = run.control().control().removeVmRequest();
  request.setName(arguments.vm);
  auto response = run.await(request.send(), "posternd");
  run.check(response, arguments.vm);
  if (!run.options.json) {
    auto grants = response.getRemovedGrants();
    run.world.out(kj::str(arguments.vm, ": removed; its keys are gone\n"));
    if (grants.size() > 0) run.world.out(kj::str("policy that went with it:\n", shownLines(grants, "  ")));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm);
  json.field("removedGrants", response.getRemovedGrants()).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
