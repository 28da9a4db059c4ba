#pragma once
// BrokerClient: what the agent, which is unprivileged and speaks with the host, asks of the broker, which is root and
// never sees the wire. The requests are a closed list of fixed-size messages over a SOCK_SEQPACKET pair; descriptors
// come back beside the answer. The broker trusts none of it: it reads agent.toml itself, and decides each request
// again.
//
// A broker that is gone fails every promise with DISCONNECTED; the agent then ends, and init starts both again.
// Requests may be in progress side by side. Dropping a promise tells the broker to end what was started for it.

#include <kj/async.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>

#include "protocol/transfer/file-order.h"
#include "transport/connection.h"

namespace postern::guest {

// Which part of info.* a probe finds out; the bits of GuestCalls.info's `what`.
enum class Probe : uint8_t { OS = 1, NETWORK = 2, FILESYSTEMS = 4, USERS = 8 };

enum class PowerAction : uint8_t { SHUTDOWN, RESTART, SUSPEND };
// A shutdown or restart that was started, by a program that then failed or that somebody else called off, and has not
// ended this system by then did not happen. Longer than a service manager's patience with a service or two.
constexpr auto POWER_HAPPENS_WITHIN = 5 * kj::MINUTES;

// Between an opener's cancel and its SIGTERM: what is half done is put away meanwhile.
constexpr auto OPENER_GRACE = 5 * kj::SECONDS;

struct ProbeTimedOut {};
struct BrokerRefusal {
  kj::String text;  // a line for a person
};

// Why no opener was started.
struct FilesRefusal {
  enum class Kind : uint8_t {
    FAILED,
    DENIED,  // by the guest's policy
    BUSY,    // as many are running as may
  };
  Kind kind;
  kj::String text;  // a line for a person
  kj::String rule;  // DENIED: the rule that denied, or empty
};
// An opener that runs.
struct OpenedFiles {
  kj::AutoCloseFd socket;  // SOCK_SEQPACKET, to it (protocol/transfer.capnp: ToMover, ToOpener)
  // Dropping it ends the opener, which gets OPENER_GRACE to end by itself when the socket is closed.
  kj::Own<void> opener;
};

// A program that serves one connection has so long to end by itself once that is over, before SIGTERM.
constexpr auto SERVICE_GRACE = 5 * kj::SECONDS;

// Why a service was not reached.
struct ServiceRefusal {
  enum class Kind : uint8_t {
    NOT_REACHED,   // `text` says why, for this guest's log
    DENIED,        // by the guest's policy
    NOT_EXPORTED,  // this guest has no service of that name
    BUSY,          // as many programs are running as may
  };
  Kind kind;
  kj::String text;  // a line for a person
  kj::String rule;  // DENIED: the rule that denied, or empty
};
struct OpenedService {
  kj::AutoCloseFd socket;  // a connected stream
  // Null of a connection; dropping it ends the program, which gets SERVICE_GRACE to end by itself when the socket is
  // closed.
  kj::Own<void> program;
};

class BrokerClient {
 public:
  virtual ~BrokerClient() noexcept(false) {}

  // Opens the link's transport as the settings say (`connect`, or what "auto" finds), with the broker's rights: the
  // virtio port's device, or a vsock connection from a privileged port. Nothing has been read from it.
  virtual kj::Promise<Connected> connect() = 0;

  // Runs the probe in an unprivileged process of its own, for at most `deadline`. What it found, as one serialised
  // message with schema::Info as its root, of which only that part is set; unchecked, at most 64 KiB.
  virtual kj::Promise<kj::OneOf<kj::Array<kj::byte>, ProbeTimedOut, BrokerRefusal>> probe(Probe which,
                                                                                          kj::Duration deadline) = 0;

  // The names of programs that hold off `action` with an inhibitor lock; empty without logind.
  virtual kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction action) = 0;
  // The hooks that there are for `action`, in the order in which they run.
  virtual kj::Promise<kj::Array<kj::String>> hooks(PowerAction action) = 0;
  // Runs one of them to its end, or for the settings' time at most. A refusal is the hook's veto
  // (guest-agent/power/hooks.h says what counts as one). `caller` as below.
  virtual kj::Promise<kj::Maybe<BrokerRefusal>> runHook(PowerAction action, kj::StringPtr name,
                                                        kj::StringPtr caller) = 0;
  // Tells the guest's users (wall). Best effort.
  virtual kj::Promise<void> tellUsers(kj::StringPtr message) = 0;
  // The point of no return. `caller` is whom the host vouches for, for the broker's own look at the policy, as text
  // (guest-agent/power/caller-text.h). Null: it was started. Once it was, the same call reports the same for
  // POWER_HAPPENS_WITHIN.
  virtual kj::Promise<kj::Maybe<BrokerRefusal>> power(PowerAction action, kj::StringPtr caller) = 0;

  // Starts a process that opens files for `order`, as whom and below which folder the broker's own look at the policy
  // says. `caller` as above. Resolves when it runs; what it finds, it says over its socket.
  virtual kj::Promise<kj::OneOf<OpenedFiles, FilesRefusal>> openFiles(const transfer::FileOrder& order,
                                                                      kj::StringPtr caller) = 0;

  // Connects to what the service leads to, or starts its program, if the broker's own look at policy and configuration
  // allows it for `caller` (as above). Such requests wait for each other and for no others.
  virtual kj::Promise<kj::OneOf<OpenedService, ServiceRefusal>> openService(kj::StringPtr service,
                                                                            kj::StringPtr caller) = 0;

  // The enrolment with the bundle that the broker found is committed: its grants may be adopted (if settings allow and
  // there is no agent.toml), and a bundle in a file is removed. True if grants were adopted.
  virtual kj::Promise<bool> enrolled() = 0;
};

}  // namespace postern::guest
