// parseEndpoint() over any bytes: what it takes is written back in a form that it reads as the same, and what it
// refuses gives one printable line of bounded length.
//
// input = the bytes

#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"
#include "transport/endpoint.h"

namespace postern::fuzz {
namespace {

// The longest error has a path's length bound and twice 40 quoted bytes in it.
constexpr size_t MAX_ERROR_BYTES = 240;

void judgePath(kj::StringPtr path) {
  expect(path.startsWith("/") && !path.endsWith("/"), "a path is absolute and names no folder");
  expect(path.size() <= MAX_SOCKET_PATH_BYTES, "a path fits a socket's address");
  for (char c : path) expect(static_cast<unsigned char>(c) >= ' ' && c != '\x7f', "a path has no control characters");
}

void judge(const Endpoint& endpoint) {
  KJ_SWITCH_ONEOF(endpoint) {
    KJ_CASE_ONEOF(unixSocket, UnixEndpoint) judgePath(unixSocket.path);
    KJ_CASE_ONEOF(serial, SerialEndpoint) judgePath(serial.path);
    KJ_CASE_ONEOF(hybrid, HybridEndpoint) {
      judgePath(hybrid.path);
      judgePath(hybrid.guestToHostPath());
      expect(hybrid.port >= 1 && hybrid.port <= MAX_PORT, "a port is a port");
    }
    KJ_CASE_ONEOF(vsock, VsockEndpoint) {
      expect(vsock.cid != 0, "nothing listens at the hypervisor's context id");
      expect(vsock.port >= 1 && vsock.port <= MAX_PORT, "a port is a port");
    }
    KJ_CASE_ONEOF(libvirt, LibvirtEndpoint) {
      expect(libvirt.domain.size() > 0, "a domain has a name");
      for (char c : libvirt.domain) expect(c >= ' ' && c <= '~' && c != '/', "a domain's name is printable");
    }
  }
  auto text = toString(endpoint);
  auto again = parseEndpoint(text);
  expect(again.is<Endpoint>(), "what is written is read back");
  expect(toString(again.get<Endpoint>()) == text, "what is written is read back as the same");
}

void run(kj::ArrayPtr<const char> text) {
  auto parsed = parseEndpoint(text);
  KJ_SWITCH_ONEOF(parsed) {
    KJ_CASE_ONEOF(endpoint, Endpoint) {
      judge(endpoint);
    }
    KJ_CASE_ONEOF(error, EndpointError) {
      expect(error.text.size() > 0 && error.text.size() <= MAX_ERROR_BYTES, "an error is one line of bounded length");
      for (char c : error.text) expect(c >= ' ' && c <= '~', "an error is printable");
    }
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  auto bytes = postern::fuzz::copyOf(kj::arrayPtr(data, size));
  postern::fuzz::run(kj::arrayPtr(reinterpret_cast<const char*>(bytes.begin()), bytes.size()));
  return 0;
}
