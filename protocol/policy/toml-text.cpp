#include "protocol/policy/toml-text.h"

// Compiled in and without exceptions, whatever the package's flags say: no shared library, errors are values.
#undef TOML_HEADER_ONLY
#undef TOML_SHARED_LIB
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_UNRELEASED_FEATURES 0
#include <toml++/toml.h>

#include <kj/debug.h>
#include <string.h>

#include "protocol/policy/bounds.h"
#include "protocol/policy/units.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

TomlError tooDeep(unsigned line) {
  return {line,
          kj::str("brackets or dotted keys are nested deeper than ", MAX_NESTING, "; a policy needs three levels")};
}

// Skips a string that begins at `at` and ends on its line; toml++ says what is wrong with one that does not.
size_t skipString(kj::ArrayPtr<const char> text, size_t at) {
  char quote = text[at++];
  while (at < text.size() && text[at] != quote && text[at] != '\n') {
    if (quote == '"' && text[at] == '\\') ++at;
    ++at;
  }
  return at;
}

// Bounds what toml++ will recurse over, which bounds brackets itself, but at 256, and dotted keys not at all.
kj::Maybe<TomlError> checkShape(kj::ArrayPtr<const char> text) {
  if (text.size() > MAX_FILE_BYTES) {
    return TomlError{
        0, kj::str("the file has ", text.size(), " bytes, and a policy's file at most ", MAX_FILE_BYTES, "; split it")};
  }
  unsigned line = 1, depth = 0, dots = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    char c = text[at];
    if (c == '\n') {
      ++line;
      dots = 0;
    } else if (c == '#') {
      while (at + 1 < text.size() && text[at + 1] != '\n') ++at;
    } else if (c == '"' || c == '\'') {
      if (at + 2 < text.size() && text[at + 1] == c && text[at + 2] == c) {
        return TomlError{line, kj::str("a string over several lines; a policy has strings of one line only")};
      }
      at = skipString(text, at);
      if (at < text.size() && text[at] == '\n') --at;
    } else if (c == '[' || c == '{') {
      if (++depth > MAX_NESTING) return tooDeep(line);
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    } else if (c == '=' || c == ',') {
      dots = 0;  // the next key, or a value
    } else if (c == '.' && ++dots > MAX_NESTING) {
      return tooDeep(line);
    }
  }
  return nullptr;
}

unsigned lineOf(const toml::source_region& source) {
  return source.begin.line;
}

kj::String textOf(std::string_view text) {
  return kj::heapString(text.data(), text.size());
}

int64_t secondsOf(const toml::date_time& time) {
  int64_t days = daysSinceEpoch(time.date.year, time.date.month, time.date.day);
  int64_t seconds = int64_t(time.time.hour) * 3600 + int64_t(time.time.minute) * 60 + int64_t(time.time.second);
  return days * 86400 + seconds - int64_t(time.offset->minutes) * 60;
}

TomlTable tableOf(const toml::table& table);

TomlValue valueOf(const toml::node& node) {
  TomlValue out;
  out.line = lineOf(node.source());
  if (auto* table = node.as_table()) {
    out.content = tableOf(*table);
  } else if (auto* array = node.as_array()) {
    TomlArray values;
    for (auto& element : *array) values.values.add(valueOf(element));
    out.content = kj::mv(values);
  } else if (auto* string = node.as_string()) {
    out.content = textOf(string->get());
  } else if (auto* integer = node.as_integer()) {
    out.content = int64_t(integer->get());
  } else if (auto* boolean = node.as_boolean()) {
    out.content = boolean->get();
  } else if (auto* time = node.as_date_time()) {
    if (time->get().offset) {
      out.content = TomlTime{secondsOf(time->get())};
    } else {
      out.content = TomlOther{"a date and time without its zone"_kj};
    }
  } else if (node.is_floating_point()) {
    out.content = TomlOther{"a number with a fraction"_kj};
  } else {
    out.content = TomlOther{"a date or a time alone"_kj};
  }
  return out;
}

TomlTable tableOf(const toml::table& table) {
  TomlTable out;
  for (auto&& [key, node] : table) {
    out.entries.add(TomlEntry{textOf(key.str()), lineOf(key.source()), kj::heap(valueOf(node))});
  }
  return out;
}

}  // namespace

kj::StringPtr whatIs(const TomlValue& value) {
  KJ_SWITCH_ONEOF(value.content) {
    KJ_CASE_ONEOF(text, kj::String) return "a text"_kj;
    KJ_CASE_ONEOF(number, int64_t) return "a number"_kj;
    KJ_CASE_ONEOF(boolean, bool) return "true or false"_kj;
    KJ_CASE_ONEOF(time, TomlTime) return "a date and time"_kj;
    KJ_CASE_ONEOF(other, TomlOther) return other.what;
    KJ_CASE_ONEOF(array, TomlArray) return "a list"_kj;
    KJ_CASE_ONEOF(table, TomlTable) return "a table"_kj;
  }
  KJ_UNREACHABLE;
}

kj::OneOf<TomlTable, TomlError> parseToml(kj::ArrayPtr<const char> untrusted) {
  KJ_IF_MAYBE (wrong, checkShape(untrusted)) return kj::mv(*wrong);
  auto result = toml::parse(std::string_view(untrusted.begin(), untrusted.size()));
  if (!result) {
    auto& error = result.error();
    auto text = textOf(error.description());
    for (char& c : text) {
      if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
    }
    return TomlError{lineOf(error.source()), kj::str("not TOML: ", text)};
  }
  return tableOf(result.table());
}

}  // namespace postern::policy
