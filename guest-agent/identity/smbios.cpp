#include "guest-agent/identity/smbios.h"

#include <string.h>

namespace postern::guest {

namespace {

constexpr unsigned char OEM_STRINGS = 11;
constexpr size_t LEAST_LENGTH = 5;

}  // namespace

// T65
kj::Vector<kj::ArrayPtr<const char>> oemStrings(kj::ArrayPtr<const char> untrusted) {
  kj::Vector<kj::ArrayPtr<const char>> found;
  auto byteAt = [&](size_t at) { return static_cast<unsigned char>(untrusted[at]); };
  if (untrusted.size() < LEAST_LENGTH || untrusted.size() > MAX_SMBIOS_BYTES || byteAt(0) != OEM_STRINGS) return found;
  size_t at = byteAt(1);
  if (at < LEAST_LENGTH) return found;
  for (unsigned left = byteAt(4); left > 0 && at < untrusted.size(); --left) {
    auto rest = untrusted.slice(at, untrusted.size());
    auto* end = static_cast<const char*>(memchr(rest.begin(), 0, rest.size()));
    if (end == nullptr || end == rest.begin()) break;
    found.add(kj::arrayPtr(rest.begin(), end));
    at += found.back().size() + 1;
  }
  return found;
}

}  // namespace postern::guest
