// The small files of posternd: files.h, the registry, its settings and its policy.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "host/config/config.h"
#include "host/daemon/policy-store.h"
#include "host/files/files.h"
#include "host/registry/registry.h"
#include "tests/unit/host/hub-fixture.h"

namespace postern::host {
namespace {

using postern::test::TemporaryFolder;
using test::DiskFull;

void put(kj::StringPtr path, kj::StringPtr text) {
  kj::AutoCloseFd fd(open(path.cStr(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  REQUIRE((fd != nullptr));
  REQUIRE(write(fd, text.begin(), text.size()) == ssize_t(text.size()));
}
kj::String get(kj::StringPtr path) {
  auto read = readFile(path, 1 << 20);
  return read.is<kj::String>() ? kj::mv(read.get<kj::String>()) : kj::str("error: ", read.get<FileError>().text);
}
bool exists(kj::StringPtr path) {
  return access(path.cStr(), F_OK) == 0;
}
bool says(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

// Files ------------------------------------------------------------------------------------------------------------

TEST_CASE("a file is read whole, up to its bound") {
  TemporaryFolder folder;
  auto path = folder.path("file");
  put(path, "12345678");
  CHECK((readFile(path, 8).get<kj::String>() == "12345678"));
  CHECK(says(readFile(path, 7).get<FileError>().text, "larger than 7"));
  CHECK(says(readFile(folder.path("none"), 8).get<FileError>().text, "none"));
  CHECK(says(readFile(folder.path("."), 8).get<FileError>().text, "is not a file"));
  REQUIRE(mkfifo(folder.path("fifo").cStr(), 0600) == 0);
  CHECK(says(readFile(folder.path("fifo"), 8).get<FileError>().text, "is not a file"));
}

TEST_CASE("replacing a file is done wholly or not at all") {
  TemporaryFolder folder;
  auto path = folder.path("file");
  CHECK((replaceFile(path, "old", 0640) == nullptr));
  struct stat info;
  REQUIRE(stat(path.cStr(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0640);
  {
    DiskFull full;
    auto failed = KJ_REQUIRE_NONNULL(replaceFile(path, "new", 0640));
    CHECK(says(failed.text, "file.new"));
  }
  CHECK((get(path) == "old"));
  CHECK_FALSE(exists(folder.path("file.new")));
  CHECK((replaceFile(path, "new", 0640) == nullptr));
  CHECK((get(path) == "new"));
  CHECK((replaceFile(folder.path("no/such/file"), "x", 0600) != nullptr));
}

TEST_CASE("a symbolic link in the way is not written through") {
  TemporaryFolder folder;
  put(folder.path("precious"), "mine");
  REQUIRE(symlink(folder.path("precious").cStr(), folder.path("file.new").cStr()) == 0);
  CHECK((replaceFile(folder.path("file"), "new", 0600) != nullptr));
  CHECK((get(folder.path("precious")) == "mine"));
  // One in the place of the file itself is replaced.
  REQUIRE(unlink(folder.path("file.new").cStr()) == 0);
  REQUIRE(symlink(folder.path("precious").cStr(), folder.path("file").cStr()) == 0);
  CHECK((replaceFile(folder.path("file"), "new", 0600) == nullptr));
  CHECK((get(folder.path("precious")) == "mine"));
  CHECK((get(folder.path("file")) == "new"));
}

TEST_CASE("a folder is listed in order, without what is hidden or ends otherwise; a missing one is empty") {
  TemporaryFolder folder;
  for (auto name : {"b.toml", "a.toml", ".c.toml", "d.state"}) put(folder.path(name), "");
  auto listed = listFolder(folder.path("."), ".toml");
  auto& names = listed.get<kj::Vector<kj::String>>();
  REQUIRE(names.size() == 2);
  CHECK((names[0] == "a.toml"));
  CHECK(listFolder(folder.path("none"), ".toml").get<kj::Vector<kj::String>>().size() == 0);
  CHECK(listFolder(folder.path("a.toml"), ".toml").is<FileError>());
}

TEST_CASE("folders are made with those above them; a file in the way is said to be one") {
  TemporaryFolder folder;
  CHECK((makeFolder(folder.path("a/b/c"), 0700) == nullptr));
  struct stat info;
  REQUIRE(stat(folder.path("a/b/c").cStr(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0700);
  CHECK((makeFolder(folder.path("a/b/c"), 0755) == nullptr));
  put(folder.path("file"), "");
  CHECK(says(KJ_REQUIRE_NONNULL(makeFolder(folder.path("file"), 0700)).text, "is not a folder"));
}

// Registry ---------------------------------------------------------------------------------------------------------

VmRecord record(kj::StringPtr name, unsigned number, kj::StringPtr transport) {
  VmRecord made;
  made.name = kj::str(name);
  made.uuid.bytes[0] = static_cast<kj::byte>(number);
  made.transport = kj::str(transport);
  return made;
}
Registry::Loaded openRegistry(kj::StringPtr folder) {
  auto opened = Registry::open(folder);
  REQUIRE(opened.is<Registry::Loaded>());
  return kj::mv(opened.get<Registry::Loaded>());
}

TEST_CASE("a VM's record is read as it was written") {
  TemporaryFolder folder;
  auto path = folder.path("vms");
  {
    auto loaded = openRegistry(path);
    auto web = record("web1", 1, "vsock:42");
    web.tags.add(kj::str("prod"));
    web.tags.add(kj::str("eu-1"));
    web.qmp = kj::str("/run/vm/web 1.qmp");
    CHECK((loaded.registry->put(kj::mv(web)) == nullptr));
  }
  auto loaded = openRegistry(path);
  CHECK(loaded.problems.size() == 0);
  auto& web = KJ_REQUIRE_NONNULL(loaded.registry->find("web1"));
  CHECK(web.uuid.bytes[0] == 1);
  CHECK((web.transport == "vsock:42"));
  CHECK(web.tags.size() == 2);
  CHECK((web.qmp == "/run/vm/web 1.qmp"));
}

// T112
TEST_CASE("that a VM's port was blocked by hand is kept over restarts, until it is unblocked") {
  TemporaryFolder folder;
  auto path = folder.path("vms");
  auto put = [&](bool blocked) {
    auto loaded = openRegistry(path);
    auto web = record("web1", 1, "vsock:42");
    web.blocked = blocked;
    CHECK((loaded.registry->put(kj::mv(web)) == nullptr));
  };
  auto stored = [&]() {
    auto loaded = openRegistry(path);
    return KJ_REQUIRE_NONNULL(loaded.registry->find("web1")).clone();
  };
  put(false);
  CHECK_FALSE(stored().blocked);
  put(true);
  CHECK(stored().blocked);
  put(false);
  CHECK_FALSE(stored().blocked);
}

TEST_CASE("each bad record is named and left out, and the others stay") {
  TemporaryFolder folder;
  auto good = "uuid = \"00000000-0000-0000-0000-000000000001\"\ntransport = \"unix:/run/a\"\n"_kj;
  put(folder.path("good.toml"), good);
  struct Bad {
    kj::StringPtr file;
    kj::StringPtr text;
    kj::StringPtr says;
  };
  const Bad BAD[] = {
      {"broken.toml", "uuid = \n", "broken.toml:1"},
      {"nouuid.toml", "transport = \"unix:/run/b\"\n", "uuid"},
      {"baduuid.toml", "uuid = \"1\"\ntransport = \"unix:/run/b\"\n", "not a uuid"},
      {"notransport.toml", "uuid = \"00000000-0000-0000-0000-000000000003\"\n", "notransport.toml"},
      {"badtransport.toml", "uuid = \"00000000-0000-0000-0000-000000000004\"\ntransport = \"tcp:1\"\n", "badtransport"},
      {"hostcid.toml", "uuid = \"00000000-0000-0000-0000-000000000005\"\ntransport = \"vsock:2\"\n", "context id"},
      {"unknown.toml", "uuid = \"00000000-0000-0000-0000-000000000006\"\ntransport = \"unix:/run/c\"\ntag = []\n",
       "tag"},
      {"badtag.toml",
       "uuid = \"00000000-0000-0000-0000-000000000007\"\ntransport = \"unix:/run/d\"\ntags = [\"a b\"]\n", "no tag"},
      {"badqmp.toml", "uuid = \"00000000-0000-0000-0000-000000000008\"\ntransport = \"unix:/run/e\"\nqmp = \"x\"\n",
       "qmp"},
      {"any.toml", "uuid = \"00000000-0000-0000-0000-000000000009\"\ntransport = \"unix:/run/f\"\n", "no name"},
      {"zz twin.toml", good, "no name"},
      {"sameuuid.toml", "uuid = \"00000000-0000-0000-0000-000000000001\"\ntransport = \"unix:/run/g\"\n",
       "uuid is that"},
      {"sameplace.toml", "uuid = \"00000000-0000-0000-0000-00000000000a\"\ntransport = \"unix:/run/a\"\n",
       "transport is that"},
  };
  for (auto& bad : BAD) put(folder.path(bad.file), bad.text);
  put(folder.path("huge.toml"), kj::str("# ", kj::repeat('x', 1 << 20)));
  REQUIRE(mkdir(folder.path("folder.toml").cStr(), 0700) == 0);
  auto loaded = openRegistry(folder.path("."));
  CHECK(loaded.registry->size() == 1);
  CHECK((loaded.registry->find("good") != nullptr));
  CHECK(loaded.problems.size() == std::size(BAD) + 2);
  for (auto& bad : BAD) {
    bool found = false;
    for (auto& problem : loaded.problems) found = found || (says(problem, bad.file) && says(problem, bad.says));
    INFO(bad.file.cStr());
    CHECK(found);
  }
}

TEST_CASE("a uuid, a transport and a context id belong to one VM") {
  TemporaryFolder folder;
  auto loaded = openRegistry(folder.path("vms"));
  auto& registry = *loaded.registry;
  CHECK((registry.put(record("a", 1, "vsock:42")) == nullptr));
  CHECK(says(KJ_REQUIRE_NONNULL(registry.put(record("b", 1, "unix:/run/b"))).text, "uuid is that of VM a"));
  CHECK(says(KJ_REQUIRE_NONNULL(registry.put(record("b", 2, "vsock:42"))).text, "is that of VM a"));
  CHECK(says(KJ_REQUIRE_NONNULL(registry.put(record("b", 2, "vsock:42:1234"))).text, "context id is that of VM a"));
  CHECK((registry.put(record("a", 1, "vsock:43")) == nullptr));  // itself
  CHECK((registry.put(record("b", 2, "vsock:42")) == nullptr));
}

TEST_CASE("what cannot be written changes nothing") {
  TemporaryFolder folder;
  auto path = folder.path("vms");
  auto loaded = openRegistry(path);
  CHECK((loaded.registry->put(record("a", 1, "unix:/run/a")) == nullptr));
  {
    DiskFull full;
    CHECK((loaded.registry->put(record("a", 1, "unix:/run/other")) != nullptr));
    CHECK((loaded.registry->put(record("b", 2, "unix:/run/b")) != nullptr));
  }
  CHECK((KJ_REQUIRE_NONNULL(loaded.registry->find("a")).transport == "unix:/run/a"));
  CHECK((loaded.registry->find("b") == nullptr));
  auto again = openRegistry(path);
  CHECK((KJ_REQUIRE_NONNULL(again.registry->find("a")).transport == "unix:/run/a"));
  CHECK(again.registry->size() == 1);
  for (auto text : {"unix:/run/a'b", "unix:/run/a\nqmp = 'x", ""}) {
    CHECK((loaded.registry->put(record("c", 3, text)) != nullptr));
  }
}

TEST_CASE("removing forgets keys; keys that an unfinished removal left are not the next VM's") {
  TemporaryFolder folder;
  auto path = folder.path("vms");
  auto loaded = openRegistry(path);
  auto& registry = *loaded.registry;
  CHECK((registry.put(record("a", 1, "unix:/run/a")) == nullptr));
  {
    auto state = registry.openState("a");
    REQUIRE(state.is<kj::AutoCloseFd>());
    REQUIRE(write(state.get<kj::AutoCloseFd>(), "keys", 4) == 4);
  }
  struct stat info;
  REQUIRE(stat(kj::str(path, "/a.state").cStr(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
  CHECK((registry.put(record("a", 1, "unix:/run/b")) == nullptr));
  CHECK((get(kj::str(path, "/a.state")) == "keys"));
  CHECK((registry.remove("a") == nullptr));
  CHECK_FALSE(exists(kj::str(path, "/a.state")));
  CHECK_FALSE(exists(kj::str(path, "/a.toml")));
  put(kj::str(path, "/a.state"), "old keys");
  CHECK((registry.put(record("a", 2, "unix:/run/a")) == nullptr));
  CHECK_FALSE(exists(kj::str(path, "/a.state")));
}

TEST_CASE("a state file is never opened through a symbolic link") {
  TemporaryFolder folder;
  auto loaded = openRegistry(folder.path("vms"));
  put(folder.path("precious"), "mine");
  REQUIRE(symlink(folder.path("precious").cStr(), folder.path("vms/a.state").cStr()) == 0);
  CHECK(loaded.registry->openState("a").is<FileError>());
}

// Config -----------------------------------------------------------------------------------------------------------

kj::OneOf<Config, kj::Vector<kj::String>> config(kj::StringPtr text) {
  TemporaryFolder folder;
  put(folder.path("postern.toml"), text);
  return readConfig(folder.path("postern.toml"), Presence::REQUIRED);
}

std::string configProblems(kj::StringPtr text) {
  auto read = config(text);
  if (!read.is<kj::Vector<kj::String>>()) return "";
  return kj::strArray(read.get<kj::Vector<kj::String>>(), "\n").cStr();
}

// T115
TEST_CASE("services of the host are read, with whom a program runs as; what is wrong is named with file and line") {
  auto read = config(R"([service.apt]
target = "tcp:127.0.0.1:3142"
[service.ids]
target = ["/bin/cat"]
user = "root"
[service.x]
target = "unix:/run/x.sock"
proxy = "v2"
)");
  if (geteuid() == 0) {
    REQUIRE(read.is<Config>());
    auto& services = read.get<Config>().services;
    REQUIRE(services.size() == 3);
    CHECK((services[0].target.name == "apt"));
    CHECK((services[0].runAs == nullptr));
    CHECK(KJ_REQUIRE_NONNULL(services[1].runAs).identity.uid == 0);
    CHECK(services[2].target.proxy);
  } else {
    CHECK(says(configProblems("[service.cat]\ntarget = [\"/bin/cat\"]\nuser = \"root\"\n").c_str(),
               "needs a posternd that runs as root"));
  }
  struct {
    const char* text;
    const char* problem;
  } const bad[] = {
      {"\n[service.a]\ntarget = \"unix:/run/a\"\nuser = \"no-such-user-here\"\n", "there is no user no-such-user-here"},
      {"\n[service.a]\ntarget = \"http://x\"\n", "postern.toml:3: "},
      {"\n[service.a]\n", "postern.toml:2: "},
      {"\n[service.a]\ntarget = [\"/bin/cat\"]\n", "postern.toml:2: [service.a] does not say as whom its program runs"},
      {"\n[service.\"a b\"]\ntarget = \"unix:/run/a\"\n", "is no service's name"},
      {"\n[service.a]\ntarget = \"unix:/run/a\"\ntimeout = 5\n", "unknown key 'timeout'"},
      {"\nservice = 5\n", "postern.toml:2: "},
      {"\n[services.a]\ntarget = \"unix:/run/a\"\n", "unknown key 'services'"}};
  for (auto& one : bad) CHECK(says(configProblems(one.text).c_str(), one.problem));
}

TEST_CASE("every setting has a default, and is read where it is written") {
  TemporaryFolder folder;
  auto none = readConfig(folder.path("none"), Presence::OPTIONAL);
  REQUIRE(none.is<Config>());
  CHECK((none.get<Config>().rollback == Config::Rollback::ALLOW));
  CHECK(none.get<Config>().auditFiles == 10);
  CHECK(readConfig(folder.path("none"), Presence::REQUIRED).is<kj::Vector<kj::String>>());
  auto all = config(
      "rollback = \"deny\"\ngroup = \"vmadmins\"\nsession-program = \"/opt/postern-session\"\n"
      "[audit]\nfile-bytes = 65536\nfiles = 3\n[metrics]\nlisten = \"tcp:127.0.0.1:9560\"\n");
  REQUIRE(all.is<Config>());
  auto& read = all.get<Config>();
  CHECK((read.rollback == Config::Rollback::DENY));
  CHECK((read.group == "vmadmins"));
  CHECK((read.sessionProgram == "/opt/postern-session"));
  CHECK(read.auditFileBytes == 65536);
  CHECK(read.auditFiles == 3);
  CHECK(kj::str(KJ_REQUIRE_NONNULL(read.metricsListen)) == "tcp:127.0.0.1:9560");
  CHECK((none.get<Config>().metricsListen == nullptr));
}

TEST_CASE("each bad setting is an error with its file and line; an unknown key names the nearest") {
  struct Bad {
    kj::StringPtr text;
    kj::StringPtr says;
  };
  const Bad BAD[] = {
      {"rollback = \"quarantined\"\n", "postern.toml:1"},
      {"\nrollback = 1\n", "postern.toml:2"},
      {"group = \"a:b\"\n", "group"},
      {"session-program = \"postern-session\"\n", "absolute"},
      {"[audit]\nfile-bytes = 100\n", "65536"},
      {"[audit]\nfile-bytes = -1\n", "postern.toml:2"},
      {"[audit]\nfiles = 1001\n", "1000"},
      {"[audit]\nfile = 3\n", "files"},
      {"roll-back = \"allow\"\n", "rollback"},
      {"[metrics]\nlisten = \"tcp:0.0.0.0:9560\"\n", "postern.toml:2"},
      {"[metrics]\nlisten = \"tcp:192.168.1.1:9560\"\n", "this machine"},
      {"[metrics]\nlisten = \"unix:@metrics\"\n", "abstract"},
      {"[metrics]\nlisten = \"9560\"\n", "postern.toml:2"},
      {"[metrics]\nlisten = 9560\n", "postern.toml:2"},
      {"[metrics]\nlistens = \"tcp:127.0.0.1:9560\"\n", "listen"},
      {"audit = 3\n", "postern.toml:1"},
      {"rollback = \"allow\nx", "postern.toml:1"},
  };
  for (auto& bad : BAD) {
    INFO(bad.text.cStr());
    auto read = config(bad.text);
    REQUIRE(read.is<kj::Vector<kj::String>>());
    bool found = false;
    for (auto& line : read.get<kj::Vector<kj::String>>()) found = found || says(line, bad.says);
    CHECK(found);
  }
  auto two = config("rollback = 1\ngroup = 2\n");
  CHECK(two.get<kj::Vector<kj::String>>().size() == 2);
}

// Policy -----------------------------------------------------------------------------------------------------------

struct PolicyFolders {
  TemporaryFolder folder;
  PolicyStore store{folder.path("policy.d"), folder.path("grants.d")};
  PolicyFolders() { REQUIRE(mkdir(folder.path("policy.d").cStr(), 0700) == 0); }

  void write(kj::StringPtr name, kj::StringPtr text) { put(folder.path(kj::str("policy.d/", name)), text); }
  bool allowsPing() {
    policy::HostCaller alice{"alice", nullptr};
    policy::Request request;
    request.caller = alice;
    request.target = policy::Vm{"web1", nullptr};
    request.call = "ping";
    request.now = kj::UNIX_EPOCH + 1'700'000'000 * kj::SECONDS;
    return store.current().decide(request).isAllowed();
  }
};
constexpr kj::StringPtr PING =
    "policy = 1\n[[allow]]\nid = \"p\"\nfrom = \"user:alice\"\nto = \"web1\"\ncall = [\"ping\"]\n"_kj;

constexpr kj::StringPtr GUEST_HALF = "policy = 1\n[[allow]]\nid = \"grant\"\ncall = [\"ping\"]\n"_kj;

TEST_CASE("a policy that was read counts until another one is good") {
  PolicyFolders p;
  CHECK_FALSE(p.allowsPing());
  CHECK((p.store.reload() == nullptr));
  CHECK_FALSE(p.allowsPing());
  p.write("a.toml", PING);
  CHECK((p.store.reload() == nullptr));
  CHECK(p.allowsPing());
  p.write("b.toml", "policy = 1\n[[allow]]\nfrm = \"host\"\n");
  auto lines = KJ_REQUIRE_NONNULL(p.store.reload());
  CHECK(says(lines[0], "b.toml:"));
  CHECK(p.allowsPing());
  REQUIRE(unlink(p.folder.path("policy.d/b.toml").cStr()) == 0);
  REQUIRE(unlink(p.folder.path("policy.d/a.toml").cStr()) == 0);
  CHECK((p.store.reload() == nullptr));
  CHECK_FALSE(p.allowsPing());
}

TEST_CASE("a policy file that is there and cannot be read keeps the policy that counts") {
  PolicyFolders p;
  p.write("a.toml", PING);
  CHECK((p.store.reload() == nullptr));
  // A name whose file has vanished.
  REQUIRE(symlink(p.folder.path("gone").cStr(), p.folder.path("policy.d/b.toml").cStr()) == 0);
  CHECK(says(KJ_REQUIRE_NONNULL(p.store.reload())[0], "b.toml"));
  CHECK(p.allowsPing());
}

TEST_CASE("grants are written with a policy that is good with them, and taken away with their file") {
  PolicyFolders p;
  CHECK((p.store.putGrants("web1", "nonsense", GUEST_HALF) != nullptr));
  CHECK_FALSE(exists(p.store.grantFile("web1")));
  CHECK((p.store.putGrants("web1", PING, GUEST_HALF) == nullptr));
  CHECK(p.allowsPing());
  CHECK((get(p.store.grantFile("web1")) == PING));
  kj::Vector<kj::String> problems;
  CHECK((p.store.removeGrants("web1", problems) == PING));
  CHECK(problems.size() == 0);
  CHECK_FALSE(p.allowsPing());
  CHECK(p.store.removeGrants("web1", problems).size() == 0);
}

TEST_CASE("the guest's half of grants is kept for its next bundle, as long as the host's half is there") {
  PolicyFolders p;
  CHECK(p.store.guestHalf("web1").size() == 0);
  CHECK((p.store.putGrants("web1", "nonsense", GUEST_HALF) != nullptr));
  CHECK(p.store.guestHalf("web1").size() == 0);
  CHECK((p.store.putGrants("web1", PING, GUEST_HALF) == nullptr));
  CHECK((p.store.guestHalf("web1") == GUEST_HALF));
  CHECK(p.store.guestHalf("web2").size() == 0);
  // It is no policy of the host's.
  CHECK((p.store.reload() == nullptr));
  // The administrator took the grants back by hand.
  REQUIRE(unlink(p.store.grantFile("web1").cStr()) == 0);
  CHECK(p.store.guestHalf("web1").size() == 0);
  CHECK((p.store.putGrants("web1", PING, GUEST_HALF) == nullptr));
  kj::Vector<kj::String> problems;
  p.store.removeGrants("web1", problems);
  CHECK_FALSE(exists(p.store.guestHalfFile("web1")));
}

TEST_CASE("grants that a full disk did not take do not count") {
  PolicyFolders p;
  CHECK((makeFolder(p.folder.path("grants.d"), 0700) == nullptr));
  {
    DiskFull full;
    CHECK((p.store.putGrants("web1", PING, GUEST_HALF) != nullptr));
  }
  CHECK_FALSE(p.allowsPing());
  CHECK((p.store.reload() == nullptr));
  CHECK_FALSE(p.allowsPing());
}

}  // namespace
}  // namespace postern::host
