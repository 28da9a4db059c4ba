// A file system that is really dead: a FUSE mount of this process's own that takes requests and never answers, so that
// whoever asks it sleeps where no signal reaches him, as with a dead disk or network file system.

#include <errno.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "guest-agent/info/space-survey.h"
#include "tests/unit/guest-agent/broker-fixture.h"
#include "transport/service/connect-as.h"

namespace postern::guest::test {
namespace {

class DeadMount {
 public:
  DeadMount() : fuse(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    // A mount namespace of our own, so that nothing of it is left behind, whatever becomes of the test.
    if (fuse.get() < 0 || unshare(CLONE_NEWNS) < 0) return;
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return;
    auto options = kj::str("fd=", fuse.get(), ",rootmode=40000,user_id=0,group_id=0,allow_other");
    works = mount("dead", folder.path(".").cStr(), "fuse", MS_NOSUID | MS_NODEV, options.cStr()) == 0 && answerInit();
  }
  ~DeadMount() {
    fuse = nullptr;  // whoever waits wakes with an error
    umount2(folder.path(".").cStr(), MNT_DETACH);
  }
  KJ_DISALLOW_COPY(DeadMount);

  bool works = false;
  kj::String path() { return folder.path("."); }
  // Waits until so much has been asked, and takes it: from then on nobody who asked can be killed.
  void takeRequests(size_t count) {
    for (size_t i = 0; i < count; ++i) KJ_SYSCALL(read(fuse, buffer, sizeof(buffer)));
  }

 private:
  postern::test::TemporaryFolder folder;
  kj::AutoCloseFd fuse;
  alignas(8) char buffer[FUSE_MIN_READ_BUFFER + (128 << 10)];

  bool answerInit() {
    if (read(fuse, buffer, sizeof(buffer)) < ssize_t(sizeof(fuse_in_header))) return false;
    struct {
      fuse_out_header header;
      fuse_init_out init;
    } answer{};
    answer.header.len = sizeof(answer);
    answer.header.unique = reinterpret_cast<fuse_in_header*>(buffer)->unique;
    answer.init.major = FUSE_KERNEL_VERSION;
    answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
    answer.init.max_write = 4096;
    return write(fuse, &answer, sizeof(answer)) == sizeof(answer);
  }
};

#define NEEDS_DEAD_MOUNT(dead)                                                   \
  if (!(dead).works) {                                                           \
    MESSAGE("no FUSE, or no right to mount, in this place: nothing was tested"); \
    return;                                                                      \
  }

TEST_CASE("a dead file system is marked as stalled, in time, and the living one is there") {
  DeadMount dead;
  NEEDS_DEAD_MOUNT(dead);
  auto mounts = kj::arr(Mount{dead.path(), kj::str("fuse"), kj::str("dead"), true},
                        Mount{kj::str("/"), kj::str("ext4"), kj::str("/dev/x"), false});
  auto begin = kj::systemPreciseMonotonicClock().now();
  auto spaces = surveySpace(mounts, askSpace, 500 * kj::MILLISECONDS);
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < 3 * kj::SECONDS);
  CHECK(spaces[0].is<Stalled>());
  CHECK(spaces[1].is<Space>());
}

struct ChildrenLab {
  kj::UnixEventPort port;
  kj::EventLoop loop{port};
  kj::WaitScope scope{loop};
  Children children{port, [](kj::StringPtr) {}};

  void turn(kj::Duration time) { port.getTimer().afterDelay(time).wait(scope); }
  kj::Promise<ChildEnd> askSpace(kj::StringPtr path) {
    return children.run({kj::arr(kj::str("/usr/bin/stat"), kj::str("-f"), kj::str(path)), nullptr, nullptr,
                         kj::String(), 3 * kj::SECONDS});
  }
  bool leavesBehind(size_t count) {
    for (int i = 0; i < 200 && (children.running() > 0 || children.leftBehind() != count); ++i) {
      turn(50 * kj::MILLISECONDS);
    }
    return children.running() == 0 && children.leftBehind() == count;
  }
};

TEST_CASE("children that SIGKILL does not end are left behind and counted; at eight nothing new starts until they go") {
  auto dead = kj::heap<DeadMount>();
  NEEDS_DEAD_MOUNT(*dead);
  ChildrenLab lab;
  kj::Vector<kj::Promise<ChildEnd>> asking;
  for (size_t i = 0; i < MAX_LEFT_BEHIND; ++i) asking.add(lab.askSpace(dead->path()).eagerlyEvaluate(nullptr));
  dead->takeRequests(MAX_LEFT_BEHIND);
  for (auto& one : asking) CHECK(one.wait(lab.scope).is<ChildTimedOut>());
  CHECK(lab.leavesBehind(MAX_LEFT_BEHIND));
  auto refused = lab.askSpace("/").wait(lab.scope);
  REQUIRE(refused.is<ChildNotStarted>());
  CHECK((refused.get<ChildNotStarted>().text == "too many processes hang (a dead disk or network file system)"));
  dead = nullptr;
  CHECK(lab.leavesBehind(0));
  CHECK(lab.askSpace("/").wait(lab.scope).is<ChildExited>());
}

// T92
TEST_CASE("a program on a dead file system is given up at the start's deadline, and nothing waits for it") {
  auto dead = kj::heap<DeadMount>();
  NEEDS_DEAD_MOUNT(*dead);
  ChildrenLab lab;
  auto program = kj::str(dead->path(), "/program");
  bool detached = false;
  SUBCASE("") {}
  SUBCASE("detached") {
    detached = true;
  }
  auto begin = kj::systemPreciseMonotonicClock().now();
  auto starting =
      lab.children.start({kj::arr(kj::str(program)), nullptr, nullptr, kj::String(), 1 * kj::MINUTES, detached});
  auto end = starting.end.eagerlyEvaluate(nullptr);
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < 500 * kj::MILLISECONDS);
  dead->takeRequests(1);
  CHECK(lab.askSpace("/").wait(lab.scope).is<ChildExited>());
  auto text = kj::str("cannot start ", program, ": its file system does not answer");
  CHECK((KJ_ASSERT_NONNULL(starting.started.wait(lab.scope)).text == text));
  CHECK((end.wait(lab.scope).get<ChildNotStarted>().text == text));
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < CHILD_START_DEADLINE + 3 * kj::SECONDS);
  CHECK(lab.leavesBehind(1));
  dead = nullptr;
  CHECK(lab.leavesBehind(0));
}

TEST_CASE("the broker's loop and its other requests do not wait for a probe that hangs where no signal reaches it") {
  DeadMount dead;
  NEEDS_DEAD_MOUNT(dead);
  BrokerLab lab(shell(kj::str("case $0 in filesystems) exec stat -f ", dead.path(), ";; *) echo $0;; esac")));
  auto client = lab.client();
  auto hanging = client->probe(Probe::FILESYSTEMS, 2 * kj::SECONDS).eagerlyEvaluate(nullptr);
  lab.turn(50 * kj::MILLISECONDS);  // it is started
  dead.takeRequests(1);
  CHECK(lab.wait(client->probe(Probe::OS, 10 * kj::SECONDS)).is<kj::Array<kj::byte>>());
  CHECK(lab.wait(kj::mv(hanging)).is<ProbeTimedOut>());
}

TEST_CASE("a service's program on a dead file system holds up its own connection, and no other request to the broker") {
  DeadMount dead;
  NEEDS_DEAD_MOUNT(dead);
  BrokerLab lab(shell("echo $0"));
  lab.planService = [&](kj::StringPtr service, kj::StringPtr) {
    ServiceTarget target{kj::str(service), ServiceProgram{kj::arr(kj::str(dead.path(), "/program"))}, nullptr};
    return ServicePlan{kj::mv(target), OpenerUser{kj::str("root"), nullptr, nullptr}};
  };
  auto client = lab.client();
  auto opening = client->openService("x", "user:alice").eagerlyEvaluate(nullptr);
  lab.turn(50 * kj::MILLISECONDS);  // it is being started
  dead.takeRequests(1);
  CHECK(lab.wait(client->probe(Probe::OS, 3 * kj::SECONDS)).is<kj::Array<kj::byte>>());
  auto opened = lab.wait(kj::mv(opening));
  REQUIRE(opened.is<ServiceRefusal>());
  CHECK(opened.get<ServiceRefusal>().kind == ServiceRefusal::Kind::NOT_REACHED);
  CHECK(opened.get<ServiceRefusal>().text.endsWith("its file system does not answer"));
}

TEST_CASE("a service's socket on a dead file system holds up its own connection, not the loop") {
  DeadMount dead;
  NEEDS_DEAD_MOUNT(dead);
  BrokerLab lab;
  LocalAddress address = UnixAddress{kj::str(dead.path(), "/x.sock")};
  kj::Maybe<ServiceUser> root = ServiceUser{{0, 0}, nullptr};
  auto begin = kj::systemPreciseMonotonicClock().now();
  auto connecting = connectLocalAs(lab.port, address, root, 1 * kj::SECONDS).eagerlyEvaluate(nullptr);
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < 500 * kj::MILLISECONDS);
  lab.turn(50 * kj::MILLISECONDS);
  dead.takeRequests(1);
  auto result = lab.wait(kj::mv(connecting));
  CHECK((result.get<TransportError>().text == "its file system does not answer"));
}

TEST_CASE("connections that are given up while a dead file system holds them count: beside eight no other is made") {
  auto dead = kj::heap<DeadMount>();
  NEEDS_DEAD_MOUNT(*dead);
  BrokerLab lab;
  LocalAddress address = UnixAddress{kj::str(dead->path(), "/x.sock")};
  auto connect = [&]() {
    return connectLocalAs(lab.port, address, nullptr, 60 * kj::SECONDS).eagerlyEvaluate(nullptr);
  };
  {
    kj::Vector<decltype(connect())> givenUp;
    for (int i = 0; i < 8; ++i) givenUp.add(connect());
    lab.turn(50 * kj::MILLISECONDS);
    dead->takeRequests(1);  // the others wait for that one's answer
  }
  auto isRefused = [&]() {
    auto next = connect();
    if (!next.poll(lab.scope)) return false;
    auto outcome = next.wait(lab.scope);
    return outcome.get<TransportError>().text.startsWith("connections before it still wait");
  };
  CHECK(isRefused());
  dead = nullptr;
  for (int i = 0; i < 100 && isRefused(); ++i) lab.turn(50 * kj::MILLISECONDS);
  CHECK_FALSE(isRefused());
}

}  // namespace
}  // namespace postern::guest::test
