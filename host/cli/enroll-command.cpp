#include <string.h>

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/issue-bundle.h"
#include "host/cli/libvirt-domain.h"

namespace postern::cli {

namespace {

using AddVmResponse = capnp::Response<host::schema::Control::AddVmResults>;

// Where the arguments leave it to libvirt, what libvirt says.
struct Registration {
  kj::String transport;
  kj::String uuid;
  BundleArguments bundle;
  kj::Maybe<kj::Own<LibvirtDomain>> domain;
};

Registration registrationOf(Invocation& run, const EnrollArguments& arguments) {
  auto copy = [](const kj::String& text) { return kj::str(text); };
  auto& bundle = arguments.bundle;
  Registration registration{kj::str(arguments.transport),
                            kj::str(arguments.uuid),
                            {bundle.file.map(copy), bundle.lifetime, bundle.guestTransport.map(copy), bundle.force},
                            nullptr};
  if (!arguments.libvirt) return registration;
  if (registration.transport.size() == 0) registration.transport = kj::str("libvirt:", arguments.vm);
  auto& domain =
      *registration.domain.emplace(kj::heap<LibvirtDomain>(run, registration.transport.slice(strlen("libvirt:"))));
  auto found = domain.inspect();
  if (registration.uuid.size() == 0) registration.uuid = kj::mv(found.uuid);
  if (registration.bundle.guestTransport == nullptr && found.guestTransport.size() > 0) {
    registration.bundle.guestTransport = kj::mv(found.guestTransport);
  }
  return registration;
}

AddVmResponse addVm(Invocation& run, const EnrollArguments& arguments, const Registration& registration) {
  auto request = run.control().control().addVmRequest();
  auto settings = request.initVm();
  settings.setName(arguments.vm);
  settings.setUuid(registration.uuid);
  settings.setTransport(registration.transport);
  settings.setQmp(arguments.qmp);
  auto grants = request.initGrants(static_cast<capnp::uint>(arguments.grants.size()));
  for (capnp::uint i = 0; i < grants.size(); ++i) grants.set(i, arguments.grants[i]);
  auto to = request.initTo(static_cast<capnp::uint>(arguments.to.size()));
  for (capnp::uint i = 0; i < to.size(); ++i) to.set(i, arguments.to[i]);
  auto response = run.await(request.send(), "posternd");
  run.check(response, arguments.vm);
  return response;
}

kj::String grantText(const AddVmResponse& added) {
  if (added.getGrantText().size() == 0) {
    return kj::str("policy            unchanged; --grant ping,info,power would have allowed these\n");
  }
  return kj::str("policy            written to ", shown(added.getGrantFile(), 300),
                 " (`postern vm remove` undoes it):\n", shownLines(added.getGrantText(), "  "));
}

// A domain that is prepared needs nothing pasted.
kj::String bundleText(const IssuedBundle& issued, const kj::Maybe<LibvirtDomain::Prepared>& prepared) {
  KJ_IF_MAYBE (done, prepared) return kj::str(factsOf(issued), toText(*done));
  return toText(issued);
}

// The VM is registered: say how to go on.
[[noreturn]] void failAfterAdding(kj::StringPtr vm, client::Failure failure, kj::StringPtr how) {
  failure.text = kj::str(failure.text, " (", vm, " is registered; ", how, "`postern vm remove ", vm, "` undoes it)");
  throw CommandFailure{kj::mv(failure)};
}

IssuedBundle issueFirstBundle(Invocation& run, kj::StringPtr vm, const Registration& registration,
                              kj::StringPtr guestPolicy, SecretFile& file) {
  try {
    return issueBundle(run, vm, "admin.enroll", registration.transport, guestPolicy, registration.bundle, file);
  } catch (CommandFailure& failed) {
    failAfterAdding(vm, kj::mv(failed.failure), kj::str("`postern vm rekey ", vm, "` makes its bundle, "));
  }
}

kj::Maybe<LibvirtDomain::Prepared> prepareDomain(kj::StringPtr vm, Registration& registration, kj::StringPtr bundle) {
  try {
    return registration.domain.map([&](kj::Own<LibvirtDomain>& domain) { return domain->prepare(bundle); });
  } catch (CommandFailure& failed) {
    failAfterAdding(vm, kj::mv(failed.failure), nullptr);
  }
}

}  // namespace

ExitStatus runEnroll(Invocation& run, const EnrollArguments& arguments) {
  auto registration = registrationOf(run, arguments);
  auto file = openBundleFile(run, arguments.vm, registration.transport, registration.bundle);
  auto added = addVm(run, arguments, registration);
  auto issued = issueFirstBundle(run, arguments.vm, registration, added.getGuestPolicy(), *file);
  auto prepared = prepareDomain(arguments.vm, registration, file->path());
  if (!run.options.json) {
    run.world.out(kj::str(arguments.vm, ": registered; it enrols when its agent starts with the bundle\n",
                          grantText(added), bundleText(issued, prepared)));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm);
  KJ_IF_MAYBE (done, prepared) writeFields(json, *done);
  json.field("grantFile", added.getGrantFile()).field("grantText", added.getGrantText());
  json.field("guestPolicy", added.getGuestPolicy());
  writeFields(json, issued);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runVmRekey(Invocation& run, const VmRekeyArguments& arguments) {
  auto request = run.control().control().showVmRequest();
  request.setName(arguments.vm);
  auto shownVm = run.await(request.send(), "posternd");
  run.check(shownVm, arguments.vm);
  auto transport = shownVm.getVm().getSettings().getTransport();
  auto file = openBundleFile(run, arguments.vm, transport, arguments.bundle);
  auto issued =
      issueBundle(run, arguments.vm, "admin.rekey", transport, shownVm.getGuestPolicy(), arguments.bundle, *file);
  if (!run.options.json) {
    auto policy =
        kj::StringPtr(shownVm.getGuestPolicy().size() > 0 ? "policy            the bundle has the VM's grants\n" : "");
    run.world.out(kj::str(arguments.vm, ": new keys; the old ones are good until the bundle has been used\n", policy,
                          toText(issued)));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm);
  json.field("guestPolicy", shownVm.getGuestPolicy());
  writeFields(json, issued);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
