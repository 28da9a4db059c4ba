#include "protocol/policy/names.h"

#include "protocol/policy/bounds.h"

namespace postern::policy {

namespace {

bool isLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// `more`: the characters allowed after the first one, beside letters and digits.
bool isName(kj::StringPtr text, kj::StringPtr more) {
  if (text.size() == 0 || text.size() > MAX_NAME_BYTES || !isLetterOrDigit(text[0])) return false;
  for (char c : text) {
    if (!isLetterOrDigit(c) && (c == '\0' || more.findFirst(c) == nullptr)) return false;
  }
  return true;
}

}  // namespace

bool isVmName(kj::StringPtr text) {
  return isPlainName(text) && text != "host" && text != "any";
}

bool isPlainName(kj::StringPtr text) {
  return isName(text, "-_.");
}

bool isServiceName(kj::StringPtr text) {
  return isName(text, "-_");
}

bool isRuleId(kj::StringPtr text) {
  return isName(text, "-_.:");
}

bool isAccountName(kj::StringPtr text) {
  if (text.size() == 0 || text.size() > MAX_HOST_NAME_BYTES) return false;
  if (text[0] == ' ' || text[text.size() - 1] == ' ') return false;
  for (char c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f' || c == '/' || c == ':') return false;
  }
  return true;
}

}  // namespace postern::policy
