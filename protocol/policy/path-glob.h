#pragma once
// PathGlob: a pattern of paths in a guest, compiled once.
//
//   *   any bytes within one component, also none, also a leading dot      /srv/*.html
//   ?   one character within one component                                /srv/disk?.img
//   **  as a whole component: any number of components                    /srv/**  /home/**/public
//
// A pattern is absolute. A trailing `**` stands for at least one component: `/srv/**` is what lies below /srv and not
// /srv itself. Every other character stands for itself; brackets, braces and the backslash, which other globs give a
// meaning, are refused.
//
// Only canonical paths match: absolute, without empty components, `.`, `..`, NUL or a slash at the end. So no spelling
// of a path escapes from a pattern, or slips past one that denies. What is matched is text; that no symbolic link leads
// out is the business of who opens the file.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

namespace postern::policy {

// For any bytes. "/" alone is canonical.
bool isCanonicalPath(kj::ArrayPtr<const char> untrusted);

class PathGlob {
 public:
  // Or what is wrong with the pattern and what to write instead.
  static kj::OneOf<PathGlob, kj::String> parse(kj::StringPtr pattern);

  // `path` is canonical. Time is at most the product of both lengths; most paths differ in the fixed beginning.
  bool matches(kj::StringPtr path) const { return matchesBytes(path); }
  bool matchesBytes(kj::ArrayPtr<const char> path) const;

  // Whether it matches any path that lies below this canonical one.
  bool matchesBelow(kj::StringPtr path) const;

  kj::StringPtr text() const { return pattern; }
  // The longest folder without a pattern that is above every path that matches: "/srv/www" of "/srv/www/**", "/etc" of
  // "/etc/hosts".
  kj::ArrayPtr<const char> folder() const;

 private:
  kj::String pattern;
  size_t literalBytes = 0;  // the pattern's beginning without * and ?

  explicit PathGlob(kj::StringPtr pattern);
};

}  // namespace postern::policy
