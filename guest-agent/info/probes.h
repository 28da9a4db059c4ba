#pragma once
// What the probes find out. Each fills its part of an Info, in a process that does nothing else (probe.h), and reads
// only what any user of the guest may read. Bounds of everything are here, for the probes and for who checks them.

#include <kj/function.h>
#include <kj/string.h>

#include "protocol/guest.capnp.h"

namespace postern::guest {

constexpr size_t MAX_INTERFACES = 64;
constexpr size_t MAX_ADDRESSES = 16;  // of an interface
constexpr size_t MAX_FILE_SYSTEMS = 128;
constexpr size_t MAX_USERS = 128;
// Texts; so that each part fits MAX_CHILD_OUTPUT whatever is in it.
constexpr size_t MAX_INFO_TEXT = 256;
constexpr size_t MAX_SOURCE_TEXT = 128;  // of a file system
constexpr size_t MAX_TYPE_TEXT = 32;     // likewise
constexpr size_t MAX_SHORT_TEXT = 64;    // addresses, names of users, interfaces and terminals

void findOs(schema::Info::Builder info);
void findNetwork(schema::Info::Builder info);
void findFilesystems(schema::Info::Builder info);
void findUsers(schema::Info::Builder info);

// The same, of files below `root` (its etc/ and proc/); "" is the machine's.
void findOsBelow(kj::StringPtr root, schema::Info::Os::Builder os);
// The same, of another file of login records.
void findUsersIn(kj::StringPtr utmpFile, schema::Info::Builder info);

}  // namespace postern::guest
