#pragma once
// What enroll and vm rekey share: a new bundle from the VM's session, in a file, with the text that delivers it.

#include "host/cli/bundle-file.h"
#include "host/cli/invocation.h"
#include "host/cli/snippets.h"

namespace postern::cli {

struct IssuedBundle {
  kj::String file;
  kj::String hostFingerprint;
  kj::Duration lifetime;
  Snippets snippets;
};

// The file for a bundle of this VM, made before anything is asked for, so that a taken name changes nothing.
kj::Own<BundleFile> openBundleFile(Invocation& run, kj::StringPtr vm, const BundleArguments& arguments);

// `call` is what policy must allow: admin.enroll or admin.rekey. `transport` is the host's endpoint; `grants` is policy
// for the guest.
IssuedBundle issueBundle(Invocation& run, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr transport,
                         kj::StringPtr grants, const BundleArguments& arguments, BundleFile& file);

kj::String toText(const IssuedBundle& issued);
void writeFields(JsonWriter& json, const IssuedBundle& issued);

}  // namespace postern::cli
