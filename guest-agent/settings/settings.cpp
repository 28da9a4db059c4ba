#include "guest-agent/settings/settings.h"

#include "protocol/policy/names.h"
#include "protocol/policy/problem.h"
#include "protocol/policy/toml-text.h"
#include "protocol/policy/wording.h"

namespace postern::guest {

namespace {

using policy::TomlEntry;
using policy::TomlTable;

constexpr int64_t MIN_HEARTBEAT_MILLISECONDS = 200;
constexpr int64_t MAX_HEARTBEAT_MILLISECONDS = 60000;
constexpr int64_t MIN_RETRY_MILLISECONDS = 10;
constexpr int64_t MAX_RETRY_MILLISECONDS = 60000;
constexpr int64_t MAX_HOOK_SECONDS = 3600;

constexpr kj::StringPtr KEYS[] = {"connect"_kj, "user"_kj,  "accept-grants"_kj, "heartbeat"_kj,
                                  "retry"_kj,   "power"_kj, "hook-timeout"_kj};

// What is wrong with a value, for the end of an error; null if it was taken.
using Wrong = kj::Maybe<kj::String>;

Wrong wants(const TomlEntry& entry, kj::StringPtr what) {
  return kj::str('\'', entry.key, "' is ", policy::whatIs(*entry.value), "; it wants ", what);
}

Wrong takeNumber(const TomlEntry& entry, int64_t least, int64_t most, kj::StringPtr what, int64_t& out) {
  if (!entry.value->content.is<int64_t>()) return wants(entry, what);
  out = entry.value->content.get<int64_t>();
  if (out >= least && out <= most) return nullptr;
  return kj::str('\'', entry.key, "' is ", out, "; it wants ", what);
}

Wrong takeConnect(kj::StringPtr value, Settings& settings) {
  if (value == "auto") {
    settings.connect = nullptr;
    return nullptr;
  }
  auto endpoint = parseEndpoint(value);
  if (endpoint.is<EndpointError>()) {
    return kj::str("'connect' is no endpoint: ", endpoint.get<EndpointError>().text, "; or write \"auto\"");
  }
  if (endpoint.get<Endpoint>().is<HybridEndpoint>()) {
    return kj::str("'connect' is hybrid:, which is the host's side; a guest connects to vsock:2");
  }
  settings.connect = kj::mv(endpoint.get<Endpoint>());
  return nullptr;
}

Wrong takePower(kj::StringPtr value, Settings& settings) {
  if (value == "auto") {
    settings.power = PowerMethod::AUTO;
  } else if (value == "systemctl") {
    settings.power = PowerMethod::SYSTEMCTL;
  } else if (value == "syscall") {
    settings.power = PowerMethod::SYSCALL;
  } else {
    return kj::str("'power' is ", policy::quote(value), "; write \"auto\", \"systemctl\" or \"syscall\"");
  }
  return nullptr;
}

Wrong takeUser(kj::StringPtr value, Settings& settings) {
  if (!policy::isAccountName(value)) return kj::str("'user' is ", policy::quote(value), ", which is no user's name");
  settings.user = kj::heapString(value);
  return nullptr;
}

Wrong takeEntry(const TomlEntry& entry, Settings& settings) {
  auto& content = entry.value->content;
  if (entry.key == "accept-grants") {
    if (!content.is<bool>()) return wants(entry, "true or false"_kj);
    settings.acceptGrants = content.get<bool>();
    return nullptr;
  }
  int64_t number = 0;
  if (entry.key == "heartbeat") {
    auto wrong = takeNumber(entry, MIN_HEARTBEAT_MILLISECONDS, MAX_HEARTBEAT_MILLISECONDS,
                            "milliseconds from 200 to 60000"_kj, number);
    if (wrong == nullptr) settings.heartbeat = number * kj::MILLISECONDS;
    return wrong;
  }
  if (entry.key == "retry") {
    auto wrong =
        takeNumber(entry, MIN_RETRY_MILLISECONDS, MAX_RETRY_MILLISECONDS, "milliseconds from 10 to 60000"_kj, number);
    if (wrong == nullptr) settings.retry = number * kj::MILLISECONDS;
    return wrong;
  }
  if (entry.key == "hook-timeout") {
    auto wrong = takeNumber(entry, 1, MAX_HOOK_SECONDS, "seconds from 1 to 3600"_kj, number);
    if (wrong == nullptr) settings.hookTimeout = number * kj::SECONDS;
    return wrong;
  }
  bool isText = entry.key == "connect" || entry.key == "user" || entry.key == "power";
  if (!isText) {
    return kj::str("unknown key ", policy::quote(entry.key), " in [agent]",
                   policy::didYouMean(entry.key, kj::arrayPtr(KEYS, kj::size(KEYS))));
  }
  if (!content.is<kj::String>()) return wants(entry, "a text"_kj);
  auto& text = content.get<kj::String>();
  if (entry.key == "connect") return takeConnect(text, settings);
  return entry.key == "user" ? takeUser(text, settings) : takePower(text, settings);
}

void takeTable(const TomlEntry& agent, kj::StringPtr fileName, Settings& settings, policy::Problems& problems) {
  auto& content = agent.value->content;
  if (!content.is<TomlTable>()) {
    return problems.error({fileName, agent.line}, "'agent' is ", policy::whatIs(*agent.value), "; write it as [agent]");
  }
  for (auto& entry : content.get<TomlTable>().entries) {
    KJ_IF_MAYBE (wrong, takeEntry(entry, settings)) problems.error({fileName, entry.line}, *wrong);
  }
}

}  // namespace

kj::OneOf<Settings, SettingsErrors> parseSettings(kj::StringPtr fileName, kj::ArrayPtr<const char> text) {
  auto parsed = policy::parseToml(text);
  Settings settings;
  policy::Problems problems;
  KJ_IF_MAYBE (error, parsed.tryGet<policy::TomlError>()) {
    problems.error({fileName, error->line}, error->text);
  } else {
    for (auto& entry : parsed.get<TomlTable>().entries) {
      if (entry.key == "agent") takeTable(entry, fileName, settings, problems);
    }
  }
  if (!problems.hasErrors()) return kj::mv(settings);
  auto errors = problems.takeErrors();
  auto lines = KJ_MAP(problem, errors) {
    return problem.toString();
  };
  return SettingsErrors{kj::mv(lines)};
}

}  // namespace postern::guest
