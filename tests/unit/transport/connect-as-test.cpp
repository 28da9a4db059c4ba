// What is done as another user: connecting to a socket of his, and being oneself again behind it.

#include "transport/service/connect-as.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "tests/support/lingering-tcp.h"
#include "tests/unit/transport/connection-fixture.h"
#include "transport/service/acting-as.h"

namespace postern {
namespace {

// T99
TEST_CASE("whoever acts as another user is himself again behind it, groups included") {
  if (geteuid() != 0) return;
  auto groups = [] {
    gid_t list[256];
    int count = getgroups(256, list);
    return kj::strArray(kj::arrayPtr(list, size_t(count)), ",");
  };
  auto before = groups();
  {
    gid_t theirs[] = {12, 34};
    ActingAs acting({65534, 65533}, theirs);
    CHECK(acting.error() == 0);
    CHECK(geteuid() == 65534);
    CHECK(getegid() == 65533);
    CHECK(getuid() == 0);
    CHECK((groups() == "12,34"));
    CHECK(open("/etc/shadow", O_RDONLY | O_CLOEXEC) < 0);
  }
  CHECK(geteuid() == 0);
  CHECK(getegid() == 0);
  CHECK((groups() == before));
  kj::AutoCloseFd shadow(open("/etc/shadow", O_RDONLY | O_CLOEXEC));
  CHECK(shadow.get() >= 0);
}

TEST_CASE("a full listen queue is waited at, as the user, until there is room or the deadline is over") {
  if (geteuid() != 0) return;
  ConnectionFixture test;
  KJ_SYSCALL(chmod(test.dir.path().cStr(), 0755));
  auto path = test.dir.file("x.sock");
  auto target = test.rawListen(path, 0);
  KJ_SYSCALL(chmod(path.cStr(), 0666));
  LocalAddress address = UnixAddress{kj::str(path)};
  kj::Maybe<ServiceUser> nobody = ServiceUser{{65534, 65534}, nullptr};
  auto connect = [&](kj::Duration deadline) { return connectLocalAs(test.port, address, nobody, deadline); };
  auto first = connect(1 * kj::SECONDS).wait(test.scope);
  CHECK(first.is<StrangersFd>());
  auto late = connect(200 * kj::MILLISECONDS).wait(test.scope);
  REQUIRE(late.is<TransportError>());
  CHECK((late.get<TransportError>().text == "its listen queue stayed full"));
  auto waiting = connect(10 * kj::SECONDS).eagerlyEvaluate(nullptr);
  test.port.getTimer().afterDelay(100 * kj::MILLISECONDS).wait(test.scope);
  CHECK(geteuid() == 0);
  test.rawAccept(target);
  auto second = waiting.wait(test.scope);
  REQUIRE(second.is<StrangersFd>());
  test.rawAccept(target);
}

// T92
TEST_CASE("a descriptor that the target sends at once holds up nobody when the connection is given up") {
  ConnectionFixture test;
  auto path = test.dir.file("x.sock");
  auto target = test.rawListen(path);
  postern::test::LingeringTcp lingering;
  auto connecting = kj::heap(connectLocalAs(test.port, UnixAddress{kj::str(path)}, nullptr, 10 * kj::SECONDS));
  pollfd asked{target, POLLIN, 0};
  REQUIRE(poll(&asked, 1, 5000) == 1);
  (void)postern::test::sendAlong(test.rawAccept(target), "x"_kj, lingering);
  auto began = kj::systemPreciseMonotonicClock().now();
  connecting = nullptr;
  test.port.getTimer().afterDelay(100 * kj::MILLISECONDS).wait(test.scope);
  CHECK(kj::systemPreciseMonotonicClock().now() - began < 2 * kj::SECONDS);
}

}  // namespace
}  // namespace postern
