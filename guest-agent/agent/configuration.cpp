#include "guest-agent/agent/configuration.h"

#include "guest-agent/identity/bounded-file.h"
#include "protocol/policy/bounds.h"

namespace postern::guest {

namespace {

PolicyErrors oneError(kj::String text) {
  return PolicyErrors{kj::arr(kj::mv(text))};
}

// Null: everything was taken.
kj::Maybe<PolicyErrors> takePolicy(Configuration& configuration, kj::StringPtr path, kj::ArrayPtr<const char> text) {
  auto whole = kj::heapString(text);
  auto parsed = GuestPolicy::parse(path, whole);
  if (parsed.is<PolicyErrors>()) return kj::mv(parsed.get<PolicyErrors>());
  configuration.policyFile = kj::heapString(path);
  configuration.policyText = kj::mv(whole);
  configuration.policy = kj::mv(parsed.get<kj::Own<const GuestPolicy>>());
  return nullptr;
}

}  // namespace

kj::OneOf<Configuration, PolicyErrors> readConfiguration(const Paths& paths, kj::Maybe<kj::StringPtr> config) {
  Configuration configuration;
  configuration.policy = GuestPolicy::denyAll();
  kj::StringPtr path = config.orDefault(paths.config);
  auto content = readBounded(path, policy::MAX_FILE_BYTES);
  if (content.is<FileTrouble>()) return oneError(kj::mv(content.get<FileTrouble>().text));
  if (content.is<kj::Array<char>>()) {
    auto& text = content.get<kj::Array<char>>();
    auto settings = parseSettings(path, text);
    if (settings.is<SettingsError>()) return oneError(kj::mv(settings.get<SettingsError>().text));
    configuration.settings = kj::mv(settings.get<Settings>());
    auto services = parseServicesSettings(path, text);
    if (services.is<ServicesErrors>()) return PolicyErrors{kj::mv(services.get<ServicesErrors>().lines)};
    configuration.services = kj::mv(services.get<ServicesSettings>());
    configuration.hasOwnFile = true;
    KJ_IF_MAYBE (errors, takePolicy(configuration, path, text)) return kj::mv(*errors);
    return kj::mv(configuration);
  }
  if (config != nullptr) return oneError(kj::str(path, ": there is no such file"));

  auto grants = readBounded(paths.grants, policy::MAX_FILE_BYTES, SymbolicLinks::REFUSE);
  if (grants.is<FileTrouble>()) return oneError(kj::mv(grants.get<FileTrouble>().text));
  if (grants.is<kj::Array<char>>()) {
    KJ_IF_MAYBE (errors, takePolicy(configuration, paths.grants, grants.get<kj::Array<char>>())) return kj::mv(*errors);
  }
  return kj::mv(configuration);
}

}  // namespace postern::guest
