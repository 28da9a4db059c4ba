#include "transport/checkup/checkup.h"

#include <string.h>

#include "transport/printable.h"

namespace postern {

namespace {

constexpr size_t MAX_LINE_BYTES = 1000;
constexpr size_t MAX_REMEDY_LINES = 50;

kj::String printableLines(kj::StringPtr text) {
  kj::Vector<kj::String> lines;
  auto rest = text.asArray();
  while (rest.size() > 0 && lines.size() < MAX_REMEDY_LINES) {
    size_t end = 0;
    while (end < rest.size() && rest[end] != '\n') ++end;
    lines.add(printable(rest.slice(0, end), MAX_LINE_BYTES));
    rest = rest.slice(kj::min(end + 1, rest.size()), rest.size());
  }
  return kj::strArray(lines, "\n");
}

kj::String padded(kj::StringPtr text, size_t width) {
  return kj::str(text, kj::repeat(' ', width - kj::min(width, text.size())));
}

kj::String indented(kj::StringPtr lines, size_t indent) {
  kj::Vector<char> out;
  auto spaces = kj::repeat(' ', indent);
  bool atBegin = true;
  for (char c : lines) {
    if (atBegin) out.addAll(spaces);
    atBegin = c == '\n';
    out.add(c);
  }
  return kj::heapString(out);
}

}  // namespace

kj::StringPtr gradeName(Grade grade) {
  switch (grade) {
    case Grade::OK:
      return "ok";
    case Grade::WARNING:
      return "warning";
    case Grade::WRONG:
      return "wrong";
  }
  KJ_UNREACHABLE;
}

void Checkup::add(Grade grade, kj::StringPtr text, kj::StringPtr remedy) {
  found.add(Finding{check, grade, printable(text.asArray(), MAX_LINE_BYTES), printableLines(remedy)});
}

Grade Checkup::gradeOf(kj::StringPtr name) const {
  auto worst = Grade::OK;
  for (auto& finding : found) {
    if (finding.check == name) worst = kj::max(worst, finding.grade);
  }
  return worst;
}

Grade Checkup::grade() const {
  auto worst = Grade::OK;
  for (auto& finding : found) worst = kj::max(worst, finding.grade);
  return worst;
}

kj::String Checkup::toText() const {
  constexpr size_t GRADE_WIDTH = 9;
  size_t nameWidth = 0;
  for (auto& finding : found) nameWidth = kj::max(nameWidth, finding.check.size() + 2);
  kj::Vector<kj::String> lines;
  for (auto& finding : found) {
    lines.add(kj::str(padded(gradeName(finding.grade), GRADE_WIDTH), padded(finding.check, nameWidth), finding.text));
    if (finding.remedy.size() > 0) lines.add(indented(finding.remedy, GRADE_WIDTH + nameWidth));
  }
  return kj::str(kj::strArray(lines, "\n"), '\n');
}

void Checkup::write(JsonWriter& json) const {
  json.key("checks").beginArray();
  for (auto& finding : found) {
    json.beginObject().field("check", finding.check).field("grade", gradeName(finding.grade));
    json.field("text", finding.text).field("remedy", finding.remedy).endObject();
  }
  json.endArray();
}

kj::String shellWord(kj::StringPtr path) {
  bool plain = path.size() > 0;
  for (char c : path) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    plain &= letter || strchr("/._-+:@%,=", c) != nullptr;
  }
  if (plain) return kj::str(path);
  kj::Vector<char> out;
  out.add('\'');
  for (char c : path) {
    if (c == '\'') out.addAll("'\\'"_kj);
    out.add(c);
  }
  out.add('\'');
  return kj::heapString(out);
}

}  // namespace postern
