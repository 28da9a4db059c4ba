#pragma once
// Settings: the [agent] table of agent.toml. The rest of that file is the guest's policy, which the policy engine
// reads.
//
//   [agent]
//   connect = "auto"            # or an endpoint: serial:PATH, vsock:CID[:PORT], unix:PATH
//   user = "postern-agent"      # whom the process that speaks with the host runs as
//   accept-grants = true        # whether a bundle may bring policy to a guest that has no agent.toml
//   heartbeat = 1000            # milliseconds, 200 to 60000, until the host wants another interval
//   retry = 2000              # milliseconds at most between two attempts to reach a host that does not answer,
//                             # 10 to 60000
//   power = "auto"              # "systemctl", or "syscall" for a guest without systemd
//   hook-timeout = 30           # seconds that one hook may take, 1 to 3600
//
// Opens nothing. An unknown key, a value of another type or out of its range is an error that names file and line.

#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>

#include "protocol/limits.h"
#include "transport/endpoint.h"

namespace postern::guest {

enum class PowerMethod : uint8_t { AUTO, SYSTEMCTL, SYSCALL };

struct Settings {
  kj::Maybe<Endpoint> connect;  // null: auto
  kj::Maybe<kj::String> user;   // null: none named
  bool acceptGrants = true;
  kj::Duration heartbeat = 1 * kj::SECONDS;
  kj::Duration retry = limits::CONNECT_RETRY_MAX;
  PowerMethod power = PowerMethod::AUTO;
  kj::Duration hookTimeout = 30 * kj::SECONDS;
};

// Printable lines: "agent.toml:3: unknown key 'conect' in [agent]; did you mean 'connect'?"
struct SettingsErrors {
  kj::Array<kj::String> lines;
};

// `text` is the whole agent.toml. For any bytes; does not throw.
kj::OneOf<Settings, SettingsErrors> parseSettings(kj::StringPtr fileName, kj::ArrayPtr<const char> text);

}  // namespace postern::guest
