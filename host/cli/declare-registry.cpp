#include "host/cli/declare.h"
#include "host/move/transfer-key.h"
#include "protocol/bundle.h"
#include "transport/endpoint.h"

namespace postern::cli {

namespace {

constexpr auto SHORTEST_LIFETIME = 1 * kj::SECONDS;
constexpr auto LONGEST_LIFETIME = 7 * kj::DAYS;

std::string notEndpoint(const std::string& text) {
  auto parsed = parseEndpoint(kj::arrayPtr(text.data(), text.size()));
  return parsed.is<EndpointError>() ? std::string(parsed.get<EndpointError>().text.cStr()) : std::string();
}

std::string notUuid(const std::string& text) {
  if (parseVmId(kj::arrayPtr(text.data(), text.size())) != nullptr) return {};
  return "a UUID has 8-4-4-4-12 hexadecimal digits, as in the VM's libvirt XML";
}

CLI::Option* addEndpoint(CLI::App& app, const char* name, kj::String& target, const char* help) {
  return addText(app, name, target, help)->check(CLI::Validator(notEndpoint, "", "endpoint"))->type_name("ENDPOINT");
}

void addBundle(CLI::App& app, BundleArguments& bundle) {
  addText(app, "--bundle-file", bundle.file, "Where the bundle goes (default: VM.bundle here); readable by you alone")
      ->type_name("FILE");
  addDuration(app, "--lifetime", "How long the bundle is good for (default: 15m; at most 7d)",
              [&bundle](kj::Duration value) { bundle.lifetime = value; });
  addText(app, "--guest-transport", bundle.guestTransport,
          "Where the guest finds the host, from its side (default: what fits --transport)")
      ->check(CLI::Validator(notEndpoint, "", "endpoint"))
      ->type_name("ENDPOINT");
  app.add_flag("--force", bundle.force, "Replaces the bundle's file if there is one");
}

kj::Maybe<kj::String> checkBundle(const BundleArguments& bundle) {
  if (bundle.lifetime < SHORTEST_LIFETIME || bundle.lifetime > LONGEST_LIFETIME) {
    return kj::str("--lifetime is at least 1 s and at most 7d");
  }
  return nullptr;
}

void declareEnroll(CLI::App& app, Declared& declared) {
  addCommand<EnrollArguments>(
      app, "enroll", "Registers a VM and makes the bundle with which its agent enrols", declared,
      [](CLI::App& sub, EnrollArguments& arguments) {
        addVm(sub, arguments.vm);
        addEndpoint(sub, "--transport", arguments.transport,
                    "The host's side: unix:PATH, hybrid:PATH[:PORT], serial:PATH, vsock:CID[:PORT], libvirt:DOMAIN");
        sub.add_flag(
            "--libvirt", arguments.libvirt,
            "VM is a domain of libvirt's: gives it what it lacks, delivers the bundle (--transport libvirt:VM)");
        addText(sub, "--uuid", arguments.uuid, "The VM's UUID (default: the domain's with --libvirt, or a random one)")
            ->check(CLI::Validator(notUuid, "", "uuid"))
            ->type_name("UUID");
        addBundle(sub, arguments.bundle);
        addNames(sub, "--grant", arguments.grants, "Writes a rule that allows these calls: ping,info,power,...")
            ->delimiter(',')
            ->type_name("CALLS");
        addNames(sub, "--to", arguments.to, "Whom --grant allows them: user:NAME, group:NAME (default: you)")
            ->delimiter(',')
            ->type_name("WHO");
        addText(sub, "--qmp", arguments.qmp, "QEMU's QMP socket, for --force-after and for news of the VM")
            ->type_name("SOCKET");
      },
      [](const EnrollArguments& arguments) -> kj::Maybe<kj::String> {
        if (!arguments.libvirt && arguments.transport.size() == 0)
          return kj::str("--transport is required, or --libvirt");
        if (arguments.libvirt && arguments.transport.size() > 0 && !arguments.transport.startsWith("libvirt:")) {
          return kj::str("--libvirt goes with --transport libvirt:DOMAIN, or with none");
        }
        if (arguments.grants.empty() && !arguments.to.empty()) return kj::str("--to needs --grant");
        return checkBundle(arguments.bundle);
      });
}

void declareSet(CLI::App& vm, Declared& declared) {
  addCommand<VmSetArguments>(
      vm, "set", "Changes a VM's transport, tags or QMP socket; what is not named stays", declared,
      [](CLI::App& sub, VmSetArguments& arguments) {
        addVm(sub, arguments.vm);
        addEndpoint(sub, "--transport", arguments.transport, "The host's side, as for enroll");
        addNames(sub, "--tag", arguments.tags, "The VM's tags, in place of those it has")
            ->delimiter(',')
            ->type_name("TAGS");
        addText(sub, "--qmp", arguments.qmp, "QEMU's QMP socket, or none")->type_name("SOCKET");
      },
      [](const VmSetArguments& arguments) -> kj::Maybe<kj::String> {
        if (arguments.transport.size() == 0 && arguments.tags.empty() && arguments.qmp.size() == 0) {
          return kj::str("nothing to set: name --transport, --tag or --qmp");
        }
        return nullptr;
      });
}

std::string notHostKey(const std::string& text) {
  if (host::parseTransferKey(kj::arrayPtr(text.data(), text.size())) != nullptr) return {};
  return "no whole key of a host; `postern vm host-key` on that host shows it";
}

CLI::Option* addHostKey(CLI::App& app, const char* name, kj::String& target, const char* help) {
  return addText(app, name, target, help)->check(CLI::Validator(notHostKey, "", "host key"))->type_name("HOSTKEY");
}

void declareExport(CLI::App& vm, Declared& declared) {
  addCommand<VmExportArguments>(
      vm, "export", "Moves a VM to another host: inactive here, sealed to that host's key", declared,
      [](CLI::App& sub, VmExportArguments& arguments) {
        addVm(sub, arguments.vm);
        addHostKey(sub, "--to", arguments.to, "The other host's key: `postern vm host-key` there");
        addText(sub, "--file", arguments.file, "Where the export goes (default: -, standard output)")
            ->type_name("FILE");
        sub.add_flag("--force", arguments.force, "Replaces the file if there is one");
        sub.add_flag("--cancel", arguments.cancel, "Takes the VM back; only if the other host has not imported it");
      },
      [](const VmExportArguments& arguments) -> kj::Maybe<kj::String> {
        if (arguments.cancel && (arguments.to.size() > 0 || arguments.file != nullptr)) {
          return kj::str("--cancel goes with the VM alone");
        }
        if (!arguments.cancel && arguments.to.size() == 0) return kj::str("--to is required, or --cancel");
        return nullptr;
      });
}

void declareImport(CLI::App& vm, Declared& declared) {
  addCommand<VmImportArguments>(
      vm, "import", "Takes a VM that another host has exported to this one", declared,
      [](CLI::App& sub, VmImportArguments& arguments) {
        addVm(sub, arguments.vm)->required(false);
        addText(sub, "--file", arguments.file, "The export (default: -, standard input)")->type_name("FILE");
        addEndpoint(sub, "--transport", arguments.transport,
                    "Where it connects here, as for enroll; a VM that comes back has its own");
        addHostKey(sub, "--from", arguments.from, "Refuses what comes from another host than that");
        sub.add_flag("--grants", arguments.grants, "Takes the rules of enroll --grant that it had there");
      });
}

}  // namespace

void declareRegistry(CLI::App& app, Declared& declared) {
  declareEnroll(app, declared);
  auto& vm = *app.add_subcommand("vm", "Shows and changes the register of VMs");
  vm.require_subcommand(1);
  addCommand<VmListArguments>(vm, "list", "Lists the VMs", declared, [](CLI::App&, VmListArguments&) {});
  addCommand<VmShowArguments>(vm, "show", "Shows everything that is known of a VM", declared,
                              [](CLI::App& sub, VmShowArguments& arguments) { addVm(sub, arguments.vm); });
  declareSet(vm, declared);
  addCommand<VmRemoveArguments>(vm, "remove", "Ends its session, forgets its keys and the rules of enroll --grant",
                                declared,
                                [](CLI::App& sub, VmRemoveArguments& arguments) { addVm(sub, arguments.vm); });
  addCommand<VmRekeyArguments>(
      vm, "rekey", "Makes a new bundle; the old keys are good until it has been used", declared,
      [](CLI::App& sub, VmRekeyArguments& arguments) {
        addVm(sub, arguments.vm);
        addBundle(sub, arguments.bundle);
      },
      [](const VmRekeyArguments& arguments) { return checkBundle(arguments.bundle); });
  addCommand<HostKeyArguments>(vm, "host-key", "Shows the key of this host that VMs are exported to", declared,
                               [](CLI::App&, HostKeyArguments&) {});
  declareExport(vm, declared);
  declareImport(vm, declared);
}

}  // namespace postern::cli
