#pragma once
// Where a guest finds its bundle (protocol/bundle.h), in this order:
//
//   1 --bundle-file                       what the command line names
//   2 $CREDENTIALS_DIRECTORY/postern.bundle   a systemd credential
//   3 SMBIOS type 11                      QEMU's -smbios type=11,path=... and libvirt's oemStrings
//   4 fw_cfg                              opt/org.postern/bundle
//   5 /etc/postern/bundle                 written by cloud-init or by `postern-agent join`
//
// Never the kernel's command line, which any program may read. Every source that has a sound bundle gives one, in this
// order: an old one in SMBIOS must not hide a new one in a file. Which of them is news is identity.h's matter. A source
// that has something else gives a line for a person.

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "guest-agent/paths.h"
#include "protocol/bundle.h"

namespace postern::guest {

struct FoundBundle {
  kj::Own<Bundle> bundle;
  SecretText text;
  kj::String from;  // for a person: "/etc/postern/bundle", "SMBIOS type 11 (11-0)"
};

struct BundleSearch {
  kj::Vector<FoundBundle> found;
  kj::Vector<kj::String> problems;
};

// `option`: --bundle-file. `credentials`: $CREDENTIALS_DIRECTORY. To be called with the broker's rights.
BundleSearch searchBundles(const Paths& paths, kj::Maybe<kj::StringPtr> option, kj::Maybe<kj::StringPtr> credentials);

}  // namespace postern::guest
