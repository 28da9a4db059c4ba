#pragma once
// ServiceTarget: what an exported service leads to, as [service.NAME] says it at either end:
//
//   [service.http]
//   target = "tcp:127.0.0.1:80"            # or "unix:/run/app.sock", or a program: ["/usr/sbin/sshd", "-i"]
//   user = "www-data"                      # as whom a Unix socket is connected to, or the program runs (required)
//   proxy = "v2"                           # the target gets a PROXY protocol header that says who connects
//
// Who connects is told to a program in its environment: POSTERN_PEER ("user:alice", "vm:web1"), POSTERN_SERVICE. A
// program has the channel as its standard input and output; its end ends the channel.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/policy/toml-text.h"
#include "transport/service/local-address.h"

namespace postern {

struct ServiceProgram {
  kj::Array<kj::String> argv;  // [0] is an absolute path
};
struct ServiceTarget {
  kj::String name;  // as in service.NAME: letters, digits, '-', '_'
  kj::OneOf<LocalAddress, ServiceProgram> leadsTo;
  kj::Maybe<kj::String> user;
  bool proxy = false;
};

constexpr size_t MAX_SERVICES = 256;
constexpr size_t MAX_SERVICE_ARGUMENTS = 64;
constexpr auto SERVICE_CONNECT_DEADLINE = 5 * kj::SECONDS;

// The table `service` of a file: a table for each name. What is wrong, a line each, goes to `problems` (without the
// file's name, with the line: "7: ..."); then what comes back is not to be used.
kj::Vector<ServiceTarget> readServices(const policy::TomlEntry& entry, kj::Vector<kj::String>& problems);

// PROXY protocol v2 with command PROXY and an unspecified family, since nobody has an address: TLVs of the custom range
// say who (0xE0, "vm:web1") and which service (0xE1).
kj::Array<kj::byte> proxyHeader(kj::StringPtr peer, kj::StringPtr service);

}  // namespace postern
