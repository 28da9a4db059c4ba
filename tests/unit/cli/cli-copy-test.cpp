// postern cp between a folder here and a guest that is a folder, with real openers at both ends.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;
using transfer::ProblemKind;

namespace {

namespace fs = std::filesystem;

void write(kj::StringPtr path, kj::StringPtr text) {
  fs::create_directories(fs::path(path.cStr()).parent_path());
  std::ofstream(path.cStr(), std::ios::binary) << text.cStr();
}
std::string read(kj::StringPtr path) {
  std::stringstream all;
  all << std::ifstream(path.cStr(), std::ios::binary).rdbuf();
  return all.str();
}
bool exists(kj::StringPtr path) {
  return fs::exists(fs::symlink_status(path.cStr()));
}

// Larger than what travels within an entry.
kj::String large(char c) {
  return kj::str(kj::repeat(c, 3'000'000));
}

void makeTree(kj::StringPtr top) {
  write(kj::str(top, "/index.html"), "hello");
  write(kj::str(top, "/img/a.png"), "png");
  write(kj::str(top, "/img/big"), large('b'));
  fs::create_directory(fs::path(top.cStr()) / "empty");
  fs::create_symlink("img/a.png", fs::path(top.cStr()) / "link");
}
void checkTree(kj::StringPtr top) {
  CHECK((read(kj::str(top, "/index.html")) == "hello"));
  CHECK((read(kj::str(top, "/img/a.png")) == "png"));
  CHECK((read(kj::str(top, "/img/big")) == large('b').cStr()));
  CHECK(fs::is_directory(fs::path(top.cStr()) / "empty"));
  CHECK((fs::read_symlink(fs::path(top.cStr()) / "link") == "img/a.png"));
}

}  // namespace

TEST_CASE("a file goes into a VM and comes back, and in a pipe nothing is said of it") {
  CliWorld world;
  write(world.here("a"), "content");
  CHECK(world.run({"cp", "a", "web1:/b"}) == ExitStatus::DONE);
  CHECK((read(world.guest("b")) == "content"));
  CHECK_TEXT(world.control.opened[0], "web1 file.put /b");
  CHECK(world.run({"cp", "web1:/b", "c"}) == ExitStatus::DONE);
  CHECK((read(world.here("c")) == "content"));
  CHECK_TEXT(world.control.opened[1], "web1 file.get /b");
  CHECK_TEXT(world.output(), "");
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("a tree goes into a VM and comes back as what it was") {
  CliWorld world;
  makeTree(world.here("site"));
  CHECK(world.run({"cp", "-r", "site", "web1:/www"}) == ExitStatus::DONE);
  checkTree(world.guest("www"));
  CHECK(world.run({"cp", "-a", "web1:/www", "back"}) == ExitStatus::DONE);
  checkTree(world.here("back"));
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("a directory that is there is gone into, on either side") {
  CliWorld world;
  makeTree(world.here("site"));
  fs::create_directory(world.guest("srv").cStr());
  CHECK(world.run({"cp", "-r", "site", "web1:/srv"}) == ExitStatus::DONE);
  checkTree(world.guest("srv/site"));
  fs::create_directory(world.here("back").cStr());
  CHECK(world.run({"cp", "-r", "web1:/srv/site", "back"}) == ExitStatus::DONE);
  checkTree(world.here("back/site"));
  CHECK(world.run({"cp", "-r", "web1:/srv/site", "."}) == ExitStatus::DONE);
}

TEST_CASE("what is in a directory goes into the destination itself") {
  CliWorld world;
  makeTree(world.here("site"));
  fs::create_directory(world.guest("www").cStr());
  CHECK(world.run({"cp", "-r", "site/.", "web1:/www"}) == ExitStatus::DONE);
  checkTree(world.guest("www"));
  fs::create_directory(world.here("back").cStr());
  CHECK(world.run({"cp", "-r", "web1:/www/.", "back"}) == ExitStatus::DONE);
  checkTree(world.here("back"));
}

TEST_CASE("several sources and a slash at the end want a directory, and get all of them") {
  CliWorld world;
  write(world.here("a"), "1");
  write(world.here("b"), "2");
  CHECK(world.run({"cp", "a", "b", "web1:/no"}) == ExitStatus::FAILED);
  CHECK(world.session.guest.orders[0].intoDirectory);
  CHECK(contains(world.errors(), "postern: web1:/no: "));
  fs::create_directory(world.guest("in").cStr());
  CHECK(world.run({"cp", "a", "b", "web1:/in"}) == ExitStatus::DONE);
  CHECK((read(world.guest("in/b")) == "2"));
  CHECK(world.run({"cp", "a", "web1:/in/"}) == ExitStatus::DONE);
  CHECK(world.run({"cp", "web1:/in/a", "web1:/in/b", "a"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: a: is not a directory\npostern: a: is not a directory\n");
  fs::create_directory(world.here("d").cStr());
  CHECK(world.run({"cp", "web1:/in/a", "web1:/in/b", "d"}) == ExitStatus::DONE);
  CHECK((read(world.here("d/b")) == "2"));
}

TEST_CASE("the name that a guest gives to what it sends counts for nothing") {
  CliWorld world;
  write(world.guest("asked"), "x");
  fs::create_directory(world.here("d").cStr());
  CHECK(world.run({"cp", "web1:/asked", "d"}) == ExitStatus::DONE);
  CHECK(exists(world.here("d/asked")));
  CHECK(world.run({"cp", "web1:/asked", "d/other"}) == ExitStatus::DONE);
  CHECK(exists(world.here("d/other")));
}

TEST_CASE("standard input becomes a file, and a file standard output") {
  CliWorld world;
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  world.input = kj::AutoCloseFd(ends[0]);
  kj::Thread writer([end = kj::AutoCloseFd(ends[1])]() {
    auto text = large('i');
    KJ_ASSERT(::write(end, text.begin(), text.size()) == static_cast<ssize_t>(text.size()));
  });
  CHECK(world.run({"cp", "-", "web1:/dump"}) == ExitStatus::DONE);
  CHECK((read(world.guest("dump")) == large('i').cStr()));

  world.outputFile = kj::AutoCloseFd(open(world.here("out").cStr(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  CHECK(world.run({"cp", "web1:/dump", "-"}) == ExitStatus::DONE);
  CHECK((read(world.here("out")) == large('i').cStr()));
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("a device here is written to, and never replaced") {
  CliWorld world;
  write(world.guest("a"), large('a'));
  CHECK(world.run({"cp", "web1:/a", "/dev/null"}) == ExitStatus::DONE);
  CHECK(fs::is_character_file("/dev/null"));
  CHECK(world.run({"cp", "-r", "web1:/a", "/dev/null"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: /dev/null: is not a directory\n");
}

TEST_CASE("what was asked for arrives at the guest") {
  CliWorld world;
  write(world.here("a"), "1");
  CHECK(world.run({"cp", "-a", "--resume", "--no-clobber", "--verify", "--sparse", "never", "--limit", "3 MB/s", "a",
                   "web1:/b"}) == ExitStatus::DONE);
  auto& order = world.session.guest.orders[0];
  CHECK((order.archive && order.recursive && order.resume && order.noClobber && order.verify));
  CHECK(order.sparse == schema::FileOrder::Sparse::NEVER);
  CHECK(order.rate == 3'000'000);
}

TEST_CASE("--json is one document with totals, summary and failures") {
  CliWorld world;
  makeTree(world.here("site"));
  CHECK(world.run({"cp", "-r", "site", "web1:/www", "--json"}) == ExitStatus::DONE);
  auto document = JsonReader::read(world.output());
  CHECK(document["ok"].flag());
  CHECK(document["totals"]["files"].number() == 4);
  CHECK(document["totals"]["directories"].number() == 3);
  CHECK(document["summary"]["files"].number() == 4);
  CHECK(document["summary"]["bytes"].number() > 3'000'000);
  CHECK(document["failureCount"].number() == 0);
  CHECK(document["exitStatus"].number() == 0);
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("no such file, a directory without -r, and what is no directory, are told before anybody is asked") {
  CliWorld world;
  write(world.here("f"), "x");
  fs::create_directory(world.here("d").cStr());
  CHECK(world.run({"cp", "nothing", "web1:/x"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: nothing: no such file or directory\n");
  CHECK(world.run({"cp", "d", "web1:/x"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: d: is a directory (use -r)\n");
  CHECK(world.run({"cp", "f/", "web1:/x"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: f/: is not a directory\n");
  CHECK(world.run({"cp", "web1:/d/", "x"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: web1:/d/: is a directory (use -r)\n");
  CHECK(world.run({"cp", "web1:/x", "no/x"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: no/x: its directory is not there\n");
  CHECK(world.control.opened.empty());
}

TEST_CASE("what a guest does not have, or has as a directory, fails with one line") {
  CliWorld world;
  fs::create_directory(world.guest("d").cStr());
  CHECK(world.run({"cp", "web1:/nothing", "x"}) == ExitStatus::FAILED);
  CHECK(world.errors().startsWith("postern: web1:/nothing: "));
  CHECK(contains(world.errors(), "o such file or directory\n"));
  CHECK(world.run({"cp", "web1:/d", "x"}) == ExitStatus::FAILED);
  CHECK(world.errors().startsWith("postern: web1:/d: "));
  CHECK(contains(world.errors(), "directory"));
  CHECK(!exists(world.here("x")));
}

TEST_CASE("a source that is missing does not keep the others from going") {
  CliWorld world;
  write(world.here("a"), "1");
  fs::create_directory(world.guest("in").cStr());
  CHECK(world.run({"cp", "nothing", "a", "web1:/in"}) == ExitStatus::FAILED);
  CHECK_TEXT(world.errors(), "postern: nothing: no such file or directory\n");
  CHECK(exists(world.guest("in/a")));
}

TEST_CASE("an entry that cannot be made is told by name, and the rest of the tree arrives") {
  CliWorld world;
  makeTree(world.here("site"));
  write(world.guest("www/index.html/in-the-way"), "a directory where a file shall be");
  CHECK(world.run({"cp", "-r", "site/.", "web1:/www"}) == ExitStatus::FAILED);
  CHECK(world.errors().startsWith("postern: site/index.html: "));
  CHECK((read(world.guest("www/img/big")) == large('b').cStr()));
  CHECK(!contains(world.errors(), "--resume"));  // it was not cut off
  CHECK(world.run({"cp", "-r", "site/.", "web1:/www", "--json"}) == ExitStatus::FAILED);
  auto document = JsonReader::read(world.output());
  CHECK(!document["ok"].flag());
  CHECK(document["failureCount"].number() == 1);
  CHECK_TEXT(document["failures"].at(0)["path"].text(), "site/index.html");
  CHECK_TEXT(document["failures"].at(0)["kind"].text(), "is-directory");
}

TEST_CASE("failures are listed up to a bound, and counted beyond it") {
  CliWorld world;
  for (int i = 0; i < 30; ++i) {
    write(world.here(kj::str("site/", i)), "x");
    fs::create_directories(world.guest(kj::str("www/", i, "/in-the-way")).cStr());
  }
  CHECK(world.run({"cp", "-r", "site/.", "web1:/www"}) == ExitStatus::FAILED);
  size_t lines = 0;
  for (char c : world.errors()) lines += c == '\n';
  CHECK(lines == 21);
  CHECK(contains(world.errors(), "postern: and 10 more\n"));
}

TEST_CASE("--no-clobber leaves what is there, and fails") {
  CliWorld world;
  write(world.here("a"), "new");
  write(world.guest("a"), "old");
  CHECK(world.run({"cp", "--no-clobber", "a", "web1:/a"}) == ExitStatus::FAILED);
  CHECK((read(world.guest("a")) == "old"));
  CHECK(world.errors().startsWith("postern: a: "));
  CHECK(world.run({"cp", "--force", "a", "web1:/a"}) == ExitStatus::DONE);
  CHECK((read(world.guest("a")) == "new"));
}

TEST_CASE("a denial by the host's policy is told as of every command") {
  CliWorld world;
  write(world.here("a"), "x");
  world.control.denied.add(kj::str("/etc/a"));
  CHECK(world.run({"cp", "a", "web1:/etc/a"}) == ExitStatus::DENIED);
  CHECK(contains(world.errors(), "postern: web1: file.put: denied: no rule allows it (the host's policy)\n"));
  CHECK(contains(world.errors(), "to allow it, in a file of the host's /etc/postern/policy.d:\n  [[allow]]\n"));
}

TEST_CASE("every way in which a copy as a whole may fail has its exit status and its line") {
  struct Case {
    ProblemKind kind;
    kj::StringPtr detail;
    ExitStatus status;
  };
  for (auto& one :
       {Case{ProblemKind::DENIED, "denied by rule x", ExitStatus::DENIED},
        Case{ProblemKind::PERMISSION, "/b: cannot be opened: permission denied for user www-data", ExitStatus::FAILED},
        Case{ProblemKind::NO_SPACE, "the disk is full", ExitStatus::FAILED},
        Case{ProblemKind::QUOTA, "more than max-bytes", ExitStatus::FAILED},
        Case{ProblemKind::UNSUPPORTED, "is a socket", ExitStatus::REFUSED},
        Case{ProblemKind::BUSY, "another transfer writes to it", ExitStatus::REFUSED},
        Case{ProblemKind::PROTOCOL, "", ExitStatus::FAILED}}) {
    CliWorld world;
    write(world.here("a"), "x");
    world.session.guest.instead = [&](FakeGuest::Context& context) -> kj::Maybe<kj::Promise<void>> {
      answer(context, one.kind, one.detail);
      return kj::Promise<void>(kj::READY_NOW);
    };
    CHECK(world.run({"cp", "a", "web1:/b"}) == one.status);
    auto detail = one.detail.startsWith("/b: ") ? one.detail.slice(4)
                  : one.detail.size() == 0      ? "protocol"_kj
                                                : one.detail;
    CHECK_TEXT(world.errors(), kj::str("postern: web1:/b: ", detail, '\n'));
  }
}

TEST_CASE("a problem that names a path below the one that was asked for is told of that path") {
  CliWorld world;
  write(world.here("a"), "x");
  world.session.guest.instead = [](FakeGuest::Context& context) -> kj::Maybe<kj::Promise<void>> {
    answer(context, ProblemKind::DENIED, "/srv/a: denied by rule 'nokey' of the host's policy");
    return kj::Promise<void>(kj::READY_NOW);
  };
  CHECK(world.run({"cp", "a", "web1:/srv"}) == ExitStatus::DENIED);
  CHECK_TEXT(world.errors(), "postern: web1:/srv/a: denied by rule 'nokey' of the host's policy\n");
}

TEST_CASE("failures of the session, of the VM and of the guest's policy have their exit statuses") {
  using Kind = hs::Failure::Kind;
  struct Case {
    Kind kind;
    ExitStatus status;
  };
  for (auto& one : {Case{Kind::FAILED, ExitStatus::FAILED}, Case{Kind::DENIED, ExitStatus::DENIED},
                    Case{Kind::NOT_CONNECTED, ExitStatus::NOT_CONNECTED}, Case{Kind::TIMED_OUT, ExitStatus::TIMED_OUT},
                    Case{Kind::REFUSED, ExitStatus::REFUSED}}) {
    CliWorld world;
    write(world.here("a"), "x");
    world.session.behaviour.mode = Behaviour::Mode::FAIL;
    world.session.behaviour.kind = one.kind;
    CHECK(world.run({"cp", "a", "web1:/b"}) == one.status);
    CHECK(world.errors().startsWith("postern: web1: it does not work"));
    CHECK(world.run({"cp", "web1:/b", "b"}) == one.status);
    CHECK(world.run({"ls", "web1:/b"}) == one.status);
    CHECK(world.run({"rm", "web1:/b"}) == one.status);
  }
  CliWorld world;
  write(world.here("a"), "x");
  world.control.unknown.add(kj::str("web1"));
  world.control.offline.add(kj::str("db1"));
  CHECK(world.run({"cp", "a", "web1:/b"}) == ExitStatus::USAGE);
  CHECK_TEXT(world.errors(), "postern: web1: unknown VM\n");
  CHECK(world.run({"cp", "a", "db1:/b"}) == ExitStatus::NOT_CONNECTED);
  world.notRunning = true;
  CHECK(world.run({"cp", "a", "web1:/b"}) == ExitStatus::FAILED);
}

TEST_CASE("a VM that goes in the middle of a copy: posternd says why, and a line how to go on") {
  CliWorld world;
  write(world.here("a b"), large('a'));
  write(world.guest("old"), "old");
  world.session.guest.relay.vanishInFile = true;
  world.session.guest.whenVanished = [&]() {
    world.control.offline.add(kj::str("web1"));
    world.session.behaviour.vanish();
    return kj::NEVER_DONE;
  };
  CHECK(world.run({"cp", "a b", "web1:/old"}) == ExitStatus::NOT_CONNECTED);
  CHECK(contains(world.errors(), "postern: web1: not connected (last heartbeat 42 s ago)"));
  CHECK(contains(world.errors(), "postern: to go on: postern cp --resume 'a b' web1:/old\n"));
  CHECK((read(world.guest("old")) == "old"));
}

TEST_CASE("Ctrl-C ends a copy at once, the destination is what it was, and a line says how to go on") {
  CliWorld world;
  write(world.guest("big"), large('n'));
  write(world.here("big"), "old");
  world.session.guest.relay.vanishInFile = true;
  world.session.guest.whenVanished = [&]() {
    world.interruptNow();
    return kj::NEVER_DONE;
  };
  CHECK(world.run({"cp", "--verify", "--limit", "20 MiB/s", "web1:/big", "big"}) == ExitStatus::INTERRUPTED);
  CHECK_TEXT(world.errors(),
             "postern: interrupted; what is whole is there, and of the rest what was there before; "
             "to go on: postern cp --resume --verify --limit 20MiB/s web1:/big big\n");
  CHECK((read(world.here("big")) == "old"));
}

TEST_CASE("Ctrl-C while standard input gives nothing ends the copy, too") {
  CliWorld world;
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  kj::AutoCloseFd writeEnd(ends[1]);
  world.input = kj::AutoCloseFd(ends[0]);
  world.interruptAfter(100 * kj::MILLISECONDS);
  CHECK(world.run({"cp", "-", "web1:/x"}) == ExitStatus::INTERRUPTED);
  CHECK(!exists(world.guest("x")));
}

TEST_CASE("with --timeout, a copy of which nothing moves times out") {
  CliWorld world;
  write(world.here("a"), "x");
  world.session.guest.instead = [](FakeGuest::Context&) -> kj::Maybe<kj::Promise<void>> {
    return kj::Promise<void>(kj::NEVER_DONE);
  };
  CHECK(world.run({"cp", "--timeout", "300ms", "a", "web1:/b"}) == ExitStatus::TIMED_OUT);
  CHECK(contains(world.errors(), "postern: web1: nothing moved for 0.3 s\n"));
}

TEST_CASE("on a terminal a line shows progress, is gone at the end, and what was done is said") {
  CliWorld world;
  world.terminal = true;
  makeTree(world.here("site"));
  CHECK(world.run({"cp", "-r", "site", "web1:/www"}) == ExitStatus::DONE);
  CHECK(contains(world.errors(), "\r\033[K"));
  CHECK(contains(world.errors(), "4 files, 2.9 MiB in "));
  CHECK_TEXT(world.output(), "");
  CHECK(world.run({"cp", "-r", "site", "web1:/www2", "--json"}) == ExitStatus::DONE);
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("from VM to VM the bytes pass through a private folder that is gone afterwards") {
  CliWorld world;
  makeTree(world.guest("site"));
  CHECK(world.run({"cp", "-r", "web1:/site", "db1:/copy"}) == ExitStatus::DONE);
  checkTree(world.guest("copy"));
  CHECK_TEXT(world.control.opened[0], "web1 file.get /site");
  CHECK_TEXT(world.control.opened[1], "db1 file.put /copy");
  fs::create_directory(world.guest("in").cStr());
  CHECK(world.run({"cp", "web1:/site/index.html", "db1:/in"}) == ExitStatus::DONE);
  CHECK(exists(world.guest("in/index.html")));
  CHECK(world.run({"cp", "-r", "web1:/site/.", "db1:/in"}) == ExitStatus::DONE);
  checkTree(world.guest("in"));
  CHECK(fs::is_empty(world.folder.path("tmp").cStr()));
}

TEST_CASE("from VM to VM, what either policy denies is not carried out, and a full disk names the folder") {
  CliWorld world;
  write(world.guest("a"), "x");
  world.control.denied.add(kj::str("/b"));
  CHECK(world.run({"cp", "web1:/a", "db1:/b"}) == ExitStatus::DENIED);
  world.session.guest.instead = [](FakeGuest::Context& context) -> kj::Maybe<kj::Promise<void>> {
    answer(context, ProblemKind::NO_SPACE, "the disk is full");
    return kj::Promise<void>(kj::READY_NOW);
  };
  CHECK(world.run({"cp", "web1:/a", "db1:/c"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), kj::str("the disk is full (it passes through ", world.folder.path("tmp"))));
  CHECK(fs::is_empty(world.folder.path("tmp").cStr()));
}

TEST_CASE("names of any bytes travel, and are printable where they are shown") {
  CliWorld world;
  kj::StringPtr name = "\377\n\033[2J x";
  write(world.here(name), "x");
  fs::create_directory(world.guest("in").cStr());
  CHECK(world.run({"cp", name, "web1:/in"}) == ExitStatus::DONE);
  CHECK(exists(kj::str(world.guest("in"), "/", name)));
  CHECK(world.run({"cp", "--no-clobber", name, "web1:/in"}) == ExitStatus::FAILED);
  CHECK(world.errors().startsWith("postern: \\377\\n\\033[2J x: "));
}
