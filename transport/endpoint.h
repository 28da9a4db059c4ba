#pragma once
// Endpoint: where a link begins, as a person writes it.
//
//   unix:PATH                 a Unix socket
//   hybrid:PATH[:PORT]        Firecracker's and Cloud Hypervisor's vsock on a Unix socket: PATH is the VMM's socket
//   serial:PATH               virtio-serial: in the guest the port's device, on the host the VMM's chardev socket
//   vsock:CID[:PORT]          CID is a number, "host" (2) or "any" (every local address, for listening)
//   libvirt:DOMAIN            on the host: whichever of serial and vsock the domain has, asked anew at each of its
//   starts
//
// PATH is absolute, without control characters, and short enough for a socket address. A file name of hybrid: that
// contains a colon needs its port written out. What a parsed endpoint holds has been checked once and for all, except
// whether anything exists there.

#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern {

// The port at which Postern listens when none is named, on both kinds of vsock. Above 1023, so that neither end needs
// a capability to listen, and not a number that guests' usual vsock services take (22 ssh, 1024 container agents,
// 19532 journal upload).
constexpr uint32_t DEFAULT_PORT = 9700;
// 2^32-1 is the kernel's "any".
constexpr uint32_t MAX_PORT = 0xfffffffe;

constexpr uint32_t CID_LOCAL = 1;  // vsock's loopback, for tests inside one guest
constexpr uint32_t CID_HOST = 2;
constexpr uint32_t CID_ANY = 0xffffffff;

// sun_path has 108 bytes and the last one is NUL. Everything longer is refused.
constexpr size_t MAX_SOCKET_PATH_BYTES = 107;

constexpr size_t MAX_DOMAIN_BYTES = 128;

struct UnixEndpoint {
  kj::String path;
  bool operator==(const UnixEndpoint&) const = default;
};
struct HybridEndpoint {
  kj::String path;
  uint32_t port;
  bool operator==(const HybridEndpoint&) const = default;

  // Where the VMM connects for the guest: `<path>_<port>`. Fits a socket address, too.
  kj::String guestToHostPath() const;
};
struct SerialEndpoint {
  kj::String path;
  bool operator==(const SerialEndpoint&) const = default;
};
struct VsockEndpoint {
  uint32_t cid;
  uint32_t port;
  bool operator==(const VsockEndpoint&) const = default;
};

// posternd alone resolves it; connecting to it and listening on it are refused here.
struct LibvirtEndpoint {
  kj::String domain;  // printable ASCII, without '/' and quotes
  bool operator==(const LibvirtEndpoint&) const = default;
};

using Endpoint = kj::OneOf<UnixEndpoint, HybridEndpoint, SerialEndpoint, VsockEndpoint, LibvirtEndpoint>;

// One printable line: what is wrong and what to write instead. Quotes at most a few bytes of what was given.
struct EndpointError {
  kj::String text;
};

// For any bytes at all; does not throw.
kj::OneOf<Endpoint, EndpointError> parseEndpoint(kj::ArrayPtr<const char> untrusted);

// What is wrong with a path that is to be a socket's, behind "KIND:"; null if it is as above, and `suffix` bytes more
// have room.
kj::Maybe<EndpointError> checkSocketPath(kj::StringPtr kind, kj::ArrayPtr<const char> path, size_t suffix = 0);

// The form that parseEndpoint() reads back as the same endpoint. Ports are written out.
kj::String toString(const Endpoint& endpoint);

}  // namespace postern
