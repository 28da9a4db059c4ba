#include "host/cli/declare.h"

#include <kj/debug.h>
#include <stdlib.h>

#include "host/cli/quantity.h"
#include "protocol/policy/names.h"
#include "transport/printable.h"

namespace postern::cli {

namespace {

// Begins a word that is protected. No option begins with it.
constexpr kj::StringPtr PROTECTED = "\001"_kj;

kj::StringPtr view(const std::string& text) {
  return text.c_str();
}

std::string notDuration(const std::string& text) {
  if (parseDuration(view(text)) != nullptr) return {};
  return kj::str("'", printable(view(text)), "' is no duration: write seconds, or 500ms, 30s, 15m, 2h, 7d").cStr();
}

}  // namespace

std::vector<std::string> protectedWords(kj::ArrayPtr<const kj::StringPtr> words) {
  std::vector<std::string> result;
  bool onlyValues = false;
  for (auto word : words) {
    if (word == "--"_kj && !onlyValues) {
      onlyValues = true;
      continue;
    }
    bool special =
        word == "++"_kj || word.startsWith("[") || word.startsWith(PROTECTED) || (onlyValues && word.startsWith("-"));
    result.push_back(special ? std::string(PROTECTED.cStr()) + word.cStr() : std::string(word.cStr()));
  }
  return result;
}

kj::String valueOf(const std::string& protectedText) {
  auto text = view(protectedText);
  return kj::str(text.startsWith(PROTECTED) ? text.slice(1) : text);
}

std::string notVmName(const std::string& text) {
  if (policy::isVmName(view(text))) return {};
  return kj::str("'", printable(view(text), 70), "' is no VM's name: ", policy::VM_NAME_RULE).cStr();
}

std::string notNumber(const std::string& text, uint64_t max) {
  bool digits = !text.empty() && text.size() <= 19 && text.find_first_not_of("0123456789") == std::string::npos;
  if (digits && strtoull(text.c_str(), nullptr, 10) <= max) return {};
  return kj::str("'", printable(view(text)), "' is no whole number of at most ", max).cStr();
}

CLI::Option* addText(CLI::App& app, const char* name, kj::String& target, const char* help) {
  return app.add_option_function<std::string>(
      name, [&target](const std::string& value) { target = valueOf(value); }, help);
}

CLI::Option* addText(CLI::App& app, const char* name, kj::Maybe<kj::String>& target, const char* help) {
  return app.add_option_function<std::string>(
      name, [&target](const std::string& value) { target = valueOf(value); }, help);
}

CLI::Option* addNames(CLI::App& app, const char* name, Names& target, const char* help) {
  return app.add_option_function<std::vector<std::string>>(
      name,
      [&target](const std::vector<std::string>& values) {
        for (auto& value : values) target.add(valueOf(value));
      },
      help);
}

CLI::Option* addDuration(CLI::App& app, const char* name, const char* help, std::function<void(kj::Duration)> target) {
  return app
      .add_option_function<std::string>(
          name, [target](const std::string& value) { target(KJ_ASSERT_NONNULL(parseDuration(view(value)))); }, help)
      ->check(CLI::Validator(notDuration, "", "duration"))
      ->type_name("S");
}

CLI::Option* addVm(CLI::App& app, kj::String& target) {
  return addText(app, "VM", target, "Name of the VM")
      ->required()
      ->check(CLI::Validator(notVmName, "", "vm"))
      ->type_name("");
}

CLI::Option* addVms(CLI::App& app, Names& target) {
  return addNames(app, "VM", target, "Names of VMs")->check(CLI::Validator(notVmName, "", "vm"))->type_name("");
}

}  // namespace postern::cli
