#include "guest-agent/settings/settings.h"

#include <doctest/doctest.h>

#include <string>

using namespace postern;
using namespace postern::guest;

namespace {

std::string errorOf(kj::StringPtr text) {
  auto result = parseSettings("agent.toml", text);
  return result.is<SettingsErrors>() ? kj::strArray(result.get<SettingsErrors>().lines, "\n").cStr() : "no error";
}

Settings settingsOf(kj::StringPtr text) {
  auto result = parseSettings("agent.toml", text);
  if (result.is<SettingsErrors>()) FAIL(kj::strArray(result.get<SettingsErrors>().lines, "\n").cStr());
  return kj::mv(result.get<Settings>());
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a file without [agent] gives the defaults") {
  auto settings = settingsOf("policy = 1\n");
  CHECK(settings.connect == nullptr);
  CHECK(settings.user == nullptr);
  CHECK(settings.acceptGrants);
  CHECK((settings.heartbeat == 1 * kj::SECONDS));
  CHECK((settings.retry == 2 * kj::SECONDS));
  CHECK(settings.power == PowerMethod::AUTO);
  CHECK((settings.hookTimeout == 30 * kj::SECONDS));
}

TEST_CASE("every setting is taken") {
  auto settings = settingsOf(R"(policy = 1
[agent]
connect = "serial:/dev/virtio-ports/org.postern.agent.0"
user = "agent"
accept-grants = false
heartbeat = 200
retry = 10
power = "syscall"
hook-timeout = 3600
)");
  CHECK((toString(KJ_ASSERT_NONNULL(settings.connect)) == "serial:/dev/virtio-ports/org.postern.agent.0"));
  CHECK((KJ_ASSERT_NONNULL(settings.user) == "agent"));
  CHECK(!settings.acceptGrants);
  CHECK((settings.heartbeat == 200 * kj::MILLISECONDS));
  CHECK((settings.retry == 10 * kj::MILLISECONDS));
  CHECK(settings.power == PowerMethod::SYSCALL);
  CHECK((settings.hookTimeout == 3600 * kj::SECONDS));
}

TEST_CASE("an unknown key is named with its line and the nearest one that exists") {
  CHECK(errorOf("[agent]\n\nconect = \"auto\"\n") ==
        "agent.toml:3: unknown key 'conect' in [agent]; did you mean 'connect'?");
  CHECK(contains(errorOf("[agent]\nzzzzzz = 1\n"), "agent.toml:2: unknown key 'zzzzzz'"));
}

TEST_CASE("every error is told, in the order of its lines") {
  CHECK(errorOf("[agent]\nheartbeat = 1\npower = \"auto\"\nconect = 1\nuser = 5\n") ==
        "agent.toml:2: 'heartbeat' is 1; it wants milliseconds from 200 to 60000\n"
        "agent.toml:4: unknown key 'conect' in [agent]; did you mean 'connect'?\n"
        "agent.toml:5: 'user' is a number; it wants a text");
}

TEST_CASE("numbers are within their bounds") {
  CHECK(errorOf("[agent]\nheartbeat = 200\n") == "no error");
  CHECK(errorOf("[agent]\nheartbeat = 60000\n") == "no error");
  for (auto* text : {"199", "60001", "-1", "0", "9223372036854775807"}) {
    auto error = errorOf(kj::str("[agent]\nheartbeat = ", text, "\n"));
    CHECK(contains(error, "agent.toml:2: 'heartbeat' is "));
    CHECK(contains(error, "200 to 60000"));
  }
  for (auto* text : {"9", "60001"}) {
    CHECK(contains(errorOf(kj::str("[agent]\nretry = ", text, "\n")), "milliseconds from 10 to 60000"));
  }
  for (auto* text : {"0", "3601", "-5"}) {
    CHECK(contains(errorOf(kj::str("[agent]\nhook-timeout = ", text, "\n")), "seconds from 1 to 3600"));
  }
}

TEST_CASE("a value of another type is told with what is wanted") {
  CHECK(contains(errorOf("[agent]\nheartbeat = \"fast\"\n"), "'heartbeat' is a text; it wants milliseconds"));
  CHECK(contains(errorOf("[agent]\nheartbeat = 1.5\n"), "'heartbeat' is a number with a fraction"));
  CHECK(contains(errorOf("[agent]\naccept-grants = 1\n"), "it wants true or false"));
  CHECK(contains(errorOf("[agent]\nconnect = 5\n"), "it wants a text"));
  CHECK(contains(errorOf("[agent]\nuser = [\"a\"]\n"), "'user' is a list"));
  CHECK(contains(errorOf("agent = 5\n"), "'agent' is a number; write it as [agent]"));
}

TEST_CASE("an endpoint that is none, and the host's side of one, are errors") {
  CHECK(contains(errorOf("[agent]\nconnect = \"telnet:x\"\n"), "agent.toml:2: 'connect' is no endpoint"));
  CHECK(contains(errorOf("[agent]\nconnect = \"hybrid:/run/x:1\"\n"), "vsock:2"));
  CHECK(contains(errorOf("[agent]\npower = \"off\"\n"), "write \"auto\", \"systemctl\" or \"syscall\""));
  CHECK(contains(errorOf("[agent]\nuser = \"../x\"\n"), "no user's name"));
}

TEST_CASE("what is not TOML is told with its line, and never thrown") {
  CHECK(contains(errorOf("[agent]\nheartbeat = = 5\n"), "agent.toml:2: "));
  std::string text = "[agent]\nconnect = \"auto\"\nuser = \"agent\"\nheartbeat = 1000\n";
  for (size_t i = 0; i < text.size(); ++i) {
    for (char c : {'\0', '\xff', '[', '"', '='}) {
      auto spoiled = text;
      spoiled[i] = c;
      parseSettings("agent.toml", kj::arrayPtr(spoiled.data(), spoiled.size()));
      parseSettings("agent.toml", kj::arrayPtr(spoiled.data(), i));
    }
  }
}
