// The broker's sockets for [[consume]], and their way to the agent.

#include "guest-agent/services/consumer-sockets.h"

#include <kj/async-io.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "guest-agent/agent/briefing.h"
#include "tests/unit/guest-agent/service-stage.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern::guest::test {
namespace {

struct Sockets {
  postern::test::TemporaryFolder folder;
  kj::String unix = folder.path("db.sock");
  ConsumerSockets sockets;

  // Lines of "listen from service mode".
  void configure(kj::StringPtr lines) {
    kj::Vector<kj::String> text;
    kj::StringPtr keys[] = {"listen", "from", "service", "mode"};
    size_t key = 0, begin = 0;
    for (size_t i = 0; i < lines.size(); ++i) {
      if (lines[i] != ' ' && lines[i] != '\n') continue;
      if (key == 0) text.add(kj::str("[[consume]]\n"));
      text.add(kj::str(keys[key++], " = \"", lines.slice(begin, i), "\"\n"));
      begin = i + 1;
      if (lines[i] == '\n') key = 0;
    }
    auto parsed = parseServicesSettings("agent.toml", kj::strArray(text, ""));
    KJ_IF_MAYBE (errors, parsed.tryGet<ServicesErrors>()) KJ_FAIL_REQUIRE("the test's consumers", errors->lines);
    sockets.configure(parsed.get<ServicesSettings>().consumers);
  }
  // "unix:... from service new|known", a line each.
  kj::String briefed() {
    kj::Vector<kj::String> lines;
    for (auto& one : sockets.brief()) {
      lines.add(kj::str(one.listen, ' ', one.from, ' ', one.service, one.socket == nullptr ? " known" : " new"));
    }
    return kj::strArray(lines, "\n");
  }
  bool connects() {
    int fd;
    KJ_SYSCALL(fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    kj::AutoCloseFd own(fd);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, unix.begin(), unix.size());
    return ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  mode_t mode() {
    struct stat about {};
    KJ_SYSCALL(stat(unix.cStr(), &about));
    return about.st_mode & 07777;
  }
};

TEST_CASE("consumers' sockets listen with their mode, and their files are gone at the end") {
  kj::String path;
  {
    Sockets test;
    path = kj::str(test.unix);
    test.configure(kj::str("unix:", path, " db1 postgres 0640\n"));
    CHECK(test.connects());
    CHECK(test.mode() == 0640);
    CHECK(exists(path));
    kj::Vector<ConsumerBriefing> agentsOwn = test.sockets.brief();
    test.configure("");
    CHECK_FALSE(exists(path));
    test.configure(kj::str("unix:", path, " db1 postgres\n"));
    CHECK(test.mode() == DEFAULT_CONSUMER_MODE);
  }
  CHECK_FALSE(exists(path));
}

TEST_CASE("an agent gets what is new to it, and another agent gets all") {
  Sockets test;
  PlainTarget free;
  auto tcp = kj::str(free.address);
  free.socket = nullptr;
  auto first = kj::str("unix:", test.unix, " db1 postgres\n");
  test.configure(first);
  CHECK((test.briefed() == kj::str("unix:", test.unix, " db1 postgres new")));
  test.configure(kj::str(first, tcp, " host apt\n"));
  CHECK((test.briefed() == kj::str(tcp, " host apt new\nunix:", test.unix, " db1 postgres known")));
  test.configure(kj::str("unix:", test.unix, " db2 mysql 0666\n"));
  CHECK((test.briefed() == kj::str("unix:", test.unix, " db2 mysql known")));
  CHECK(test.mode() == 0666);
  test.sockets.agentIsNew();
  CHECK((test.briefed() == kj::str("unix:", test.unix, " db2 mysql new")));
}

TEST_CASE("a port or path that is taken keeps no other from listening, and is tried again at the next reload") {
  Sockets test;
  PlainTarget taken;
  auto file = test.folder.path("a-file");
  writeFile(file, "precious", 0600);
  auto configuration = kj::str(taken.address, " db1 postgres\nunix:", file,
                               " db1 x\nunix:/nonexistent/x db1 y\nunix:", test.unix, " db1 z\n");
  test.configure(configuration);
  CHECK((test.briefed() == kj::str("unix:", test.unix, " db1 z new")));
  CHECK((readFile(file) == "precious"));
  taken.socket = nullptr;
  test.configure(configuration);
  CHECK((test.briefed() == kj::str(taken.address, " db1 postgres new\nunix:", test.unix, " db1 z known")));
}

TEST_CASE("what no descriptor is left for is handed to the agent once there is one, and is not lost") {
  Sockets test;
  PlainTarget free;
  auto tcp = kj::str(free.address);
  free.socket = nullptr;
  auto first = kj::str("unix:", test.unix, " db1 postgres\n");
  test.configure(first);
  test.briefed();
  CHECK(test.sockets.isComplete());
  auto both = kj::str(first, tcp, " host apt\n");
  test.configure(both);
  CHECK(test.sockets.hasNews());
  {
    NoDescriptors none;
    CHECK((test.briefed() == kj::str("unix:", test.unix, " db1 postgres known")));
    CHECK(test.sockets.hasNews());
  }
  CHECK_FALSE(test.sockets.isComplete());
  CHECK((test.briefed() == kj::str(tcp, " host apt new\nunix:", test.unix, " db1 postgres known")));
  CHECK(test.sockets.isComplete());
}

TEST_CASE("a folder that another process has locked, or a port that is taken, is had when it is free") {
  Sockets test;
  PlainTarget taken;
  auto configuration = kj::str(taken.address, " db1 x\nunix:", test.unix, " db1 y\n");
  {
    kj::AutoCloseFd folder(open(test.folder.path("").cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    KJ_SYSCALL(flock(folder, LOCK_EX));
    test.configure(configuration);
    CHECK((test.briefed() == ""));
    CHECK_FALSE(test.sockets.isComplete());
    CHECK_FALSE(test.sockets.hasNews());
  }
  test.configure(configuration);
  CHECK((test.briefed() == kj::str("unix:", test.unix, " db1 y new")));
  CHECK_FALSE(test.sockets.isComplete());
  taken.socket = nullptr;
  test.configure(configuration);
  CHECK((test.briefed() == kj::str(taken.address, " db1 x new\nunix:", test.unix, " db1 y known")));
  CHECK(test.sockets.isComplete());
}

TEST_CASE("a briefing arrives with its services, consumers and sockets, however many come one after the other") {
  auto io = kj::setupAsyncIo();
  auto ends = socketPair(SOCK_STREAM);
  auto broker = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(ends.one));
  auto agent = io.lowLevelProvider->wrapUnixSocketFd(kj::mv(ends.other));
  PlainTarget first, second;
  auto copyOf = [](int fd) {
    int copy;
    KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return kj::AutoCloseFd(copy);
  };
  auto writing = kj::Promise<void>(kj::READY_NOW);
  for (unsigned round = 0; round < 3; ++round) {
    Briefing news;
    news.policy = kj::str("policy = 1 # ", round);
    news.services.add(ExportedService{kj::str("http"), kj::heapArray<kj::byte>({1, 2, kj::byte(round)})});
    bool isNew = round != 1;
    kj::Maybe<kj::AutoCloseFd> one, two;
    if (isNew) one = copyOf(first.socket);
    if (isNew) two = copyOf(second.socket);
    news.consumers.add(ConsumerBriefing{kj::str("a"), kj::str("db1"), kj::str("x"), kj::mv(one)});
    news.consumers.add(ConsumerBriefing{kj::str("b"), kj::str("host"), kj::str("y"), nullptr});
    news.consumers.add(ConsumerBriefing{kj::str("c"), kj::str("db2"), kj::str("z"), kj::mv(two)});
    writing = writing.then([&, news = kj::mv(news)]() mutable { return writeBriefing(*broker, kj::mv(news)); });
  }
  auto written = writing.eagerlyEvaluate(nullptr);
  auto numberOf = [](int fd) {
    struct stat about {};
    KJ_SYSCALL(fstat(fd, &about));
    return about.st_ino;
  };
  for (unsigned round = 0; round < 3; ++round) {
    auto got = readBriefing(*agent).wait(io.waitScope);
    CHECK((got.policy == kj::str("policy = 1 # ", round)));
    REQUIRE(got.services.size() == 1);
    CHECK(got.services[0].identity[2] == round);
    REQUIRE(got.consumers.size() == 3);
    CHECK((got.consumers[2].from == "db2"));
    CHECK((got.consumers[1].socket == nullptr));
    if (round == 1) {
      CHECK((got.consumers[0].socket == nullptr));
    } else {
      CHECK(numberOf(KJ_REQUIRE_NONNULL(got.consumers[0].socket)) == numberOf(first.socket));
      CHECK(numberOf(KJ_REQUIRE_NONNULL(got.consumers[2].socket)) == numberOf(second.socket));
    }
  }
  written.wait(io.waitScope);
  broker = nullptr;
  CHECK_THROWS(readBriefing(*agent).wait(io.waitScope));
}

TEST_CASE("a briefing whose socket did not arrive is none") {
  Briefing news;
  news.consumers.add(ConsumerBriefing{kj::str("a"), kj::str("db1"), kj::str("x"), kj::AutoCloseFd(dup(0))});
  auto bytes = briefingBytes(news);
  CHECK_THROWS(parseBriefing(bytes.slice(4, bytes.size()), {}));
}

}  // namespace
}  // namespace postern::guest::test
