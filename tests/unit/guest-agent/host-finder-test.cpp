#include "guest-agent/agent/host-finder.h"

#include <doctest/doctest.h>

#include "tests/support/temporary-folder.h"

using namespace postern;
using namespace postern::guest;

TEST_CASE("a bundle chooses among virtio ports and vsock, and no other device or socket of the guest") {
  test::TemporaryFolder folder;
  Paths paths(folder.path("root"));
  auto port = kj::str("serial:", paths.root, "/dev/virtio-ports/org.example");
  CHECK(bundleEndpoint(paths, port) != nullptr);
  CHECK(bundleEndpoint(paths, "vsock:2:9700") != nullptr);
  for (auto& text : {kj::str("serial:/dev/sda"), kj::str("unix:/run/systemd/private"), kj::str("hybrid:/run/x:1"),
                     kj::str("serial:", paths.root, "/dev/virtio-ports/../sda"), kj::str("nonsense"), kj::str()}) {
    CHECK(bundleEndpoint(paths, text) == nullptr);
  }
}

TEST_CASE("what a person said counts before what a bundle says") {
  test::TemporaryFolder folder;
  Paths paths(folder.path("root"));
  FoundBundle found{kj::heap<Bundle>(), SecretText(kj::String()), kj::str("a file")};
  found.bundle->transport = kj::str("vsock:2:1000");
  auto bundles = kj::arrayPtr(&found, 1);
  Settings settings;
  auto chosen = [&](const kj::Maybe<Endpoint>& given) {
    return toString(KJ_ASSERT_NONNULL(findHost(paths, given, settings, bundles)));
  };
  CHECK((chosen(nullptr) == "vsock:2:1000"));
  settings.connect = Endpoint(VsockEndpoint{2, 2000});
  CHECK((chosen(nullptr) == "vsock:2:2000"));
  CHECK((chosen(Endpoint(VsockEndpoint{2, 3000})) == "vsock:2:3000"));
}
