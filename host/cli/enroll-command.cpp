#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/issue-bundle.h"

namespace postern::cli {

namespace {

using AddVmResponse = capnp::Response<host::schema::Control::AddVmResults>;

AddVmResponse addVm(Invocation& run, const EnrollArguments& arguments) {
  auto request = run.control().control().addVmRequest();
  auto settings = request.initVm();
  settings.setName(arguments.vm);
  settings.setUuid(arguments.uuid);
  settings.setTransport(arguments.transport);
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

// The VM is registered and has no bundle: say how to go on.
[[noreturn]] void failAfterAdding(kj::StringPtr vm, client::Failure failure) {
  failure.text = kj::str(failure.text, " (", vm, " is registered; `postern vm rekey ", vm,
                         "` makes its bundle, `postern vm remove ", vm, "` undoes it)");
  throw CommandFailure{kj::mv(failure)};
}

}  // namespace

ExitStatus runEnroll(Invocation& run, const EnrollArguments& arguments) {
  auto file = openBundleFile(run, arguments.vm, arguments.bundle);
  auto added = addVm(run, arguments);
  kj::Maybe<IssuedBundle> done;
  try {
    done = issueBundle(run, arguments.vm, "admin.enroll", arguments.transport, added.getGuestPolicy(), arguments.bundle,
                       *file);
  } catch (CommandFailure& failed) {
    failAfterAdding(arguments.vm, kj::mv(failed.failure));
  }
  auto& issued = KJ_ASSERT_NONNULL(done);
  if (!run.options.json) {
    run.world.out(kj::str(arguments.vm, ": registered; it enrols when its agent starts with the bundle\n",
                          grantText(added), toText(issued)));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm);
  json.field("grantFile", added.getGrantFile()).field("grantText", added.getGrantText());
  json.field("guestPolicy", added.getGuestPolicy());
  writeFields(json, issued);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runVmRekey(Invocation& run, const VmRekeyArguments& arguments) {
  auto file = openBundleFile(run, arguments.vm, arguments.bundle);
  auto request = run.control().control().showVmRequest();
  request.setName(arguments.vm);
  auto shownVm = run.await(request.send(), "posternd");
  run.check(shownVm, arguments.vm);
  auto issued = issueBundle(run, arguments.vm, "admin.rekey", shownVm.getVm().getSettings().getTransport(),
                            shownVm.getGuestPolicy(), arguments.bundle, *file);
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
