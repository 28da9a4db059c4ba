// Whatever posternd and a session do, postern ends with the right status and one line, or one JSON document.

#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;
using Kind = hs::Failure::Kind;
using Mode = Behaviour::Mode;

namespace {

struct KindStatus {
  Kind kind;
  ExitStatus status;
  kj::StringPtr word;
};
const KindStatus KINDS[] = {{Kind::FAILED, ExitStatus::FAILED, "failed"_kj},
                            {Kind::INVALID, ExitStatus::USAGE, "invalid"_kj},
                            {Kind::DENIED, ExitStatus::DENIED, "denied"_kj},
                            {Kind::NOT_CONNECTED, ExitStatus::NOT_CONNECTED, "not-connected"_kj},
                            {Kind::TIMED_OUT, ExitStatus::TIMED_OUT, "timed-out"_kj},
                            {Kind::REFUSED, ExitStatus::REFUSED, "refused"_kj},
                            {Kind::LAPSED, ExitStatus::FAILED, "lapsed"_kj}};

using Words = std::initializer_list<kj::StringPtr>;
// Commands whose first call goes to posternd, or to a session.
const Words TO_POSTERND[] = {{"ping", "web1"},
                             {"info", "web1"},
                             {"enroll", "web1", "--transport", "serial:/x"},
                             {"vm", "show", "web1"},
                             {"vm", "set", "web1", "--tag", "a"},
                             {"vm", "remove", "web1"},
                             {"vm", "rekey", "web1"},
                             {"shutdown", "web1"},
                             {"policy", "explain", "--to", "web1", "--call", "ping"},
                             {"policy", "reload"},
                             {"audit", "tail"},
                             {"connect", "web1", "ssh"},
                             {"forward", "web1", "tcp:127.0.0.1:0", "ssh"},
                             {"services", "web1"},
                             {"channel", "list"},
                             {"channel", "stats"},
                             {"channel", "block", "web1"},
                             {"channel", "close", "7"}};
const Words TO_SESSION[] = {
    {"ping", "web1"}, {"info", "web1"}, {"shutdown", "web1"}, {"restart", "web1", "--wait"}, {"services", "web1"}};

size_t linesOf(kj::StringPtr text) {
  size_t lines = 0;
  for (char c : text) lines += c == '\n';
  return lines;
}

}  // namespace

TEST_CASE("each kind of failure of posternd has its exit status and one line, in every command") {
  for (auto& words : TO_POSTERND) {
    for (auto& kind : KINDS) {
      CliWorld world;
      world.control.behaviour.mode = Mode::FAIL;
      world.control.behaviour.kind = kind.kind;
      CHECK(world.run(words) == kind.status);
      CHECK(contains(world.errors(), "postern: "));
      CHECK(contains(world.errors(), "it does not work"));
      CHECK(linesOf(world.errors()) == 1);
      CHECK_TEXT(world.output(), "");
    }
  }
}

TEST_CASE("each kind of failure of a session has its exit status and one line with the VM's name") {
  for (auto& words : TO_SESSION) {
    for (auto& kind : KINDS) {
      CliWorld world;
      world.session.behaviour.mode = Mode::FAIL;
      world.session.behaviour.kind = kind.kind;
      CHECK(world.run(words) == kind.status);
      CHECK(contains(world.errors(), "postern: web1: it does not work"));
      CHECK(linesOf(world.errors()) == 1);
    }
  }
}

TEST_CASE("with --json a failure is one document on stdout with its kind, and nothing on stderr") {
  for (auto& kind : KINDS) {
    CliWorld world;
    world.control.behaviour.mode = Mode::FAIL;
    world.control.behaviour.kind = kind.kind;
    world.control.behaviour.text = "bad \033[2J \377 \"quoted\"\n";
    CHECK(world.run({"ping", "web1", "--json"}) == kind.status);
    CHECK_TEXT(world.errors(), "");
    CHECK(linesOf(world.output()) == 1);
    auto document = JsonReader::read(world.output());
    CHECK(!document["ok"].flag());
    CHECK_TEXT(document["error"]["kind"].text(), kind.word);
    CHECK(document["exitStatus"].number() == static_cast<int>(kind.status));
  }
}

TEST_CASE("with --json a bad command line is a document, too") {
  CliWorld world;
  CHECK(world.run({"statsu", "--json"}) == ExitStatus::USAGE);
  CHECK_TEXT(JsonReader::read(world.output())["error"]["kind"].text(), "invalid");
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("a denial names rule, lock and suggestion, as text and as JSON") {
  CliWorld world;
  world.session.behaviour.mode = Mode::FAIL;
  world.session.behaviour.kind = Kind::DENIED;
  world.session.behaviour.lock = hs::Failure::Lock::GUEST;
  world.session.behaviour.text = "ping is denied";
  world.session.behaviour.rule = "quiet";
  world.session.behaviour.suggestion = "[[allow]]\nid = \"pings\"";
  CHECK(world.run({"ping", "web1"}) == ExitStatus::DENIED);
  CHECK_TEXT(world.errors(),
             "postern: web1: ping is denied (denied by rule 'quiet'; the guest's policy)\n"
             "to allow it, in the guest's /etc/postern/agent.toml:\n"
             "  [[allow]]\n  id = \"pings\"\n");
  CHECK(world.run({"ping", "web1", "--json"}) == ExitStatus::DENIED);
  auto document = JsonReader::read(world.output());
  CHECK_TEXT(document["error"]["rule"].text(), "quiet");
  CHECK_TEXT(document["error"]["lock"].text(), "guest");
  CHECK_TEXT(document["error"]["suggestion"].text(), "[[allow]]\nid = \"pings\"");
}

TEST_CASE("a denial says its reason once, whoever denies and however") {
  struct Case {
    kj::StringPtr text;
    kj::StringPtr rule;
    hs::Failure::Lock lock;
    kj::StringPtr line;
  };
  constexpr auto HOST = hs::Failure::Lock::HOST, GUEST = hs::Failure::Lock::GUEST;
  for (auto& one : {
           Case{"ping: denied: no rule allows it", "", HOST, "ping: denied: no rule allows it (the host's policy)"},
           Case{"ping: denied by rule 'quiet' (a.toml:2)", "quiet", HOST,
                "ping: denied by rule 'quiet' (a.toml:2) (the host's policy)"},
           Case{"ping: denied: the port of web1 is blocked (a.toml:2)", "", HOST,
                "ping: denied: the port of web1 is blocked (a.toml:2) (the host's policy)"},
           Case{"the guest's policy: denied: no rule allows it", "", GUEST,
                "the guest's policy: denied: no rule allows it"},
           Case{"the guest's policy denies it", "quiet", GUEST,
                "the guest's policy denies it (denied by rule 'quiet')"},
           Case{"no", "", GUEST, "no (no rule allows it; the guest's policy)"},
       }) {
    CliWorld world;
    world.session.behaviour.mode = Mode::FAIL;
    world.session.behaviour.kind = Kind::DENIED;
    world.session.behaviour.lock = one.lock;
    world.session.behaviour.text = one.text;
    world.session.behaviour.rule = one.rule;
    CHECK(world.run({"ping", "web1"}) == ExitStatus::DENIED);
    CHECK_TEXT(world.errors(), kj::str("postern: web1: ", one.line, "\n"));
  }
}

TEST_CASE("posternd that goes away in the middle of a call is said to have, at once") {
  for (auto& words : TO_POSTERND) {
    CliWorld world;
    world.control.behaviour.mode = Mode::VANISH;
    CHECK(world.run(words) == ExitStatus::FAILED);
    CHECK(contains(world.errors(), "posternd closed the connection"));
  }
}

TEST_CASE("a session that goes away in the middle of a call is said to have, at once") {
  for (auto& words : TO_SESSION) {
    CliWorld world;
    world.session.behaviour.mode = Mode::VANISH;
    CHECK(world.run(words) == ExitStatus::FAILED);
    CHECK(contains(world.errors(), "closed the connection"));
    CHECK(contains(world.errors(), "web1"));
  }
}

TEST_CASE("posternd that never answers costs --timeout and no more") {
  for (auto& words : TO_POSTERND) {
    CliWorld world;
    world.control.behaviour.mode = Mode::SILENT;
    kj::Vector<kj::StringPtr> all;
    all.add("--timeout");
    all.add("0.05");
    for (auto word : words) all.add(word);
    CHECK(cli::runPostern(world, all) == ExitStatus::TIMED_OUT);
    CHECK(linesOf(world.errors()) == 1);
    CHECK(contains(world.errors(), "within 50 ms"));
  }
}

TEST_CASE("a session that never answers costs --timeout and no more") {
  CliWorld world;
  world.session.behaviour.mode = Mode::SILENT;
  CHECK(world.run({"ping", "web1", "--timeout", "0.05"}) == ExitStatus::TIMED_OUT);
  CHECK(contains(world.errors(), "the session of web1 did not answer within"));
}

TEST_CASE("Ctrl-C ends a wait at once, without a word") {
  CliWorld world;
  world.session.behaviour.mode = Mode::SILENT;
  world.interruptAfter(20 * kj::MILLISECONDS);
  CHECK(world.run({"ping", "web1", "--timeout", "1h"}) == ExitStatus::INTERRUPTED);
  CHECK_TEXT(world.errors(), "");
  CHECK_TEXT(world.output(), "");
}

TEST_CASE("a long text of a failure is cut, printable, and one line") {
  auto text = kj::str(kj::repeat('x', 100'000), "\n\033[2J");
  CliWorld world;
  world.control.behaviour.mode = Mode::FAIL;
  world.control.behaviour.kind = Kind::DENIED;
  world.control.behaviour.text = text;
  world.control.behaviour.rule = "r\033[2J";
  CHECK(world.run({"ping", "web1"}) == ExitStatus::DENIED);
  CHECK(world.errors().size() < 3000);
  CHECK(linesOf(world.errors()) == 1);
  CHECK(!contains(world.errors(), "\033"));
}

TEST_CASE("a megabyte of text is cut; more than the connection takes ends the call and not the program") {
  for (size_t bytes : {size_t(1) << 20, size_t(5) << 20}) {
    auto text = kj::str(kj::repeat('x', bytes));
    CliWorld world;
    world.control.behaviour.mode = Mode::FAIL;
    world.control.behaviour.text = text;
    CHECK(world.run({"vm", "show", "web1", "--timeout", "5"}) == ExitStatus::FAILED);
    CHECK(linesOf(world.errors()) == 1);
    CHECK(world.errors().size() < 3000);
  }
}

TEST_CASE("posternd that gives no socket is of another version") {
  CliWorld world;
  world.control.giveNoSocket = true;
  CHECK(world.run({"ping", "web1"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), "posternd gave no socket"));
}

TEST_CASE("a VM that is not known, and one that is not connected, have their lines and statuses") {
  CliWorld world;
  world.control.unknown.add(kj::str("web9"));
  world.control.offline.add(kj::str("web1"));
  CHECK(world.run({"ping", "web9"}) == ExitStatus::USAGE);
  CHECK_TEXT(world.errors(), "postern: web9: unknown VM\n");
  CHECK(world.run({"ping", "web1"}) == ExitStatus::NOT_CONNECTED);
  CHECK_TEXT(world.errors(),
             "postern: web1: not connected (last heartbeat 42 s ago); is postern-agent running in it?\n");
}
