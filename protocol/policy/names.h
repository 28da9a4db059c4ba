#pragma once
// The names that a policy has, and which texts are one. Everything a rule names is checked by these functions once,
// when it is read; they also serve who else must not take a bad name (the registry, the command line).

#include <kj/string.h>

namespace postern::policy {

// 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter or digit; not "host" and not "any", which are
// words of the grammar. Also fit for a file's name.
bool isVmName(kj::StringPtr text);
// As a VM's name, with nothing reserved: tags, the policy's own groups, segments' communities.
bool isPlainName(kj::StringPtr text);
// A service: as a plain name, but without '.'.
bool isServiceName(kj::StringPtr text);
// A rule's id: a plain name that may also hold ':'; ids that Postern makes have one, so that they collide with no
// person's ("grant-web1:2").
bool isRuleId(kj::StringPtr text);
// A user or a group of the host or, as run-as, of the guest: 1 to 128 bytes of printable text, no '/', no ':', no space
// at either end.
bool isAccountName(kj::StringPtr text);

// What is wrong with a name of that kind, for the end of an error.
constexpr kj::StringPtr VM_NAME_RULE =
    "1 to 64 letters, digits, '-', '_' and '.', beginning with a letter or digit; not 'host' or 'any'"_kj;
constexpr kj::StringPtr PLAIN_NAME_RULE =
    "1 to 64 letters, digits, '-', '_' and '.', beginning with a letter or digit"_kj;

}  // namespace postern::policy
