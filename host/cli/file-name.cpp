#include "host/cli/file-name.h"

#include <kj/encoding.h>
#include <string.h>

#include "transport/utf8.h"

namespace postern::cli {

namespace {

enum class Spaces { ESCAPED, PLAIN };

// Letters and signs, but for what changes how the rest of a line looks: controls, bidirectional marks, what has no
// width.
bool isVisible(uint32_t character) {
  struct Range {
    uint32_t first, last;
  };
  static constexpr Range INVISIBLE[] = {{0x7f, 0x9f},       {0xad, 0xad},     {0x61c, 0x61c},   {0x180e, 0x180e},
                                        {0x200b, 0x200f},   {0x2028, 0x202f}, {0x205f, 0x206f}, {0x3000, 0x3000},
                                        {0xe000, 0xf8ff},   {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff0, 0xffff},
                                        {0xe0000, 0x10ffff}};
  if (character < ' ') return false;
  for (auto& range : INVISIBLE) {
    if (character >= range.first && character <= range.last) return false;
  }
  return true;
}

void addEscaped(kj::Vector<char>& out, char byte) {
  static constexpr kj::StringPtr LETTERS = "abtnvfr"_kj;  // 7 to 13
  auto value = static_cast<unsigned char>(byte);
  out.add('\\');
  if (value >= 7 && value <= 13) {
    out.add(LETTERS[value - 7]);
    return;
  }
  for (int shift = 6; shift >= 0; shift -= 3) out.add(static_cast<char>('0' + ((value >> shift) & 7)));
}

kj::String escaped(kj::ArrayPtr<const char> rest, Letters letters, Spaces spaces) {
  kj::Vector<char> out;
  while (rest.size() > 0) {
    auto before = rest;
    auto character = takeCharacter(rest).orDefault(0);
    auto bytes = before.slice(0, before.size() - rest.size());
    bool visible = isVisible(character) && (character < 0x80 || letters == Letters::UTF8);
    if (!visible) {
      for (char byte : bytes) addEscaped(out, byte);
      continue;
    }
    if (character == '\\' || (character == ' ' && spaces == Spaces::ESCAPED)) out.add('\\');
    out.addAll(bytes);
  }
  return kj::heapString(out);
}

bool isPlainInShell(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         strchr("-_./:=@%+,", c) != nullptr;
}

}  // namespace

kj::String escapedName(kj::ArrayPtr<const char> untrusted, Letters letters) {
  return escaped(untrusted, letters, Spaces::ESCAPED);
}

kj::String shownPath(kj::ArrayPtr<const char> untrusted, Letters letters) {
  return escaped(untrusted, letters, Spaces::PLAIN);
}

kj::String shellWord(kj::StringPtr word, Letters letters) {
  bool plain = word.size() > 0, visible = true;
  for (char c : word) plain = plain && isPlainInShell(c);
  if (plain) return kj::str(word);
  for (auto rest = word.asArray(); rest.size() > 0;) {
    auto character = takeCharacter(rest).orDefault(0);
    visible = visible && isVisible(character) && (character < 0x80 || letters == Letters::UTF8);
  }
  kj::Vector<char> out;
  out.addAll(visible ? "'"_kj : "$'"_kj);
  for (char c : word) {
    if (c == '\'') {
      out.addAll(visible ? "'\\''"_kj : "\\'"_kj);
    } else if (visible || (c >= ' ' && c <= '~' && c != '\\')) {
      out.add(c);
    } else {
      addEscaped(out, c);
    }
  }
  out.add('\'');
  return kj::heapString(out);
}

void writeName(JsonWriter& json, kj::StringPtr key, kj::StringPtr untrusted) {
  if (isUtf8(untrusted)) {
    json.field(key, untrusted);
  } else {
    json.field(kj::str(key, "Base64"), kj::encodeBase64(untrusted.asBytes(), /* breakLines */ false));
  }
}

}  // namespace postern::cli
