#include "protocol/policy/table-reader.h"

#include "protocol/policy/wording.h"

namespace postern::policy {

kj::Maybe<const TomlEntry&> TableReader::find(kj::StringPtr key) const {
  for (auto& entry : table.entries) {
    if (entry.key == key) return entry;
  }
  return nullptr;
}

kj::Maybe<const TomlValue&> TableReader::take(kj::StringPtr key) {
  asked.add(key);
  KJ_IF_MAYBE (entry, find(key)) return *entry->value;
  return nullptr;
}

bool TableReader::has(kj::StringPtr key) const {
  return find(key) != nullptr;
}

Place TableReader::placeOf(kj::StringPtr key) const {
  KJ_IF_MAYBE (entry, find(key)) return at(entry->line);
  return tablePlace;
}

void TableReader::wrongType(kj::StringPtr key, const TomlValue& value, kj::StringPtr wanted) {
  problems.error(at(value.line), '\'', key, "' in ", what, " is ", whatIs(value), "; write ", wanted);
}

kj::Maybe<PlacedText> TableReader::text(kj::StringPtr key) {
  KJ_IF_MAYBE (value, take(key)) {
    KJ_IF_MAYBE (text, value->content.tryGet<kj::String>()) return PlacedText{*text, at(value->line)};
    wrongType(key, *value, "a text in quotes");
  }
  return nullptr;
}

kj::Maybe<int64_t> TableReader::wholeNumber(kj::StringPtr key, int64_t least) {
  KJ_IF_MAYBE (value, take(key)) {
    KJ_IF_MAYBE (number, value->content.tryGet<int64_t>()) {
      if (*number >= least) return *number;
      problems.error(at(value->line), '\'', key, "' is ", *number, "; write at least ", least);
      return nullptr;
    }
    wrongType(key, *value, "a whole number");
  }
  return nullptr;
}

kj::Maybe<bool> TableReader::boolean(kj::StringPtr key) {
  KJ_IF_MAYBE (value, take(key)) {
    KJ_IF_MAYBE (flag, value->content.tryGet<bool>()) return *flag;
    wrongType(key, *value, "true or false");
  }
  return nullptr;
}

kj::Maybe<int64_t> TableReader::time(kj::StringPtr key) {
  KJ_IF_MAYBE (value, take(key)) {
    KJ_IF_MAYBE (time, value->content.tryGet<TomlTime>()) return time->seconds;
    wrongType(key, *value, "a date and time with its zone, without quotes, such as 2027-01-31T18:00:00Z");
  }
  return nullptr;
}

kj::Maybe<const TomlTable&> TableReader::subtable(kj::StringPtr key) {
  KJ_IF_MAYBE (value, take(key)) return subtableOf(key, *value);
  return nullptr;
}

kj::Maybe<const TomlTable&> TableReader::subtableOf(kj::StringPtr key, const TomlValue& value) {
  KJ_IF_MAYBE (inner, value.content.tryGet<TomlTable>()) return *inner;
  wrongType(key, value, "a table, { ... }");
  return nullptr;
}

kj::Maybe<kj::Vector<PlacedText>> TableReader::texts(kj::StringPtr key) {
  KJ_IF_MAYBE (value, take(key)) return textsOf(key, *value);
  return nullptr;
}

kj::Maybe<kj::Vector<PlacedText>> TableReader::textsOf(kj::StringPtr key, const TomlValue& value) {
  kj::Vector<PlacedText> out;
  KJ_IF_MAYBE (text, value.content.tryGet<kj::String>()) {
    out.add(PlacedText{*text, at(value.line)});
    return kj::mv(out);
  }
  KJ_IF_MAYBE (array, value.content.tryGet<TomlArray>()) {
    for (auto& element : array->values) {
      KJ_IF_MAYBE (text, element.content.tryGet<kj::String>()) {
        out.add(PlacedText{*text, at(element.line)});
      } else {
        wrongType(key, element, "texts in quotes");
        return nullptr;
      }
    }
    return kj::mv(out);
  }
  wrongType(key, value, "a text or a list of texts");
  return nullptr;
}

kj::Vector<const TomlValue*> TableReader::tables(kj::StringPtr key) {
  kj::Vector<const TomlValue*> out;
  KJ_IF_MAYBE (value, take(key)) {
    KJ_IF_MAYBE (array, value->content.tryGet<TomlArray>()) {
      for (auto& element : array->values) {
        if (element.content.is<TomlTable>()) {
          out.add(&element);
        } else {
          wrongType(key, element, "tables, { ... }");
        }
      }
    } else {
      wrongType(key, *value, kj::str("[[", key, "]], a table of its own for each"));
    }
  }
  return out;
}

void TableReader::refuse(kj::StringPtr key, kj::StringPtr why) {
  refused.add(key);
  KJ_IF_MAYBE (entry, find(key)) problems.error(at(entry->line), '\'', key, "' ", why);
}

void TableReader::finish() {
  auto contains = [](auto& list, kj::StringPtr key) {
    for (auto& one : list) {
      if (one == key) return true;
    }
    return false;
  };
  for (auto& entry : table.entries) {
    if (problems.isFull()) return;
    if (contains(asked, entry.key) || contains(refused, entry.key)) continue;
    auto hint = didYouMean(entry.key, asked);
    if (hint.size() == 0) hint = kj::str("; there are ", kj::strArray(asked, ", "));
    problems.error(at(entry.line), "unknown key ", quote(entry.key), " in ", what, hint);
  }
}

}  // namespace postern::policy
