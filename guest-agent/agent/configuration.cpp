#include "guest-agent/agent/configuration.h"

#include "guest-agent/identity/bounded-file.h"
#include "protocol/policy/bounds.h"
#include "protocol/policy/problem.h"
#include "protocol/policy/toml-text.h"

namespace postern::guest {

namespace {

PolicyErrors oneError(kj::String text) {
  return PolicyErrors{kj::arr(kj::mv(text))};
}

void addTo(kj::Vector<kj::String>& errors, kj::Array<kj::String>& lines) {
  for (auto& line : lines) errors.add(kj::mv(line));
}

// These take what is good, and add what is wrong to `errors`.
void takePolicy(Configuration& configuration, kj::StringPtr path, kj::ArrayPtr<const char> text,
                kj::Vector<kj::String>& errors) {
  auto whole = kj::heapString(text);
  auto parsed = GuestPolicy::parse(path, whole);
  KJ_IF_MAYBE (wrong, parsed.tryGet<PolicyErrors>()) return addTo(errors, wrong->lines);
  configuration.policyFile = kj::heapString(path);
  configuration.policyText = kj::mv(whole);
  configuration.policy = kj::mv(parsed.get<kj::Own<const GuestPolicy>>());
}

void takeOwnFile(Configuration& configuration, kj::StringPtr path, kj::ArrayPtr<const char> text,
                 kj::Vector<kj::String>& errors) {
  configuration.hasOwnFile = true;
  auto settings = parseSettings(path, text);
  KJ_IF_MAYBE (taken, settings.tryGet<Settings>()) configuration.settings = kj::mv(*taken);
  KJ_IF_MAYBE (wrong, settings.tryGet<SettingsErrors>()) addTo(errors, wrong->lines);
  auto services = parseServicesSettings(path, text);
  KJ_IF_MAYBE (taken, services.tryGet<ServicesSettings>()) configuration.services = kj::mv(*taken);
  KJ_IF_MAYBE (wrong, services.tryGet<ServicesErrors>()) addTo(errors, wrong->lines);
  takePolicy(configuration, path, text, errors);
}

kj::OneOf<Configuration, PolicyErrors> resultOf(Configuration configuration, kj::Vector<kj::String> errors) {
  if (errors.empty()) return kj::mv(configuration);
  return PolicyErrors{errors.releaseAsArray()};
}

}  // namespace

kj::OneOf<Configuration, PolicyErrors> readConfiguration(const Paths& paths, kj::Maybe<kj::StringPtr> config) {
  Configuration configuration;
  configuration.policy = GuestPolicy::denyAll();
  kj::Vector<kj::String> errors;
  kj::StringPtr path = config.orDefault(paths.config);
  auto content = readBounded(path, policy::MAX_FILE_BYTES);
  if (content.is<FileTrouble>()) return oneError(kj::mv(content.get<FileTrouble>().text));
  KJ_IF_MAYBE (text, content.tryGet<kj::Array<char>>()) {
    // What is no TOML has one error, and not one of each reader.
    auto parsed = policy::parseToml(*text);
    KJ_IF_MAYBE (error, parsed.tryGet<policy::TomlError>()) {
      return oneError(policy::Problem{kj::str(path), error->line, kj::mv(error->text)}.toString());
    }
    takeOwnFile(configuration, path, *text, errors);
    return resultOf(kj::mv(configuration), kj::mv(errors));
  }
  if (config != nullptr) return oneError(kj::str(path, ": there is no such file"));

  auto grants = readBounded(paths.grants, policy::MAX_FILE_BYTES, SymbolicLinks::REFUSE);
  if (grants.is<FileTrouble>()) return oneError(kj::mv(grants.get<FileTrouble>().text));
  KJ_IF_MAYBE (text, grants.tryGet<kj::Array<char>>()) takePolicy(configuration, paths.grants, *text, errors);
  return resultOf(kj::mv(configuration), kj::mv(errors));
}

}  // namespace postern::guest
