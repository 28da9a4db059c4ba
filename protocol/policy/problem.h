#pragma once
// What a policy is read from, and what may be wrong with it.

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace postern::policy {

// One file of a policy. The name is for errors; nothing is opened.
struct SourceText {
  kj::StringPtr fileName;
  kj::ArrayPtr<const char> text;
};

// Where something stands. The name belongs to the document that it was read into.
struct Place {
  kj::StringPtr file;
  unsigned line = 0;  // 0: the file as a whole
};
kj::String KJ_STRINGIFY(const Place& place);  // "web.toml:12"

// One printable line: what is wrong, and what to write instead. Owns its text.
struct Problem {
  kj::String file;
  unsigned line;
  kj::String text;

  kj::String toString() const;  // "web.toml:12: unknown key 'form'; did you mean 'from'?"
};

// Collects at most MAX_PROBLEMS errors and as many warnings.
class Problems {
 public:
  template <typename... Parts>
  void error(Place place, Parts&&... parts) {
    add(errors, place, kj::str(kj::fwd<Parts>(parts)...));
  }
  template <typename... Parts>
  void warning(Place place, Parts&&... parts) {
    add(warnings, place, kj::str(kj::fwd<Parts>(parts)...));
  }
  bool hasErrors() const { return !errors.empty(); }
  // Further errors are dropped, so that none needs to be looked for.
  bool isFull() const;

  // Sorted by file and line.
  kj::Array<Problem> takeErrors() { return sorted(errors); }
  kj::Array<Problem> takeWarnings() { return sorted(warnings); }

 private:
  kj::Vector<Problem> errors;
  kj::Vector<Problem> warnings;

  static void add(kj::Vector<Problem>& list, Place place, kj::String text);
  static kj::Array<Problem> sorted(kj::Vector<Problem>& list);
};

}  // namespace postern::policy
