#pragma once
// What enroll and vm rekey share: a new bundle from the VM's session, in a file, with the text that delivers it.

#include "host/cli/invocation.h"
#include "host/cli/secret-file.h"
#include "host/cli/snippets.h"

namespace postern::cli {

struct IssuedBundle {
  kj::String file;
  kj::String hostFingerprint;
  kj::Duration lifetime;
  Snippets snippets;
};

// The file for a bundle of this VM, made before anything is changed, so that a taken name changes nothing. One of
// libvirt's domains has a file that its XML names and QEMU can read; there the new bundle takes the old one's place.
kj::Own<SecretFile> openBundleFile(Invocation& run, kj::StringPtr vm, kj::StringPtr transport,
                                   const BundleArguments& arguments);

// `call` is what policy must allow: admin.enroll or admin.rekey. `transport` is the host's endpoint; `grants` is policy
// for the guest.
IssuedBundle issueBundle(Invocation& run, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr transport,
                         kj::StringPtr grants, const BundleArguments& arguments, SecretFile& file);

kj::String toText(const IssuedBundle& issued);
kj::String factsOf(const IssuedBundle& issued);  // the same without the snippets
void writeFields(JsonWriter& json, const IssuedBundle& issued);

}  // namespace postern::cli
