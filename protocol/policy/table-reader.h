#pragma once
// TableReader: takes known keys out of a TOML table and reports what has the wrong type and what was never asked for.
// Every key is asked for exactly once, and finish() comes last.

#include <kj/common.h>

#include "protocol/policy/problem.h"
#include "protocol/policy/toml-text.h"

namespace postern::policy {

struct PlacedText {
  kj::StringPtr text;
  Place place;
};

class TableReader {
 public:
  // `what` names the table in errors ("[[allow]]"). All arguments outlive this object.
  TableReader(const TomlTable& table, Place place, kj::StringPtr what, Problems& problems)
      : table(table), tablePlace(place), what(what), problems(problems) {}
  KJ_DISALLOW_COPY(TableReader);

  // Null if the key is missing, and, with an error, if its value has another type.
  kj::Maybe<PlacedText> text(kj::StringPtr key);
  kj::Maybe<int64_t> wholeNumber(kj::StringPtr key, int64_t least = 1);
  kj::Maybe<bool> boolean(kj::StringPtr key);
  kj::Maybe<int64_t> time(kj::StringPtr key);
  kj::Maybe<const TomlTable&> subtable(kj::StringPtr key);
  // A text or a list of texts, which is not empty. Null as above.
  kj::Maybe<kj::Vector<PlacedText>> texts(kj::StringPtr key);
  // The same for an entry of a table whose keys are names: every key is as good as any, and nothing is left to
  // finish().
  kj::Maybe<const TomlTable&> subtable(const TomlEntry& entry) { return subtableOf(entry.key, *entry.value); }
  kj::Maybe<kj::Vector<PlacedText>> texts(const TomlEntry& entry) { return textsOf(entry.key, *entry.value); }
  // Tables: [[key]], or a list of inline tables.
  kj::Vector<const TomlValue*> tables(kj::StringPtr key);

  // An error if the key is there. `why` goes behind "'key' ".
  void refuse(kj::StringPtr key, kj::StringPtr why);
  // The key belongs to somebody else.
  void skip(kj::StringPtr key) { asked.add(key); }
  // Reports the keys nobody asked for.
  void finish();

  bool has(kj::StringPtr key) const;
  Place place() const { return tablePlace; }
  Place placeOf(kj::StringPtr key) const;

 private:
  const TomlTable& table;
  Place tablePlace;
  kj::StringPtr what;
  Problems& problems;
  kj::Vector<kj::StringPtr> asked;
  kj::Vector<kj::StringPtr> refused;

  kj::Maybe<const TomlEntry&> find(kj::StringPtr key) const;
  kj::Maybe<const TomlValue&> take(kj::StringPtr key);
  Place at(unsigned line) const { return {tablePlace.file, line}; }
  kj::Maybe<const TomlTable&> subtableOf(kj::StringPtr key, const TomlValue& value);
  kj::Maybe<kj::Vector<PlacedText>> textsOf(kj::StringPtr key, const TomlValue& value);
  void wrongType(kj::StringPtr key, const TomlValue& value, kj::StringPtr wanted);
};

}  // namespace postern::policy
