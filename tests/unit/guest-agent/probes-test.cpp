#include "guest-agent/info/probes.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <string.h>
#include <sys/wait.h>
#include <utmpx.h>

#include "guest-agent/info/os-release.h"
#include "guest-agent/info/probe.h"
#include "guest-agent/info/small-file.h"
#include "tests/unit/guest-agent/broker-fixture.h"

namespace postern::guest::test {
namespace {

struct Found {
  capnp::MallocMessageBuilder message;
  schema::Info::Builder info = message.initRoot<schema::Info>();
  size_t bytes() { return capnp::computeSerializedSizeInWords(message) * sizeof(capnp::word); }
};

TEST_CASE("the os probe tells of this machine, and its machine-id only as a hash of its own") {
  postern::test::TemporaryFolder root;
  for (auto folder : {"etc", "proc", "proc/sys", "proc/sys/kernel", "proc/sys/kernel/random"}) {
    KJ_SYSCALL(mkdir(root.path(folder).cStr(), 0755));
  }
  writeFile(root.path("etc/os-release"), "ID=debian\nPRETTY_NAME=\"Debian \\\"12\\\"\x01\"\nVERSION_ID='12'\n", 0644);
  writeFile(root.path("etc/machine-id"), "0123456789abcdef0123456789abcdef\n", 0644);
  writeFile(root.path("proc/sys/kernel/random/boot_id"), "f0e1d2c3-0000-4000-8000-000000000000\n", 0444);
  KJ_SYSCALL(symlink("/usr/share/zoneinfo/Europe/Zurich", root.path("etc/localtime").cStr()));
  Found found;
  auto os = found.info.initOs().initValue();
  findOsBelow(root.path(""), os);
  CHECK((os.getName() == "Debian \"12\"?"));
  CHECK((os.getId() == "debian"));
  CHECK((os.getVersionId() == "12"));
  CHECK((os.getBootId() == "f0e1d2c3-0000-4000-8000-000000000000"));
  CHECK((os.getTimeZone() == "Europe/Zurich"));
  CHECK(os.getKernel().size() > 0);
  CHECK(os.getArchitecture().size() > 0);
  CHECK(os.getHostName().size() > 0);
  CHECK(os.getBootedSecondsAgo() > 0);
  CHECK(os.getMachineId().size() == 32);
  CHECK((os.getMachineId() != "0123456789abcdef0123456789abcdef"));
  auto first = kj::str(os.getMachineId());
  writeFile(root.path("etc/machine-id"), "0123456789abcdef0123456789abcdee\n", 0644);
  findOsBelow(root.path(""), os);
  CHECK((os.getMachineId() != first));
}

TEST_CASE("the os probe of a system that has none of the files gives what the kernel knows") {
  postern::test::TemporaryFolder root;
  Found found;
  auto os = found.info.initOs().initValue();
  findOsBelow(root.path("nothing"), os);
  CHECK(os.getName().size() == 0);
  CHECK(os.getMachineId().size() == 0);
  CHECK(os.getTimeZone().size() == 0);
  CHECK(os.getKernel().size() > 0);
}

TEST_CASE("os-release: the last line counts, quotes go, and a malformed line harms no other") {
  constexpr auto TEXT =
      "# comment\nID=first\nPRETTY_NAME=\"a \\$b\"\n=\n\nID\nID=\nID=last\nX=\"unterminated\nIDX=no"_kj;
  CHECK((osReleaseValue(TEXT, "ID") == "last"));
  CHECK((osReleaseValue(TEXT, "PRETTY_NAME") == "a $b"));
  CHECK((osReleaseValue(TEXT, "X") == "\"unterminated"));
  CHECK((osReleaseValue(TEXT, "IDX") == "no"));
  CHECK((osReleaseValue(TEXT, "ABSENT") == ""));
  CHECK((osReleaseValue("ID=\"", "ID") == "\""));
}

TEST_CASE("the network probe finds the loopback with its address and prefix") {
  Found found;
  findNetwork(found.info);
  bool loopback = false;
  for (auto one : found.info.getNetwork().getValue()) {
    if (one.getName() != "lo") continue;
    for (auto address : one.getAddresses()) loopback = loopback || address == "127.0.0.1/8";
    CHECK(one.getMac().size() == 17);
  }
  CHECK(loopback);
}

TEST_CASE("the file system probe finds the root, with its size, and no kernel interface") {
  Found found;
  findFilesystems(found.info);
  bool root = false;
  for (auto one : found.info.getFilesystems().getValue()) {
    CHECK((one.getType() != "proc"));
    CHECK((one.getType() != "sysfs"));
    if (one.getMountPoint() != "/") continue;
    root = true;
    CHECK(one.getTotalBytes() > 0);
    CHECK(one.getAvailableBytes() <= one.getTotalBytes());
    CHECK_FALSE(one.getStalled());
  }
  CHECK(root);
}

void addRecord(kj::AutoCloseFd& file, short type, kj::StringPtr user, pid_t pid, kj::byte fill = 0) {
  utmpx record;
  memset(&record, fill, sizeof(record));
  record.ut_type = type;
  record.ut_pid = pid;
  record.ut_tv.tv_sec = int32_t(time(nullptr) - 90);
  if (fill == 0) {
    strncpy(record.ut_user, user.cStr(), sizeof(record.ut_user));
    strncpy(record.ut_line, "tty1", sizeof(record.ut_line));
    strncpy(record.ut_host, "desk", sizeof(record.ut_host));
  }
  kj::FdOutputStream(file.get()).write(&record, sizeof(record));
}

TEST_CASE("the users probe takes logins of living processes, bounded, whatever the records hold") {
  postern::test::TemporaryFolder folder;
  kj::AutoCloseFd file(open(folder.path("utmp").cStr(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  pid_t dead = fork();
  if (dead == 0) _exit(0);
  waitpid(dead, nullptr, 0);
  addRecord(file, BOOT_TIME, "reboot", 1);
  addRecord(file, USER_PROCESS, "gone", dead);
  addRecord(file, DEAD_PROCESS, "left", getpid());
  addRecord(file, USER_PROCESS, "alice", getpid());
  addRecord(file, USER_PROCESS, "", getpid(), 0xff);  // no terminator anywhere, no UTF-8
  for (int i = 0; i < 200; ++i) addRecord(file, USER_PROCESS, "many", getpid());
  kj::FdOutputStream(file.get()).write("half a record", 13);
  Found found;
  findUsersIn(folder.path("utmp"), found.info);
  auto users = found.info.getUsers().getValue();
  REQUIRE(users.size() == MAX_USERS);
  CHECK((users[0].getName() == "alice"));
  CHECK((users[0].getLine() == "tty1"));
  CHECK((users[0].getHost() == "desk"));
  CHECK(users[0].getLoggedInSecondsAgo() >= 90);
  CHECK(users[0].getLoggedInSecondsAgo() < 3600);
  CHECK((users[1].getName() == "????????????????????????????????"));
  CHECK(found.bytes() <= MAX_CHILD_OUTPUT);
  Found none;
  findUsersIn(folder.path("absent"), none.info);
  CHECK(none.info.getUsers().getValue().size() == 0);
}

// runProbe() with its output in a file.
kj::Array<kj::byte> outputOf(kj::StringPtr name, int expectedStatus) {
  postern::test::TemporaryFolder folder;
  pid_t child = fork();
  if (child == 0) {
    int out = open(folder.path("out").cStr(), O_WRONLY | O_CREAT, 0600);
    dup2(out, STDOUT_FILENO);
    _exit(runProbe(name));
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == expectedStatus);
  kj::AutoCloseFd in(open(folder.path("out").cStr(), O_RDONLY | O_CLOEXEC));
  return kj::FdInputStream(in.get()).readAllBytes();
}

TEST_CASE("the hidden program writes each part by its name, and refuses an unknown name with status 64") {
  for (auto probe : {Probe::OS, Probe::NETWORK, Probe::FILESYSTEMS, Probe::USERS}) {
    auto bytes = outputOf(probeName(probe), 0);
    auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
    memcpy(words.begin(), bytes.begin(), bytes.size());
    capnp::FlatArrayMessageReader reader(words);
    auto info = reader.getRoot<schema::Info>();
    CHECK(info.getOs().isValue() == (probe == Probe::OS));
    CHECK(info.getNetwork().isValue() == (probe == Probe::NETWORK));
    CHECK(info.getFilesystems().isValue() == (probe == Probe::FILESYSTEMS));
    CHECK(info.getUsers().isValue() == (probe == Probe::USERS));
  }
  CHECK(outputOf("nonsense", 64).size() == 0);
}

TEST_CASE("a small file is read as far as its bound; a FIFO or a folder in its place is empty and blocks nothing") {
  postern::test::TemporaryFolder folder;
  writeFile(folder.path("file"), "first line\nsecond\n", 0600);
  CHECK((readSmallFile(folder.path("file"), 5) == "first"));
  CHECK((readSmallLine(folder.path("file")) == "first line"));
  KJ_SYSCALL(mkfifo(folder.path("fifo").cStr(), 0600));
  CHECK((readSmallFile(folder.path("fifo")) == ""));
  CHECK((readSmallFile(folder.path(".")) == ""));
  CHECK((readSmallFile(folder.path("absent")) == ""));
}

}  // namespace
}  // namespace postern::guest::test
