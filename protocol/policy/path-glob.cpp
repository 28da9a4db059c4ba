#include "protocol/policy/path-glob.h"

#include <stdint.h>
#include <string.h>

#include "protocol/policy/bounds.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

using Chars = kj::ArrayPtr<const char>;

// The component that begins at `begin`, behind its slash.
Chars componentAt(Chars text, size_t begin) {
  size_t end = begin;
  while (end < text.size() && text[end] != '/') ++end;
  return text.slice(begin, end);
}

bool isEvery(Chars component) {
  return component.size() == 2 && component[0] == '*' && component[1] == '*';
}

// Bytes of the character that begins at `at`; of broken UTF-8 one byte after the other.
size_t characterBytes(Chars text, size_t at) {
  size_t size = 1;
  if ((text[at] & 0xc0) == 0xc0) {
    while (at + size < text.size() && size < 4 && (text[at + size] & 0xc0) == 0x80) ++size;
  }
  return size;
}

// Within one component. After a mismatch the last `*` takes one byte more: nothing before it needs another try.
bool componentMatches(Chars glob, Chars name) {
  size_t g = 0, n = 0;
  size_t starAt = SIZE_MAX, starTook = 0;
  while (n < name.size()) {
    if (g < glob.size() && glob[g] == '*') {
      starAt = g++;
      starTook = n;
    } else if (g < glob.size() && glob[g] == '?') {
      ++g;
      n += characterBytes(name, n);
    } else if (g < glob.size() && glob[g] == name[n]) {
      ++g;
      ++n;
    } else if (starAt != SIZE_MAX) {
      g = starAt + 1;
      n = ++starTook;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

// Component by component, each text standing behind a slash; the same method with `**`.
bool pathMatches(Chars glob, Chars path) {
  size_t g = 0, p = 0;
  size_t everyAt = SIZE_MAX, everyTook = 0;
  // A position behind the end (size + 1) says that no component is left.
  while (p <= path.size()) {
    if (g <= glob.size()) {
      auto pattern = componentAt(glob, g);
      if (isEvery(pattern)) {
        g += pattern.size() + 1;
        if (g > glob.size()) return true;  // at the end it takes the rest, at least the component at p
        everyAt = g;
        everyTook = p;
        continue;
      }
      auto name = componentAt(path, p);
      if (componentMatches(pattern, name)) {
        g += pattern.size() + 1;
        p += name.size() + 1;
        continue;
      }
    }
    if (everyAt == SIZE_MAX) return false;
    everyTook += componentAt(path, everyTook).size() + 1;
    g = everyAt;
    p = everyTook;
  }
  return g > glob.size();
}

}  // namespace

// T49
bool isCanonicalPath(Chars untrusted) {
  if (untrusted.size() == 0 || untrusted.size() > MAX_PATH_BYTES || untrusted[0] != '/') return false;
  if (memchr(untrusted.begin(), '\0', untrusted.size()) != nullptr) return false;
  if (untrusted.size() == 1) return true;
  for (size_t at = 1; at <= untrusted.size();) {
    auto component = componentAt(untrusted, at);
    if (component.size() == 0 || component.size() > MAX_COMPONENT_BYTES) return false;
    if (component[0] == '.' && (component.size() == 1 || (component.size() == 2 && component[1] == '.'))) return false;
    at += component.size() + 1;
  }
  return true;
}

PathGlob::PathGlob(kj::StringPtr pattern) : pattern(kj::heapString(pattern)) {
  while (literalBytes < pattern.size() && pattern[literalBytes] != '*' && pattern[literalBytes] != '?') ++literalBytes;
}

kj::OneOf<PathGlob, kj::String> PathGlob::parse(kj::StringPtr pattern) {
  auto shown = quote(pattern);
  if (pattern.size() > MAX_GLOB_BYTES) return kj::str("path ", shown, " has over ", MAX_GLOB_BYTES, " bytes");
  for (char c : pattern) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
      return kj::str("path ", shown, " has a control character; write '?' in its place");
    }
    if (strchr("[]{}\\", c) != nullptr) {
      return kj::str("path ", shown, " has '", c, "', which no pattern here has; write '?' for such a character");
    }
  }
  if (!pattern.startsWith("/")) return kj::str("path ", shown, " is relative; write it in full, from the root '/'");
  if (pattern.size() > 1 && pattern.endsWith("/")) {
    return kj::str("path ", shown, " ends with '/'; write it without, or with '/**' for what lies below");
  }
  if (pattern.size() > 1) {
    for (size_t at = 1; at <= pattern.size();) {
      auto component = componentAt(pattern, at);
      if (component.size() == 0) return kj::str("path ", shown, " has '//'; write one '/'");
      auto text = kj::heapString(component);
      if (text == "." || text == "..") {
        return kj::str("path ", shown, " has '", text, "', which no path that is asked for has; write it without");
      }
      if (!isEvery(component) && strstr(text.cStr(), "**") != nullptr) {
        return kj::str("path ", shown, ": '**' stands alone between slashes, as in /srv/**; within a name write '*'");
      }
      at += component.size() + 1;
    }
  }
  return PathGlob(pattern);
}

kj::ArrayPtr<const char> PathGlob::folder() const {
  size_t end = literalBytes;
  while (end > 1 && pattern[end - 1] != '/') --end;  // behind the last slash of the fixed beginning
  return pattern.slice(0, end > 1 ? end - 1 : 1);
}

bool PathGlob::matchesBytes(Chars path) const {
  // A middle `**` that stands for nothing takes the slash behind it along, so the fixed beginning holds in any case.
  if (path.size() < literalBytes || memcmp(path.begin(), pattern.begin(), literalBytes) != 0) return false;
  if (literalBytes == pattern.size()) return path.size() == pattern.size();
  if (path.size() == 1) return false;  // the root has no component that * or ** could stand for
  return pathMatches(pattern.slice(1), path.slice(1, path.size()));
}

bool PathGlob::matchesBelow(kj::StringPtr path) const {
  size_t g = 1;
  for (size_t p = 1; p < path.size();) {
    if (g >= pattern.size()) return false;
    auto component = componentAt(pattern, g);
    if (isEvery(component)) return true;
    auto name = componentAt(path, p);
    if (!componentMatches(component, name)) return false;
    g += component.size() + 1;
    p += name.size() + 1;
  }
  return g < pattern.size();  // what is left of it stands for at least one component
}

}  // namespace postern::policy
