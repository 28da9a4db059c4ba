#include "transport/endpoint.h"

#include <doctest/doctest.h>
#include <kj/debug.h>

#include <random>
#include <string>

namespace postern {
namespace {

std::string repeat(size_t count) {
  return std::string(count, 'a');
}

kj::ArrayPtr<const char> chars(const std::string& text) {
  return kj::arrayPtr(text.data(), text.size());
}

Endpoint parsed(const std::string& text) {
  auto result = parseEndpoint(chars(text));
  KJ_IF_MAYBE (error, result.tryGet<EndpointError>()) FAIL(text, ": ", error->text.cStr());
  return kj::mv(result.get<Endpoint>());
}

std::string refused(const std::string& text) {
  auto result = parseEndpoint(chars(text));
  if (result.is<Endpoint>()) {
    FAIL("accepted: ", text);
    return "";
  }
  return result.get<EndpointError>().text.cStr();
}

bool says(const std::string& text, const std::string& part) {
  bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

TEST_CASE("a domain's name fits one line of a register and of a request") {
  CHECK(says(refused("libvirt:"), "without a domain"));
  CHECK(says(refused("libvirt:" + repeat(129)), "at most 128"));
  CHECK((parsed("libvirt:" + repeat(128)).get<LibvirtEndpoint>().domain.size() == 128));
  for (auto name : {"a/b", "a'b", "a\"b", "a\nb", "a\x7f", "\xc3\xa4"}) {
    CHECK(says(refused(std::string("libvirt:") + name), "a character that is not taken"));
  }
}

TEST_CASE("each kind is read, with its default port, and written back in a form that reads the same") {
  CHECK((parsed("unix:/run/p.sock").get<UnixEndpoint>().path == "/run/p.sock"));
  CHECK((parsed("serial:/dev/virtio-ports/org.postern.agent.0").get<SerialEndpoint>().path ==
         "/dev/virtio-ports/org.postern.agent.0"));
  CHECK((parsed("hybrid:/run/v.sock").get<HybridEndpoint>() == HybridEndpoint{kj::str("/run/v.sock"), DEFAULT_PORT}));
  CHECK((parsed("hybrid:/run/v.sock:52").get<HybridEndpoint>() == HybridEndpoint{kj::str("/run/v.sock"), 52}));
  CHECK((parsed("vsock:42").get<VsockEndpoint>() == VsockEndpoint{42, DEFAULT_PORT}));
  CHECK((parsed("vsock:host:1").get<VsockEndpoint>() == VsockEndpoint{CID_HOST, 1}));
  CHECK((parsed("vsock:any:4294967294").get<VsockEndpoint>() == VsockEndpoint{CID_ANY, MAX_PORT}));
  CHECK((parsed("vsock:1").get<VsockEndpoint>().cid == CID_LOCAL));
  CHECK((parsed("vsock:4294967294").get<VsockEndpoint>().cid == 0xfffffffe));

  CHECK((parsed("libvirt:web 1").get<LibvirtEndpoint>().domain == "web 1"));

  for (auto text : {"libvirt:a:b", "unix:/run/p.sock", "unix:/a:700", "serial:/dev/x", "hybrid:/a:9700",
                    "hybrid:/a:1:2", "hybrid:/a:b/c:9700", "vsock:42:9700", "vsock:any:1"}) {
    CHECK((toString(parsed(text)) == text));
  }
  CHECK((toString(parsed("vsock:host")) == "vsock:2:9700"));
  CHECK((toString(parsed("hybrid:/a:b/c")) == "hybrid:/a:b/c:9700"));
}

TEST_CASE("the guest-to-host socket of a hybrid endpoint has the port as its suffix") {
  CHECK((parsed("hybrid:/run/v.sock:52").get<HybridEndpoint>().guestToHostPath() == "/run/v.sock_52"));
}

TEST_CASE("a typo in the kind names the nearest") {
  CHECK(says(refused("unx:/a"), "did you mean 'unix:'"));
  CHECK(says(refused("UNIX:/a"), "did you mean 'unix:'"));
  CHECK(says(refused("vsok:3"), "did you mean 'vsock:'"));
  CHECK(says(refused("hybird:/a"), "did you mean 'hybrid:'"));
  CHECK(says(refused("serail:/a"), "did you mean 'serial:'"));
  CHECK(says(refused("tcp:1.2.3.4"), "write unix:PATH"));
  CHECK(says(refused(":"), "write unix:PATH"));
  CHECK(says(refused(repeat(5000) + ":/a"), "..."));
}

TEST_CASE("text without a kind says what to put before it") {
  CHECK(says(refused(""), "no endpoint given"));
  CHECK(says(refused("/run/p.sock"), "unix:, hybrid: or serial:"));
  CHECK(says(refused("web1"), "is not an endpoint"));
}

TEST_CASE("bad paths are refused with their reason") {
  for (std::string kind : {"unix:", "serial:", "hybrid:"}) {
    CHECK(says(refused(kind), "without a path"));
    CHECK(says(refused(kind + "run/p"), "relative"));
    CHECK(says(refused(kind + "/run/"), "folder"));
    CHECK(says(refused(kind + "/a\nb"), "control character"));
    CHECK(says(refused(kind + "/a\x7f"), "control character"));
    CHECK(says(refused(kind + std::string("/a\0b", 4)), "control character"));
    CHECK(says(refused(kind + "/" + repeat(107)), "has 108 bytes"));
    CHECK(says(refused(kind + "/" + repeat(100000)), "shorter folder"));
  }
  CHECK((parsed("unix:/" + repeat(106)).get<UnixEndpoint>().path.size() == MAX_SOCKET_PATH_BYTES));
}

TEST_CASE("a hybrid path leaves room for the suffix that it will get") {
  CHECK((parsed("hybrid:/" + repeat(101)).get<HybridEndpoint>().guestToHostPath().size() == MAX_SOCKET_PATH_BYTES));
  CHECK(says(refused("hybrid:/" + repeat(102)), "room for 102 before"));
  CHECK((parsed("hybrid:/" + repeat(95) + ":4294967294").get<HybridEndpoint>().guestToHostPath().size() ==
         MAX_SOCKET_PATH_BYTES));
  CHECK(says(refused("hybrid:/" + repeat(96) + ":4294967294"), "room for 96 before"));
}

TEST_CASE("bad ports are refused with their reason") {
  for (std::string start : {"vsock:3:", "hybrid:/a:"}) {
    CHECK(says(refused(start), "no port after"));
    for (auto port : {"0", "4294967295", "4294967296", "18446744073709551617", "99999999999999999999999999", "-1", "+1",
                      " 1", "1 ", "0x10", "010", "12x", "x"}) {
      CHECK(says(refused(start + port), "number from 1 to 4294967294"));
    }
  }
  CHECK(says(refused("hybrid::5"), "without a path"));
}

TEST_CASE("bad context ids are refused with their reason") {
  CHECK(says(refused("vsock:"), "without a context id"));
  CHECK(says(refused("vsock::9700"), "without a context id"));
  CHECK(says(refused("vsock:0"), "hypervisor"));
  CHECK(says(refused("vsock:4294967295"), "vsock:any"));
  CHECK(says(refused("vsock:4294967296"), "over 32 bits"));
  CHECK(says(refused("vsock:web1"), "'host' or 'any'"));
  CHECK(says(refused("vsock:Host"), "'host' or 'any'"));
  CHECK(says(refused("vsock:03"), "'host' or 'any'"));
  CHECK(says(refused("vsock:3:4:5"), "'3:4'"));
}

// What the fuzz target checks as well: a parsed endpoint reads back as itself, a refusal is one printable line.
void checkAny(const std::string& text) {
  auto result = parseEndpoint(chars(text));
  KJ_IF_MAYBE (error, result.tryGet<EndpointError>()) {
    CHECK(error->text.size() > 0);
    CHECK(error->text.size() < 300);
    for (char c : error->text) {
      bool printable = c >= ' ' && c <= '~';
      CHECK(printable);
    }
    return;
  }
  auto written = toString(result.get<Endpoint>());
  CHECK((toString(parsed(written.cStr())) == written));
}

TEST_CASE("every byte flipped and every length truncated gives an endpoint or one printable line") {
  for (std::string text : {"unix:/run/p.sock", "hybrid:/run/v.sock:9700", "serial:/dev/x", "vsock:42:9700"}) {
    for (size_t length = 0; length <= text.size(); ++length) checkAny(text.substr(0, length));
    for (size_t i = 0; i < text.size(); ++i) {
      for (unsigned value = 0; value < 256; ++value) {
        auto changed = text;
        changed[i] = char(value);
        checkAny(changed);
      }
    }
  }
}

// T39
TEST_CASE("random bytes behind each kind give an endpoint or one printable line") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    const char* kinds[] = {"unix:", "hybrid:/", "serial:/", "vsock:", ""};
    text = kinds[random() % 5];
    for (auto length = random() % 40; length > 0; --length) text += char(random());
    checkAny(text);
  }
}

}  // namespace
}  // namespace postern
