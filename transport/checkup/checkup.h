#pragma once
// Checkup: what a doctor finds on its way along a chain of checks, as lines for a person:
//
//   ok       policy    3 rules, 2 tests passed
//   warning  audit     16 MiB are left on the disk of /var/log/postern
//                      df -h /var/log/postern
//   wrong    folders   /var/lib/postern/vms: others than its owner have rights to it
//                      chmod go= /var/lib/postern/vms
//
// where the line below is what mends it, a command where there is one; or as JSON. Texts may be anybody's: they are
// made printable, and bounded, when they are added.

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>

#include "transport/json-writer.h"

namespace postern {

enum class Grade : uint8_t {
  OK,
  WARNING,  // it works, with less or not for ever
  WRONG,
};
kj::StringPtr gradeName(Grade grade);  // "warning"

struct Finding {
  kj::StringPtr check;
  Grade grade;
  kj::String text;
  kj::String remedy;  // may have several lines; empty: there is nothing to do, or nobody knows
};

class Checkup {
 public:
  // What is added from now on belongs to this check. `name` is static.
  void begin(kj::StringPtr name) { check = name; }
  void ok(kj::StringPtr text) { add(Grade::OK, text, ""); }
  void warning(kj::StringPtr text, kj::StringPtr remedy) { add(Grade::WARNING, text, remedy); }
  void wrong(kj::StringPtr text, kj::StringPtr remedy) { add(Grade::WRONG, text, remedy); }

  kj::ArrayPtr<const Finding> findings() const { return found; }
  // The worst of a check's; OK if it has none.
  Grade gradeOf(kj::StringPtr name) const;
  Grade grade() const;

  kj::String toText() const;
  // As the key "checks" of the object that is open.
  void write(JsonWriter& json) const;

 private:
  kj::StringPtr check = "";
  kj::Vector<Finding> found;

  void add(Grade grade, kj::StringPtr text, kj::StringPtr remedy);
};

// One link of the chain: looks, and adds what it finds. It may add nothing, where there is nothing to look at.
template <typename Subject>
struct Check {
  kj::StringPtr name;
  void (*look)(Subject& subject, Checkup& out);
};

// `path` as a shell takes it for one word.
kj::String shellWord(kj::StringPtr path);

}  // namespace postern
