#include "guest-agent/info/info-service.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <string.h>

#include "guest-agent/info/info-check.h"
#include "guest-agent/info/probes.h"
#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

constexpr uint32_t ALL = 1 | 2 | 4 | 8;

void writeMessage(kj::StringPtr path, capnp::MallocMessageBuilder& message) {
  auto words = capnp::messageToFlatArray(message);
  writeFile(path, kj::heapString(words.asChars()), 0644);
}

// A probe program that writes what lies in FOLDER/PART, or does what FOLDER/PART.sh says.
struct InfoLab {
  postern::test::TemporaryFolder answers;
  BrokerLab lab{
      shell(kj::str("f=", answers.path(""), "$0; echo run >> $f.log; if [ -e $f.sh ]; then . $f.sh; fi; exec cat $f"))};
  kj::Own<BrokerClient> client = lab.client();
  kj::String denied;  // a call that policy refuses
  kj::Own<InfoService> service = kj::heap<InfoService>(
      *client, lab.port.getTimer(), kj::arr(kj::str("power.shutdown"), kj::str("info")), 4 * kj::SECONDS);

  InfoLab() {
    capnp::MallocMessageBuilder os, network, filesystems, users;
    auto value = os.initRoot<schema::Info>().initOs().initValue();
    value.setName("Debian");
    value.setBootedSecondsAgo(42);
    auto interface = network.initRoot<schema::Info>().initNetwork().initValue(1)[0];
    interface.setName("eth0");
    interface.initAddresses(1).set(0, "192.0.2.7/24");
    auto disk = filesystems.initRoot<schema::Info>().initFilesystems().initValue(1)[0];
    disk.setMountPoint("/");
    disk.setTotalBytes(1000);
    users.initRoot<schema::Info>().initUsers().initValue(1)[0].setName("alice");
    writeMessage(answers.path("os"), os);
    writeMessage(answers.path("network"), network);
    writeMessage(answers.path("filesystems"), filesystems);
    writeMessage(answers.path("users"), users);
  }
  void script(kj::StringPtr part, kj::StringPtr text) { writeFile(answers.path(kj::str(part, ".sh")), text, 0644); }

  struct Results {
    capnp::MallocMessageBuilder message;
    schema::GuestCalls::InfoResults::Builder results = message.initRoot<schema::GuestCalls::InfoResults>();
    schema::Info::Reader info() { return results.asReader().getInfo(); }
  };
  kj::Promise<void> begin(uint32_t what, Results& into) {
    Decide decide = [this](kj::StringPtr call) -> kj::Maybe<Denial> {
      if (denied != call && denied != "info.*") return nullptr;
      return Denial{kj::str("no rule allows ", call), kj::str("r7"), kj::str("allow ", call)};
    };
    return service->info(what, decide, into.results);
  }
  kj::Own<Results> ask(uint32_t what) {
    auto results = kj::heap<Results>();
    lab.wait(begin(what, *results));
    return results;
  }
};

TEST_CASE("all parts are found out and delivered, with version and features") {
  InfoLab f;
  auto got = f.ask(ALL);
  CHECK_FALSE(got->results.hasRefusal());
  auto info = got->info();
  CHECK((info.getOs().getValue().getName() == "Debian"));
  CHECK(info.getOs().getValue().getBootedSecondsAgo() == 42);
  CHECK((info.getNetwork().getValue()[0].getAddresses()[0] == "192.0.2.7/24"));
  CHECK(info.getFilesystems().getValue()[0].getTotalBytes() == 1000);
  CHECK((info.getUsers().getValue()[0].getName() == "alice"));
  CHECK((info.getAgentVersion() == POSTERN_VERSION));
  CHECK((info.getFeatures()[0] == "power.shutdown"));
}

TEST_CASE("what was not asked for is absent, bits without a meaning are ignored, and nothing asked is nothing found") {
  InfoLab f;
  auto got = f.ask(uint32_t(1) | 0xfffffff0);
  CHECK(got->info().getOs().isValue());
  CHECK(got->info().getUsers().isAbsent());
  CHECK_FALSE(exists(f.answers.path("users.log")));
  auto nothing = f.ask(0);
  CHECK(nothing->info().getOs().isAbsent());
  CHECK_FALSE(nothing->results.hasRefusal());
}

TEST_CASE("a part that policy refuses is marked and not found out; all of them refuse the call") {
  InfoLab f;
  f.denied = kj::str("info.users");
  auto got = f.ask(ALL);
  CHECK(got->info().getOs().isValue());
  REQUIRE(got->info().getUsers().isRefused());
  CHECK((got->info().getUsers().getRefused().getDetail() == "no rule allows info.users"));
  CHECK((got->info().getUsers().getRefused().getRule() == "r7"));
  CHECK_FALSE(got->results.hasRefusal());
  CHECK_FALSE(exists(f.answers.path("users.log")));
  f.denied = kj::str("info.*");
  auto none = f.ask(ALL);
  REQUIRE(none->results.hasRefusal());
  CHECK(none->results.getRefusal().getReason() == schema::Refusal::Reason::DENIED);
}

TEST_CASE("a probe that hangs is marked at its deadline, and the other parts are there") {
  InfoLab f;
  f.script("filesystems", "sleep 60");
  auto begin = kj::systemPreciseMonotonicClock().now();
  auto got = f.ask(ALL);
  CHECK(kj::systemPreciseMonotonicClock().now() - begin < 20 * kj::SECONDS);
  REQUIRE(got->info().getFilesystems().isTimedOut());
  CHECK(got->info().getFilesystems().getTimedOut() >= 3900);
  CHECK(got->info().getOs().isValue());
  CHECK(got->info().getNetwork().isValue());
  CHECK(got->info().getUsers().isValue());
}

TEST_CASE("a probe that crashes, fails, writes garbage, another part, nothing or too much: its part says failed") {
  InfoLab f;
  for (auto script : {"kill -SEGV $$", "exit 1", "echo garbage; exit 0", "head -c 4096 /dev/urandom; exit 0",
                      "head -c 3000000 /dev/zero; exit 0", "exec cat $(dirname $f)/os", "exit 0"}) {
    f.script("users", script);
    auto got = f.ask(1 | 8);
    REQUIRE(got->info().getUsers().isRefused());
    CHECK(got->info().getUsers().getRefused().getReason() == schema::Refusal::Reason::FAILED);
    CHECK(got->info().getOs().isValue());
  }
}

TEST_CASE("calls side by side share one probe, and a dropped call spoils nothing for the others") {
  InfoLab f;
  f.script("os", "sleep 0.3");
  kj::Vector<kj::Own<InfoLab::Results>> results;
  kj::Vector<kj::Promise<void>> calls;
  for (int i = 0; i < 200; ++i) {
    results.add(kj::heap<InfoLab::Results>());
    calls.add(f.begin(1, *results.back()));
  }
  for (int i = 0; i < 100; ++i) calls[size_t(i)] = nullptr;
  for (size_t i = 100; i < 200; ++i) {
    f.lab.wait(kj::mv(calls[i]));
    CHECK(results[i]->info().getOs().isValue());
  }
  kj::AutoCloseFd log(open(f.answers.path("os.log").cStr(), O_RDONLY | O_CLOEXEC));
  CHECK((kj::FdInputStream(log.get()).readAllText() == "run\n"));
  auto next = f.ask(1);  // a later call is answered by a new probe
  CHECK(next->info().getOs().isValue());
}

TEST_CASE("without a broker the call fails, as disconnected") {
  InfoLab f;
  f.script("os", "sleep 60");
  InfoLab::Results results;
  auto call =
      f.begin(1, results)
          .then([] { return false; },
                [](kj::Exception&& exception) { return exception.getType() == kj::Exception::Type::DISCONNECTED; });
  f.lab.turn();
  f.lab.service = nullptr;
  CHECK(f.lab.wait(kj::mv(call)));
}

kj::Array<kj::byte> bytesOf(capnp::MallocMessageBuilder& message) {
  auto words = capnp::messageToFlatArray(message);
  return kj::heapArray(words.asBytes());
}

TEST_CASE("the check bounds lists and texts, and makes texts printable") {
  capnp::MallocMessageBuilder message;
  auto list = message.initRoot<schema::Info>().initNetwork().initValue(100);
  for (auto one : list) {
    one.setName("if\x1b[31m\xff");
    one.initAddresses(30);
  }
  auto checked = KJ_REQUIRE_NONNULL(checkInfo(Probe::NETWORK, bytesOf(message)));
  auto out = checked->getRoot<schema::Info>().getNetwork().getValue();
  REQUIRE(out.size() == MAX_INTERFACES);
  CHECK((out[0].getName() == "if?[31m?"));
  CHECK(out[0].getAddresses().size() == MAX_ADDRESSES);

  capnp::MallocMessageBuilder os;
  os.initRoot<schema::Info>().initOs().initValue().setName(kj::str(kj::repeat('x', 5000)));
  auto checkedOs = KJ_REQUIRE_NONNULL(checkInfo(Probe::OS, bytesOf(os)));
  CHECK(checkedOs->getRoot<schema::Info>().getOs().getValue().getName().size() == MAX_INFO_TEXT);
}

TEST_CASE("the largest answer that a probe can give fits into what the broker takes of its output") {
  capnp::MallocMessageBuilder filesystems, network, users;
  auto longText = [](size_t length) { return kj::str(kj::repeat('x', length)); };
  for (auto one : filesystems.initRoot<schema::Info>().initFilesystems().initValue(MAX_FILE_SYSTEMS)) {
    one.setMountPoint(longText(MAX_INFO_TEXT));
    one.setType(longText(MAX_TYPE_TEXT));
    one.setSource(longText(MAX_SOURCE_TEXT));
  }
  for (auto one : network.initRoot<schema::Info>().initNetwork().initValue(MAX_INTERFACES)) {
    one.setName(longText(15));
    one.setMac(longText(23));
    auto addresses = one.initAddresses(MAX_ADDRESSES);
    for (unsigned i = 0; i < addresses.size(); ++i) addresses.set(i, longText(43));
  }
  for (auto one : users.initRoot<schema::Info>().initUsers().initValue(MAX_USERS)) {
    one.setName(longText(MAX_SHORT_TEXT));
    one.setLine(longText(MAX_SHORT_TEXT));
    one.setHost(longText(MAX_INFO_TEXT));
  }
  CHECK(bytesOf(users).size() <= MAX_CHILD_OUTPUT);
  CHECK(bytesOf(filesystems).size() <= MAX_CHILD_OUTPUT);
  CHECK(bytesOf(network).size() <= MAX_CHILD_OUTPUT);
  CHECK(checkInfo(Probe::FILESYSTEMS, bytesOf(filesystems)) != nullptr);
  CHECK(checkInfo(Probe::NETWORK, bytesOf(network)) != nullptr);
}

TEST_CASE("the check survives every changed byte and every length of a message") {
  capnp::MallocMessageBuilder message;
  auto list = message.initRoot<schema::Info>().initFilesystems().initValue(3);
  for (auto one : list) {
    one.setMountPoint("/mount/point");
    one.setSource("source");
  }
  auto bytes = bytesOf(message);
  unsigned good = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    CHECK(checkInfo(Probe::FILESYSTEMS, bytes.slice(0, i)) == nullptr);
    for (unsigned bit = 0; bit < 8; ++bit) {
      bytes[i] ^= kj::byte(1u << bit);
      good += checkInfo(Probe::FILESYSTEMS, bytes) == nullptr ? 0 : 1;
      bytes[i] ^= kj::byte(1u << bit);
    }
  }
  CHECK(good > 0);
  CHECK(checkInfo(Probe::FILESYSTEMS, bytes) != nullptr);
}

}  // namespace
}  // namespace postern::guest::test
