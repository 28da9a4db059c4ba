#include "transport/service/local-address.h"

#include <arpa/inet.h>
#include <kj/debug.h>
#include <string.h>

#include "transport/endpoint.h"
#include "transport/printable.h"

namespace postern {

namespace {

constexpr kj::StringPtr FORMS = "tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:/PATH"_kj;

template <typename... Parts>
LocalAddressError error(Parts&&... parts) {
  return {kj::str(kj::fwd<Parts>(parts)...)};
}

bool hasControlCharacter(kj::StringPtr text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') return true;
  }
  return false;
}

// Decimal digits only, no sign, no leading zero.
kj::Maybe<uint16_t> parsePort(kj::StringPtr text) {
  if (text.size() == 0 || text.size() > 5 || (text.size() > 1 && text[0] == '0')) return nullptr;
  uint32_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return nullptr;
    value = value * 10 + uint32_t(c - '0');
  }
  if (value > 65535) return nullptr;
  return uint16_t(value);
}

// "127.0.0.1", "localhost" or "[::1]".
bool parseHost(kj::StringPtr text, TcpAddress& address) {
  auto host = kj::heapString(text == "localhost" ? "127.0.0.1"_kj : text);
  address.isSix = host.startsWith("[") && host.endsWith("]");
  if (!address.isSix) return inet_pton(AF_INET, host.cStr(), address.address) == 1;
  return inet_pton(AF_INET6, kj::heapString(host.slice(1, host.size() - 1)).cStr(), address.address) == 1;
}

kj::OneOf<LocalAddress, LocalAddressError> parseTcp(kj::StringPtr rest) {
  size_t colon;
  KJ_IF_MAYBE (last, rest.findLast(':')) {
    colon = *last;
  } else {
    return error("'tcp:", printable(rest), "' has no port; write tcp:127.0.0.1:PORT");
  }
  TcpAddress address{};
  KJ_IF_MAYBE (port, parsePort(rest.slice(colon + 1))) {
    address.port = *port;
  } else {
    return error("the port is '", printable(rest.slice(colon + 1), 12), "'; write a number to 65535");
  }
  auto host = kj::heapString(rest.slice(0, colon));
  if (parseHost(host, address)) return LocalAddress(address);
  if (host.findFirst(':') != nullptr && !host.startsWith("[")) {
    return error("'", printable(host), "' is no address; an IPv6 address stands in brackets, as in tcp:[::1]:80");
  }
  return error("'", printable(host), "' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no names are",
               " looked up");
}

kj::OneOf<LocalAddress, LocalAddressError> parseUnix(kj::StringPtr rest) {
  if (rest.startsWith("@")) {
    if (rest.size() == 1 || hasControlCharacter(rest)) return error("'unix:@' wants a name without control characters");
    // The '@' stands for the byte that says "abstract".
    if (rest.size() > MAX_SOCKET_PATH_BYTES) {
      return error("'unix:", printable(rest), "' has ", rest.size(), " bytes; there is room for ",
                   MAX_SOCKET_PATH_BYTES);
    }
  } else {
    KJ_IF_MAYBE (wrong, checkSocketPath("unix", rest)) return error(wrong->text);
  }
  return LocalAddress(UnixAddress{kj::str(rest)});
}

}  // namespace

// T96
kj::OneOf<LocalAddress, LocalAddressError> parseLocalAddress(kj::StringPtr untrusted) {
  // What inet_pton() and others would take for the text's end.
  if (memchr(untrusted.begin(), 0, untrusted.size()) != nullptr) return error("an address without NUL; write ", FORMS);
  if (untrusted.startsWith("tcp:")) return parseTcp(untrusted.slice(4));
  if (untrusted.startsWith("unix:")) return parseUnix(untrusted.slice(5));
  if (untrusted.startsWith("/")) return error("a path alone; write unix:", printable(untrusted));
  return error("'", printable(untrusted), "' is no address; write ", FORMS);
}

kj::String KJ_STRINGIFY(const LocalAddress& address) {
  KJ_SWITCH_ONEOF(address) {
    KJ_CASE_ONEOF(unix, UnixAddress) return kj::str("unix:", unix.path);
    KJ_CASE_ONEOF(tcp, TcpAddress) {
      char text[INET6_ADDRSTRLEN];
      KJ_ASSERT(inet_ntop(tcp.isSix ? AF_INET6 : AF_INET, tcp.address, text, sizeof(text)) != nullptr);
      return tcp.isSix ? kj::str("tcp:[", text, "]:", tcp.port) : kj::str("tcp:", text, ":", tcp.port);
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace postern
