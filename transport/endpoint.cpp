#include "transport/endpoint.h"

#include <string.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "transport/printable.h"

namespace postern {

namespace {

using Chars = kj::ArrayPtr<const char>;
using Parsed = kj::OneOf<Endpoint, EndpointError>;

template <typename... Parts>
EndpointError error(Parts&&... parts) {
  return {kj::str(kj::fwd<Parts>(parts)...)};
}

constexpr kj::StringPtr FORMS = "unix:PATH, hybrid:PATH[:PORT], serial:PATH, vsock:CID[:PORT] or libvirt:DOMAIN"_kj;

bool equals(Chars a, kj::StringPtr b) {
  return a.size() == b.size() && memcmp(a.begin(), b.begin(), a.size()) == 0;
}

kj::Maybe<size_t> findLast(Chars text, char c) {
  for (size_t i = text.size(); i > 0; --i) {
    if (text[i - 1] == c) return i - 1;
  }
  return nullptr;
}

bool contains(Chars text, char c) {
  return std::find(text.begin(), text.end(), c) != text.end();
}

// Numbers -----------------------------------------------------------------------------------------------------------

struct NotANumber {};
struct TooLarge {};

// Decimal digits only, no sign, no leading zero (which some read as octal).
kj::OneOf<uint32_t, NotANumber, TooLarge> parseNumber(Chars text) {
  if (text.size() == 0 || (text.size() > 1 && text[0] == '0')) return NotANumber();
  uint64_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return NotANumber();
    if (value <= UINT32_MAX) value = value * 10 + uint64_t(c - '0');
  }
  if (value > UINT32_MAX) return TooLarge();
  return static_cast<uint32_t>(value);
}

kj::OneOf<uint32_t, EndpointError> parsePort(Chars text) {
  if (text.size() == 0) return error("no port after the last ':'; write a number or leave the ':' out");
  auto number = parseNumber(text);
  if (number.is<uint32_t>() && number.get<uint32_t>() >= 1 && number.get<uint32_t>() <= MAX_PORT) {
    return number.get<uint32_t>();
  }
  return error("the port is '", printable(text, 12), "'; write a number from 1 to ", MAX_PORT);
}

kj::OneOf<uint32_t, EndpointError> parseCid(Chars text) {
  if (text.size() == 0) return error("vsock: without a context id; write vsock:host or vsock:CID, such as vsock:42");
  if (equals(text, "host")) return CID_HOST;
  if (equals(text, "any")) return CID_ANY;
  auto number = parseNumber(text);
  if (number.is<NotANumber>()) {
    return error("the context id is '", printable(text, 12), "'; write a number, 'host' or 'any'");
  }
  if (number.is<TooLarge>()) {
    return error("the context id '", printable(text, 12), "' is over 32 bits; write the VM's guest-cid");
  }
  uint32_t cid = number.get<uint32_t>();
  if (cid == 0) return error("context id 0 is the hypervisor's, where nothing listens; the host is vsock:host");
  if (cid == CID_ANY) return error("context id ", CID_ANY, " means every address; write vsock:any if you want that");
  return cid;
}

// Forms -------------------------------------------------------------------------------------------------------------

kj::OneOf<Endpoint, EndpointError> parseHybrid(Chars rest) {
  Chars path = rest;
  uint32_t port = DEFAULT_PORT;
  KJ_IF_MAYBE (colon, findLast(rest, ':')) {
    Chars last = rest.slice(*colon + 1, rest.size());
    // A colon in the name of a folder is part of the path.
    if (!contains(last, '/')) {
      auto parsed = parsePort(last);
      KJ_IF_MAYBE (wrong, parsed.tryGet<EndpointError>()) return error("hybrid: ", wrong->text);
      port = parsed.get<uint32_t>();
      path = rest.slice(0, *colon);
    }
  }
  size_t suffix = kj::str("_", port).size();
  KJ_IF_MAYBE (wrong, checkSocketPath("hybrid", path, suffix)) return kj::mv(*wrong);
  return Endpoint(HybridEndpoint{kj::heapString(path), port});
}

Parsed parseVsock(Chars rest) {
  Chars cidText = rest;
  uint32_t port = DEFAULT_PORT;
  KJ_IF_MAYBE (colon, findLast(rest, ':')) {
    auto parsed = parsePort(rest.slice(*colon + 1, rest.size()));
    KJ_IF_MAYBE (wrong, parsed.tryGet<EndpointError>()) return error("vsock: ", wrong->text);
    port = parsed.get<uint32_t>();
    cidText = rest.slice(0, *colon);
  }
  auto cid = parseCid(cidText);
  KJ_IF_MAYBE (wrong, cid.tryGet<EndpointError>()) return kj::mv(*wrong);
  return Endpoint(VsockEndpoint{cid.get<uint32_t>(), port});
}

template <typename PathEndpoint>
Parsed parsePathOnly(kj::StringPtr kind, Chars path) {
  KJ_IF_MAYBE (wrong, checkSocketPath(kind, path)) return kj::mv(*wrong);
  return Endpoint(PathEndpoint{kj::heapString(path)});
}

Parsed parseLibvirt(Chars domain) {
  if (domain.size() == 0) return error("libvirt: without a domain; write libvirt:NAME, as `virsh list --all` has it");
  if (domain.size() > MAX_DOMAIN_BYTES) {
    return error("libvirt: the domain's name has ", domain.size(), " bytes; at most ", MAX_DOMAIN_BYTES, " are taken");
  }
  for (char c : domain) {
    if (c < ' ' || c > '~' || c == '/' || c == '\'' || c == '"') {
      return error("libvirt: the domain's name '", printable(domain, 40),
                   "' has a character that is not taken: printable ASCII without quotes and '/'");
    }
  }
  return Endpoint(LibvirtEndpoint{kj::heapString(domain)});
}

// Kinds -------------------------------------------------------------------------------------------------------------

constexpr kj::StringPtr KINDS[] = {"unix"_kj, "hybrid"_kj, "serial"_kj, "vsock"_kj, "libvirt"_kj};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
}

// Levenshtein's distance without regard to case. `a` is at most MAX_KIND_BYTES long.
constexpr size_t MAX_KIND_BYTES = 16;
size_t distance(Chars a, kj::StringPtr b) {
  size_t row[MAX_KIND_BYTES + 1];
  std::iota(row, row + a.size() + 1, size_t(0));
  for (size_t j = 0; j < b.size(); ++j) {
    size_t diagonal = row[0];
    row[0] = j + 1;
    for (size_t i = 0; i < a.size(); ++i) {
      size_t replaced = diagonal + (lower(a[i]) == b[j] ? 0 : 1);
      diagonal = row[i + 1];
      row[i + 1] = std::min({replaced, row[i] + 1, diagonal + 1});
    }
  }
  return row[a.size()];
}

EndpointError unknownKind(Chars kind) {
  if (kind.size() > 0 && kind.size() <= MAX_KIND_BYTES) {
    auto nearest = std::min_element(std::begin(KINDS), std::end(KINDS), [&](kj::StringPtr a, kj::StringPtr b) {
      return distance(kind, a) < distance(kind, b);
    });
    if (distance(kind, *nearest) <= 2) {
      return error("unknown kind of endpoint '", printable(kind), "'; did you mean '", *nearest, ":'?");
    }
  }
  return error("unknown kind of endpoint '", printable(kind), "'; write ", FORMS);
}

}  // namespace

kj::Maybe<EndpointError> checkSocketPath(kj::StringPtr kind, Chars path, size_t suffix) {
  if (path.size() == 0) return error(kind, ": without a path; write ", kind, ":/path/to/it");
  if (path[0] != '/') {
    return error(kind, ": the path '", printable(path), "' is relative; write it in full, from the root '/'");
  }
  for (char c : path) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
      return error(kind, ": the path has a control character (NUL, a line's end); remove it or rename the file");
    }
  }
  if (path.back() == '/') return error(kind, ": the path '", printable(path), "' names a folder; name the file in it");
  if (path.size() + suffix > MAX_SOCKET_PATH_BYTES) {
    return error(kind, ": the path has ", path.size(), " bytes, and a socket's address has room for ",
                 MAX_SOCKET_PATH_BYTES - suffix, suffix == 0 ? ""_kj : " before the _PORT that is added"_kj,
                 "; use a shorter folder");
  }
  return nullptr;
}

kj::OneOf<Endpoint, EndpointError> parseEndpoint(kj::ArrayPtr<const char> untrusted) {
  if (untrusted.size() == 0) return error("no endpoint given; write ", FORMS);
  auto colon = std::find(untrusted.begin(), untrusted.end(), ':');
  if (colon == untrusted.end()) {
    if (untrusted[0] == '/') {
      return error("'", printable(untrusted), "' does not say what it is; write unix:, hybrid: or serial: before it");
    }
    return error("'", printable(untrusted), "' is not an endpoint; write ", FORMS);
  }
  auto kindSize = static_cast<size_t>(colon - untrusted.begin());
  Chars kind = untrusted.slice(0, kindSize);
  Chars rest = untrusted.slice(kindSize + 1, untrusted.size());
  if (equals(kind, "unix")) return parsePathOnly<UnixEndpoint>("unix", rest);
  if (equals(kind, "serial")) return parsePathOnly<SerialEndpoint>("serial", rest);
  if (equals(kind, "hybrid")) return parseHybrid(rest);
  if (equals(kind, "vsock")) return parseVsock(rest);
  if (equals(kind, "libvirt")) return parseLibvirt(rest);
  return unknownKind(kind);
}

kj::String HybridEndpoint::guestToHostPath() const {
  return kj::str(path, "_", port);
}

kj::String toString(const Endpoint& endpoint) {
  KJ_SWITCH_ONEOF(endpoint) {
    KJ_CASE_ONEOF(e, UnixEndpoint) return kj::str("unix:", e.path);
    KJ_CASE_ONEOF(e, HybridEndpoint) return kj::str("hybrid:", e.path, ":", e.port);
    KJ_CASE_ONEOF(e, SerialEndpoint) return kj::str("serial:", e.path);
    KJ_CASE_ONEOF(e, VsockEndpoint) {
      if (e.cid == CID_ANY) return kj::str("vsock:any:", e.port);
      return kj::str("vsock:", e.cid, ":", e.port);
    }
    KJ_CASE_ONEOF(e, LibvirtEndpoint) return kj::str("libvirt:", e.domain);
  }
  KJ_UNREACHABLE;
}

}  // namespace postern
