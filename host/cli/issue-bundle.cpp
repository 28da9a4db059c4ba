#include "host/cli/issue-bundle.h"

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"
#include "host/files/files.h"
#include "protocol/bundle.h"

namespace postern::cli {

namespace {

constexpr SecretFile::Words WORDS{"the bundle"_kj, "--bundle-file"_kj};

bool hasControlCharacter(kj::StringPtr path) {
  for (char c : path) {
    if ((c >= 0 && c < ' ') || c == 127) return true;
  }
  return false;
}

Endpoint endpointOf(kj::StringPtr vm, kj::StringPtr transport) {
  auto parsed = parseEndpoint(transport);
  KJ_SWITCH_ONEOF(parsed) {
    KJ_CASE_ONEOF(endpoint, Endpoint) {
      return kj::mv(endpoint);
    }
    KJ_CASE_ONEOF(error, EndpointError) {
      fail(client::FailureKind::FAILED, kj::str(vm, ": posternd named a transport that is none: ", error.text));
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace

kj::Own<SecretFile> openBundleFile(Invocation& run, kj::StringPtr vm, kj::StringPtr transport,
                                   const BundleArguments& arguments) {
  if (arguments.file == nullptr && endpointOf(vm, transport).is<LibvirtEndpoint>()) {
    auto& folder = run.paths.bundleFolder;
    KJ_IF_MAYBE (error, host::makeFolder(folder, 0711)) fail(client::FailureKind::FAILED, kj::mv(error->text));
    return kj::heap<SecretFile>(kj::str(folder, '/', vm, ".bundle"), Existing::REPLACED, WORDS);
  }
  auto name = arguments.file.map([](const kj::String& file) { return kj::str(file); }).orDefault([&]() {
    return kj::str(vm, ".bundle");
  });
  auto path = name.startsWith("/") ? kj::mv(name) : kj::str(run.world.currentFolder(), '/', name);
  if (hasControlCharacter(path)) {
    fail(client::FailureKind::INVALID, kj::str("control characters in the bundle's path: ", shown(path, 300)));
  }
  return kj::heap<SecretFile>(path, arguments.force ? Existing::REPLACED : Existing::REFUSED, WORDS);
}

IssuedBundle issueBundle(Invocation& run, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr transport,
                         kj::StringPtr grants, const BundleArguments& arguments, SecretFile& file) {
  auto endpoint = endpointOf(vm, transport);
  auto session = run.openVm(vm, {call});
  auto request = session->calls().issueBundleRequest();
  request.setLifetimeSeconds(static_cast<uint32_t>(arguments.lifetime / kj::SECONDS));
  KJ_IF_MAYBE (named, arguments.guestTransport) {
    request.setTransport(*named);
  } else {
    request.setTransport(guestEndpointFor(endpoint));
  }
  request.setGrants(grants);
  auto response = run.await(request.send(), vm);
  run.check(response, vm);
  // Only what is a bundle is written into a file that goes into a VM.
  if (!parseBundle(response.getBundle()).is<kj::Own<Bundle>>()) {
    fail(client::FailureKind::FAILED, kj::str(vm, ": its session gave no whole bundle"));
  }
  file.keep(response.getBundle());
  return {kj::str(file.path()), kj::str(response.getHostFingerprint()), arguments.lifetime,
          snippetsFor(endpoint, file.path())};
}

kj::String factsOf(const IssuedBundle& issued) {
  return kj::str("bundle            ", issued.file, " (a secret until it is used; good for ",
                 describeDuration(issued.lifetime), ")\nhost fingerprint  ", shown(issued.hostFingerprint, 100), '\n');
}

kj::String toText(const IssuedBundle& issued) {
  return kj::str(factsOf(issued), toText(issued.snippets));
}

void writeFields(JsonWriter& json, const IssuedBundle& issued) {
  json.field("bundleFile", issued.file).field("hostFingerprint", issued.hostFingerprint);
  json.field("lifetimeSeconds", issued.lifetime / kj::SECONDS).key("snippets");
  writeSnippets(json, issued.snippets);
}

}  // namespace postern::cli
