#include "host/qmp/qmp-message.h"

#include <doctest/doctest.h>

#include "host/qmp/qmp-watch.h"
#include "tests/support/test-random.h"

namespace postern::host {

namespace {

// A message in one word or two, for comparing.
kj::String read(kj::StringPtr line) {
  auto message = parseQmp(line.asArray());
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(greeting, QmpGreeting) return kj::str("greeting");
    KJ_CASE_ONEOF(bad, QmpGarbage) return kj::str("garbage");
    KJ_CASE_ONEOF(answer, QmpAnswer) {
      KJ_IF_MAYBE (error, answer.error) return kj::str("error ", answer.id, " ", *error);
      KJ_IF_MAYBE (status, answer.status) return kj::str("status ", answer.id, " ", status->state, status->running);
      return kj::str("answer ", answer.id);
    }
    KJ_CASE_ONEOF(event, QmpEvent) {
      static constexpr kj::StringPtr NAMES[] = {"STOP"_kj,     "RESUME"_kj, "RESET"_kj,
                                                "SHUTDOWN"_kj, "PORT"_kj,   "OTHER"_kj};
      auto text = kj::str(NAMES[static_cast<size_t>(event.kind)]);
      if (event.kind == QmpEvent::Kind::AGENT_PORT) text = kj::str(text, " ", event.portOpen);
      KJ_IF_MAYBE (reason, event.reason) text = kj::str(text, " ", *reason);
      KJ_IF_MAYBE (byGuest, event.byGuest) text = kj::str(text, " ", *byGuest);
      return text;
    }
  }
  KJ_UNREACHABLE;
}

kj::String nested(size_t depth) {
  auto text = kj::str("1");
  for (size_t i = 0; i < depth; ++i) text = kj::str("[", text, "]");
  return text;
}

// As QEMU 7.2 writes them.
constexpr kj::StringPtr REAL[] = {
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, "
    "\"capabilities\": [\"oob\"]}}"_kj,
    "{\"return\": {}, \"id\": 1}"_kj,
    "{\"return\": {\"status\": \"prelaunch\", \"singlestep\": false, \"running\": false}, \"id\": 2}"_kj,
    "{\"id\": 3, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such\"}}"_kj,
    "{\"timestamp\": {\"seconds\": 1795405158, \"microseconds\": 44160}, \"event\": \"SHUTDOWN\", \"data\": "
    "{\"guest\": false, \"reason\": \"host-qmp-quit\"}}"_kj,
    "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"VSERPORT_CHANGE\", \"data\": "
    "{\"open\": true, \"id\": \"org.postern.agent.0\"}}"_kj,
};

}  // namespace

TEST_CASE("messages of QEMU are read") {
  CHECK((read(REAL[0]) == "greeting"));
  CHECK((read(REAL[1]) == "answer 1"));
  CHECK((read(REAL[2]) == "status 2 prelaunchfalse"));
  CHECK((read(REAL[3]) == "error 3 no such"));
  CHECK((read(REAL[4]) == "SHUTDOWN host-qmp-quit false"));
  CHECK((read(REAL[5]) == "PORT true"));
  CHECK((read("{\"event\": \"STOP\"}") == "STOP"));
  CHECK((read("{\"event\": \"RESUME\"}") == "RESUME"));
  CHECK((read("{\"event\": \"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}") ==
         "RESET guest-reset true"));
}

TEST_CASE("events that are not ours are events and no more") {
  CHECK((read("{\"event\": \"SUSPEND\"}") == "OTHER"));
  CHECK((read("{\"event\": \"BLOCK_IO_ERROR\", \"data\": [1, null, {\"x\": -1.5e3}]}") == "OTHER"));
  CHECK((read("{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"open\": true, \"id\": \"org.qemu.guest_agent.0\"}}") ==
         "OTHER"));
  CHECK((read("{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"open\": true, \"id\": \"org.postern.agent.01\"}}") ==
         "OTHER"));
  CHECK((read("{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"open\": false, \"id\": \"vm1-org.postern.agent.0\"}}") ==
         "PORT false"));
}

TEST_CASE("what is no message is garbage") {
  for (auto line : {"",
                    " ",
                    "1",
                    "null",
                    "[]",
                    "\"QMP\"",
                    "{}",
                    "{\"id\": 1}",
                    "hello",
                    "{\"QMP\": {}",
                    "{\"QMP\": {}} x",
                    "{\"return\": {}}",
                    "{\"return\": {}, \"id\": \"1\"}",
                    "{\"return\": {}, \"id\": -1}",
                    "{\"return\": {}, \"id\": 1.5}",
                    "{\"return\": {}, \"id\": 1e300}",
                    "{\"return\": {}, \"id\": 1e999}",
                    "{\"return\": {}, \"id\": null}",
                    "{\"error\": {\"desc\": \"x\"}}",
                    "{\"error\": 1}",
                    "{\"event\": 5}",
                    "{\"event\": \"VSERPORT_CHANGE\"}",
                    "{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"open\": true}}",
                    "{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"id\": 1, \"open\": true}}",
                    "{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"id\": \"x\", \"open\": 1}}"}) {
    CAPTURE(line);
    CHECK((read(line) == "garbage"));
  }
}

TEST_CASE("parts of the wrong kind count as absent") {
  CHECK((read("{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": 1, \"reason\": []}}") == "SHUTDOWN"));
  CHECK((read("{\"event\": \"SHUTDOWN\", \"data\": \"x\"}") == "SHUTDOWN"));
  CHECK((read("{\"return\": {\"status\": 1, \"running\": true}, \"id\": 2}") == "answer 2"));
  CHECK((read("{\"return\": {\"status\": \"running\"}, \"id\": 2}") == "answer 2"));
  CHECK((read("{\"return\": [], \"id\": 2}") == "answer 2"));
  CHECK((read("{\"error\": {}, \"id\": 2}") == "error 2 without a reason"));
}

// T58
TEST_CASE("nesting is bounded") {
  auto event = [](size_t depth) { return kj::str("{\"event\": \"STOP\", \"x\": ", nested(depth), "}"); };
  CHECK((read(event(MAX_QMP_NESTING - 1)) == "STOP"));
  CHECK((read(event(MAX_QMP_NESTING)) == "garbage"));
  // Half a line's length of it would be the end of a recursive parser without a bound.
  CHECK((read(nested(2000)) == "garbage"));
  auto open = kj::heapString(MAX_QMP_LINE_BYTES);
  for (char& c : open) c = '[';
  CHECK((read(open) == "garbage"));
}

TEST_CASE("text is printable and bounded") {
  CHECK((read("{\"error\": {\"desc\": \"a\\n\\u0007\x1b[31m\xc3\xa9\"}, \"id\": 1}") == "error 1 a???[31m??"));
  auto longText = kj::heapString(3 * MAX_QMP_TEXT_BYTES);
  for (char& c : longText) c = 'y';
  auto reason = read(kj::str("{\"event\": \"RESET\", \"data\": {\"reason\": \"", longText, "\"}}"));
  CHECK(reason.size() < MAX_QMP_TEXT_BYTES + 20);
}

TEST_CASE("a message cut short anywhere is garbage") {
  for (auto message : REAL) {
    for (size_t size = 0; size < message.size(); ++size) {
      CAPTURE(size);
      CHECK((parseQmp(message.asArray().slice(0, size)).is<QmpGarbage>()));
    }
  }
}

// T58
TEST_CASE("no changed byte, and no noise, makes the parser throw") {
  for (auto message : REAL) {
    auto text = kj::heapString(message);
    for (char& c : text) {
      char right = c;
      for (int value = 0; value < 256; ++value) {
        c = static_cast<char>(value);
        CHECK_NOTHROW((void)parseQmp(text.asArray()));
      }
      c = right;
    }
  }
  test::TestRandom random;
  constexpr auto ALPHABET = "{}[]\":,\\u0e-+.tfn \x01\xff"_kj;
  for (int i = 0; i < 20000; ++i) {
    auto text = kj::heapString(random.next() % 40);
    for (char& c : text) c = ALPHABET[random.next() % ALPHABET.size()];
    CHECK_NOTHROW((void)parseQmp(text.asArray()));
  }
}

}  // namespace postern::host
