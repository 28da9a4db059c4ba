#include "guest-agent/power/caller-text.h"

#include <kj/vector.h>

#include "guest-agent/bounded-text.h"

namespace postern::guest {

namespace {

bool isCallerName(kj::ArrayPtr<const char> name) {
  if (name.size() == 0 || !isBoundedText(name, MAX_CALLER_NAME_BYTES)) return false;
  for (char c : name) {
    if (c == '/' || c == ':') return false;
  }
  return true;
}

// False if `digits` is no uid in its shortest form.
bool takeUid(uint32_t& uid, kj::ArrayPtr<const char> digits) {
  if (digits.size() == 0 || digits.size() > 10) return false;
  uint64_t value = 0;
  for (char c : digits) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + uint64_t(c - '0');
  }
  uid = uint32_t(value);
  return value <= 0xffffffff && (digits[0] != '0' || digits.size() == 1);
}

// What follows `prefix`, if `text` begins with it.
kj::Maybe<kj::ArrayPtr<const char>> after(kj::ArrayPtr<const char> text, kj::StringPtr prefix) {
  if (text.size() < prefix.size() || text.slice(0, prefix.size()) != prefix.asArray()) return nullptr;
  return text.slice(prefix.size(), text.size());
}

kj::Vector<kj::ArrayPtr<const char>> splitAtSlashes(kj::ArrayPtr<const char> text) {
  kj::Vector<kj::ArrayPtr<const char>> parts;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] != '/') continue;
    parts.add(text.slice(begin, i));
    begin = i + 1;
  }
  return parts;
}

}  // namespace

kj::Maybe<kj::String> callerText(schema::Caller::Reader untrusted) {
  switch (untrusted.which()) {
    case schema::Caller::USER: {
      auto user = untrusted.getUser();
      auto groups = user.getGroups();
      if (groups.size() > MAX_CALLER_GROUPS) return nullptr;
      bool named = user.getName().size() > 0;
      if (named && !isCallerName(user.getName())) return nullptr;
      kj::Vector<kj::String> parts;
      parts.add(named ? kj::str("user:", user.getName()) : kj::str("uid:", user.getUid()));
      for (auto group : groups) {
        if (!isCallerName(group)) return nullptr;
        parts.add(kj::str("group:", group));
      }
      return kj::strArray(parts, "/");
    }
    case schema::Caller::VM:
      if (!isCallerName(untrusted.getVm())) return nullptr;
      return kj::str("vm:", untrusted.getVm());
    default:
      return nullptr;
  }
}

kj::Maybe<VouchedCaller> parseCallerText(kj::StringPtr untrusted) {
  if (untrusted.size() > MAX_CALLER_TEXT_BYTES) return nullptr;
  auto parts = splitAtSlashes(untrusted);
  if (parts.size() > MAX_CALLER_GROUPS + 1) return nullptr;
  KJ_IF_MAYBE (vm, after(parts[0], "vm:")) {
    if (parts.size() > 1 || !isCallerName(*vm)) return nullptr;
    return VouchedCaller(VouchedVm{kj::heapString(*vm)});
  }
  VouchedUser user{nullptr, 0, nullptr};
  KJ_IF_MAYBE (name, after(parts[0], "user:")) {
    if (!isCallerName(*name)) return nullptr;
    user.name = kj::heapString(*name);
  } else KJ_IF_MAYBE (digits, after(parts[0], "uid:")) {
    if (!takeUid(user.uid, *digits)) return nullptr;
  } else {
    return nullptr;
  }
  auto groups = kj::heapArrayBuilder<kj::String>(parts.size() - 1);
  for (auto& part : parts.slice(1, parts.size())) {
    KJ_IF_MAYBE (name, after(part, "group:")) {
      if (!isCallerName(*name)) return nullptr;
      groups.add(kj::heapString(*name));
    } else {
      return nullptr;
    }
  }
  user.groups = groups.finish();
  return VouchedCaller(kj::mv(user));
}

}  // namespace postern::guest
