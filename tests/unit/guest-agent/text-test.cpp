// Text of others: bounded-text.h, caller-text.h, inhibitors.h, and the small decisions of the ways to power off.

#include <doctest/doctest.h>

#include <capnp/message.h>
#include <kj/vector.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/broker/auto-endpoint.h"
#include "guest-agent/power/caller-text.h"
#include "guest-agent/power/inhibitors.h"
#include "guest-agent/power/syscall-power.h"
#include "tests/support/temporary-folder.h"

namespace postern::guest::test {
namespace {

TEST_CASE("well-formed UTF-8 stays, everything else becomes question marks, byte for byte") {
  struct {
    kj::StringPtr from, to;
  } cases[] = {
      {"plain", "plain"},
      {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
      {"a\nb\tc\x1b[2J\x7f", "a?b?c?[2J?"},
      {"c1 \xc2\x9b"
       "31m",
       "c1 ?31m"},                                           // CSI in one character
      {"\xc0\xaf \xe0\x80\xaf \xed\xa0\x80", "?? ??? ???"},  // overlong, overlong, surrogate
      {"\xf4\x90\x80\x80 \xf8 \xff", "???? ? ?"},
      {"\xe2\x82", "??"},  // cut
  };
  for (auto& one : cases) {
    CHECK((boundedText(one.from, 100) == one.to));
    CHECK(isBoundedText(one.from, 100) == (one.from == one.to));
  }
  CHECK((boundedLines("a\nb\rc"_kj, 100) == "a\nb?c"));
  CHECK((boundedText(kj::StringPtr("a\0b", 3), 100) == "a?b"));
}

TEST_CASE("text is cut between characters, at any bound") {
  auto text = "gr\xc3\xbc\xc3\x9f \xe2\x82\xac"_kj;
  for (size_t bound = 0; bound <= text.size(); ++bound) {
    auto cut = boundedText(text, bound);
    CHECK(cut.size() <= bound);
    CHECK(cut.size() + 3 > bound);
    CHECK(isBoundedText(cut, bound));
    CHECK(text.startsWith(cut));
  }
  CHECK_FALSE(isBoundedText(text, text.size() - 1));
}

struct CallerMessage {
  capnp::MallocMessageBuilder message;
  schema::Caller::Builder caller = message.initRoot<schema::Caller>();

  kj::Maybe<kj::String> user(kj::StringPtr name, kj::ArrayPtr<const kj::StringPtr> groups, uint32_t uid = 1000) {
    auto user = caller.initUser();
    user.setName(name);
    user.setUid(uid);
    auto list = user.initGroups(unsigned(groups.size()));
    for (unsigned i = 0; i < groups.size(); ++i) list.set(i, groups[i]);
    return callerText(caller);
  }
  kj::Maybe<kj::String> vm(kj::StringPtr name) {
    caller.setVm(name);
    return callerText(caller);
  }
};

TEST_CASE("a caller becomes a line, and the line the same caller again") {
  CallerMessage m;
  CHECK((KJ_REQUIRE_NONNULL(m.user("alice", {"ops", "domain users"})) == "user:alice/group:ops/group:domain users"));
  CHECK((KJ_REQUIRE_NONNULL(m.user("", {}, 4711)) == "uid:4711"));
  CHECK((KJ_REQUIRE_NONNULL(m.vm("web1")) == "vm:web1"));
  auto user = KJ_REQUIRE_NONNULL(parseCallerText("user:alice/group:ops/group:domain users"));
  REQUIRE(user.is<VouchedUser>());
  CHECK((user.get<VouchedUser>().name == "alice"));
  CHECK((kj::strArray(user.get<VouchedUser>().groups, "|") == "ops|domain users"));
  auto uid = KJ_REQUIRE_NONNULL(parseCallerText("uid:4294967295/group:a"));
  CHECK(uid.get<VouchedUser>().uid == 4294967295);
  CHECK(uid.get<VouchedUser>().name.size() == 0);
  CHECK((KJ_REQUIRE_NONNULL(parseCallerText("vm:web1")).get<VouchedVm>().name == "web1"));
}

TEST_CASE("no name in a caller can pretend to be another part of the line") {
  CallerMessage m;
  for (auto name : {"a/group:root", "a:b", "a\nb", "\xff", "/"}) {
    CHECK(m.user(name, {}) == nullptr);
    CHECK(m.user("alice", {name}) == nullptr);
    CHECK(m.vm(name) == nullptr);
  }
  CHECK(m.vm("") == nullptr);
  CHECK(m.user("alice", {""}) == nullptr);
  auto longest = kj::str(kj::repeat('x', MAX_CALLER_NAME_BYTES));
  CHECK(m.user(kj::str(longest, "x"), {}) == nullptr);
  kj::Vector<kj::StringPtr> groups;
  for (size_t i = 0; i < MAX_CALLER_GROUPS; ++i) groups.add(longest);
  auto largest = KJ_REQUIRE_NONNULL(m.user(longest, groups));
  CHECK(largest.size() <= MAX_CALLER_TEXT_BYTES);
  CHECK(parseCallerText(largest) != nullptr);
  groups.add("more");
  CHECK(m.user("alice", groups) == nullptr);
}

TEST_CASE("lines that name no caller are not taken") {
  for (auto line : {"", "alice", "user:", "user:a/", "user:a/ops", "user:a/group:", "user:a//group:b",
                    "vm:", "vm:a/group:b", "vm:a:b", "uid:", "uid:-1", "uid:01", "uid:4294967296", "uid:99999999999",
                    "group:ops", "USER:a", "user:a\x1b", "user:a\n"}) {
    CHECK(parseCallerText(line) == nullptr);
  }
  CHECK(parseCallerText(kj::str("user:a", kj::strArray(kj::heapArray<kj::StringPtr>(66), "/group:b"))) == nullptr);
}

TEST_CASE("inhibitors: who holds off this action, and nothing that the probe's output could add to it") {
  auto names = [](kj::StringPtr output, PowerAction action) {
    return kj::strArray(parseInhibitors(output.asBytes(), action), "|");
  };
  auto output = "shutdown:sleep\tapt\tinstalls\nsleep\tplayer\tplays\nidle\tbrowser\tvideo\nshutdownx\ta\tb\n"_kj;
  CHECK((names(output, PowerAction::SHUTDOWN) == "apt (installs)"));
  CHECK((names(output, PowerAction::RESTART) == "apt (installs)"));
  CHECK((names(output, PowerAction::SUSPEND) == "apt (installs)|player (plays)"));
  CHECK((names("shutdown\te\x1bvil\t\xff\n", PowerAction::SHUTDOWN) == "e?vil (?)"));
  for (auto bad : {"", "\n\n", "shutdown", "shutdown\ta", "shutdown\ta\tb\tc", "\t\t"}) {
    CHECK((names(bad, PowerAction::SHUTDOWN) == ""));
  }
  kj::Vector<kj::String> many;
  for (int i = 0; i < 1000; ++i) many.add(kj::str("shutdown\tp\tq\n"));
  CHECK(parseInhibitors(kj::strArray(many, "").asBytes(), PowerAction::SHUTDOWN).size() == MAX_INHIBITORS);
}

TEST_CASE("a suspend to memory is preferred to a freeze; a kernel that offers neither offers none") {
  CHECK((KJ_REQUIRE_NONNULL(suspendWord("freeze mem disk")) == "mem"));
  CHECK((KJ_REQUIRE_NONNULL(suspendWord("freeze\n")) == "freeze"));
  CHECK((KJ_REQUIRE_NONNULL(suspendWord("mem")) == "mem"));
  for (auto text : {"", "disk", "memory", "xmem freezer", " "}) CHECK(suspendWord(text) == nullptr);
}

TEST_CASE("what is ended before a power-off: living processes but init, ourselves and the kernel's threads") {
  CHECK(isToBeEnded("42 (cat) S 1 42 42 0 -1 4194304 100", 7));
  CHECK(isToBeEnded("42 (evil) Z 1 (x) R 1 42 42 0 -1 4194304 100", 7));
  CHECK_FALSE(isToBeEnded("1 (init) S 0 1 1 0 -1 4194560 100", 7));
  CHECK_FALSE(isToBeEnded("7 (us) S 1 7 7 0 -1 4194560 100", 7));
  CHECK_FALSE(isToBeEnded("2 (kthreadd) S 0 0 0 0 -1 2129984 0", 7));
  CHECK_FALSE(isToBeEnded("42 (dead) Z 1 42 42 0 -1 4194304 100", 7));
  for (auto bad : {"", "42", "42 (x", "42 (x) S", "x (y) S 1 2 3 4 5 6"}) CHECK_FALSE(isToBeEnded(bad, 7));
}

TEST_CASE("auto: the serial port's device, else vsock, else none; looked for each time") {
  postern::test::TemporaryFolder folder;
  auto port = folder.path("port");
  auto vsock = folder.path("vsock");
  CHECK(autoEndpoint(port, vsock) == nullptr);
  CHECK((noEndpoint(port, vsock).startsWith("this guest has no link to its host: neither ")));
  KJ_SYSCALL(symlink("/dev/null", vsock.cStr()));  // a character device, as far as it can be told
  auto second = KJ_REQUIRE_NONNULL(autoEndpoint(port, vsock));
  REQUIRE(second.is<VsockEndpoint>());
  CHECK(second.get<VsockEndpoint>().cid == CID_HOST);
  CHECK(second.get<VsockEndpoint>().port == DEFAULT_PORT);
  KJ_SYSCALL(symlink("/dev/zero", port.cStr()));  // appears later
  auto first = KJ_REQUIRE_NONNULL(autoEndpoint(port, vsock));
  REQUIRE(first.is<SerialEndpoint>());
  CHECK((first.get<SerialEndpoint>().path == port));
  KJ_SYSCALL(unlink(port.cStr()));
  KJ_SYSCALL(mkdir(port.cStr(), 0700));  // no device
  CHECK(KJ_REQUIRE_NONNULL(autoEndpoint(port, vsock)).is<VsockEndpoint>());
}

// As SELinux does, to root as well.
TEST_CASE("auto: a port that this process may not look at is there") {
  postern::test::TemporaryFolder folder;
  auto hidden = folder.path("hidden");
  KJ_SYSCALL(mkdir(hidden.cStr(), 0));
  auto port = kj::str(hidden, "/port");
  auto earlier = setfsuid(65534);
  auto found = autoEndpoint(port, folder.path("vsock"));
  setfsuid(uid_t(earlier));
  CHECK(KJ_REQUIRE_NONNULL(found).is<SerialEndpoint>());
}

}  // namespace
}  // namespace postern::guest::test
