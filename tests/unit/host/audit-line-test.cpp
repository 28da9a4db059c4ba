#include "host/audit/audit-line.h"

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <string.h>

#include <random>

namespace postern::host {
namespace {

bool contains(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

// Just enough of JSON to say whether a line is one flat object of strings, numbers and booleans, in printable ASCII.
bool isFlatJson(kj::StringPtr line) {
  const char* at = line.cStr();
  auto take = [&](char c) { return *at == c ? (++at, true) : false; };
  auto string = [&] {
    if (!take('"')) return false;
    while (*at != '"') {
      if (*at < ' ' || *at > '~') return false;
      if (*at++ != '\\') continue;
      if (*at == 'u') {
        for (int i = 1; i <= 4; ++i) {
          if (!isxdigit(at[i])) return false;
        }
        at += 5;
      } else if (strchr("\"\\/bfnrt", *at++) == nullptr) {
        return false;
      }
    }
    return take('"');
  };
  auto scalar = [&] {
    if (*at == '"') return string();
    if (strncmp(at, "true", 4) == 0) return (at += 4, true);
    if (strncmp(at, "false", 5) == 0) return (at += 5, true);
    (void)take('-');
    if (!isdigit(*at)) return false;
    while (isdigit(*at)) ++at;
    return true;
  };
  if (!take('{')) return false;
  do {
    if (!string() || !take(':') || !scalar()) return false;
  } while (take(','));
  return take('}') && take('\n') && *at == '\0' && at == line.end();
}

kj::String lineWith(kj::StringPtr text) {
  AuditEvent event;
  event.who = text;
  auto line = formatLine(event, LinePlace());
  CHECK(isFlatJson(line));
  CHECK(parseLine(line.slice(0, line.size() - 1)) != nullptr);
  return line;
}

TEST_CASE("a line has its fields in a fixed order, its place in the chain, and nothing that was not given") {
  AuditEvent event;
  event.time = kj::UNIX_EPOCH + 1'780'000'000 * kj::SECONDS + 1 * kj::MICROSECONDS;
  event.who = "user:alice";
  event.vm = "web1";
  event.call = "file.put";
  event.rule = "site-content";
  event.outcome = "done";
  event.bytes = 4096;
  event.duration = 1500 * kj::MICROSECONDS;
  const AuditField more[] = {{"path", "/srv/www/a"_kj}, {"exit", int64_t(-1)}, {"resumed", true}};
  event.more = more;
  LinePlace place;
  place.sequence = 12;
  place.file = 3;
  place.previous.fill(0xab);
  place.dropped = 2;
  place.torn = "{\"se"_kj.asArray();
  auto line = formatLine(event, place);
  auto expected = kj::str(
      "{\"seq\":12,\"file\":3,\"time\":\"2026-05-28T20:26:40.000001Z\",\"who\":\"user:alice\",\"vm\":\"web1\","
      "\"call\":\"file.put\",\"rule\":\"site-content\",\"outcome\":\"done\",\"bytes\":4096,"
      "\"duration-us\":1500,\"path\":\"/srv/www/a\",\"exit\":-1,\"resumed\":true,\"dropped\":2,"
      "\"torn\":\"{\\\"se\",\"torn-bytes\":4,\"prev\":\"",
      hexOf(place.previous), "\",\"sum\":\"");
  CHECK((line.slice(0, expected.size()) == expected.asArray()));
  CHECK(line.size() == expected.size() + 16 + 3);
  CHECK(isFlatJson(line));
  auto parsed = KJ_ASSERT_NONNULL(parseLine(line.slice(0, line.size() - 1)));
  CHECK(parsed.sequence == 12);
  CHECK(KJ_ASSERT_NONNULL(parsed.file) == 3);
  CHECK((parsed.previous == hexOf(place.previous).asArray()));
}

// T56
TEST_CASE("hostile texts are made safe: quotes, control characters, escape sequences, bidi, invalid UTF-8") {
  CHECK(contains(lineWith("a\"b\\c"), "\"a\\\"b\\\\c\""));
  CHECK(contains(lineWith("x\",\"outcome\":\"allowed"), "x\\\",\\\"outcome\\\":\\\"allowed"));
  CHECK(contains(lineWith("a\nb\r\t\x1b[2J\x7f"), "\"a\\u000ab\\u000d\\u0009\\u001b[2J\\u007f\""));
  CHECK(contains(lineWith("J\xc3\xb6rg"), "\"J\\u00f6rg\""));
  CHECK(contains(lineWith("\xe2\x80\xae"
                          "evil"),
                 "\"\\u202eevil\""));
  CHECK(contains(lineWith("\xf0\x9f\x98\x80"), "\"\\ud83d\\ude00\""));
  CHECK(contains(lineWith("\xff"
                          "a\xc3"),
                 "\"\\ufffda\\ufffd\""));
  CHECK(contains(lineWith("\xc0\xaf"), "\"\\ufffd\\ufffd\""));             // overlong
  CHECK(contains(lineWith("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\""));  // a surrogate
  CHECK(contains(lineWith("\xf4\x90\x80\x80"), "\\ufffd\\ufffd\\ufffd"));  // above U+10FFFF
  auto withNul = kj::heapString("a\0b", 3);
  CHECK(contains(lineWith(withNul), "\"a\\u0000b\""));
}

TEST_CASE("random bytes of every kind give one line of JSON that parses") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    auto text = kj::heapString(random() % 100);
    for (char& c : text) c = char(random());
    lineWith(text);
  }
}

TEST_CASE("a text of a megabyte is bounded, and so is a line that is full of them") {
  auto huge = kj::str(kj::repeat('x', 1 << 20));
  auto line = lineWith(huge);
  CHECK(line.size() < MAX_TEXT_BYTES + 512);
  CHECK(contains(line, "xxx...\""));
  auto escapes = kj::str(kj::repeat('\x01', 1 << 20));
  AuditField more[MAX_AUDIT_FIELDS];
  kj::Vector<kj::String> keys;
  for (size_t i = 0; i < MAX_AUDIT_FIELDS; ++i) {
    keys.add(kj::str("key-", i));
    more[i] = {keys.back(), kj::StringPtr(escapes)};
  }
  AuditEvent event;
  event.who = event.vm = event.call = event.rule = event.outcome = escapes;
  event.more = more;
  LinePlace place;
  place.torn = escapes;
  line = formatLine(event, place);
  CHECK(line.size() <= MAX_LINE_BYTES);
  CHECK(isFlatJson(line));
  CHECK(parseLine(line.slice(0, line.size() - 1)) != nullptr);
}

TEST_CASE("a free field cannot take the name of one of the line's own, nor any name that needs escaping") {
  for (kj::StringPtr key : {"seq", "prev", "sum", "who", "torn", "", "Path", "a b", "a\"b", "ä"}) {
    const AuditField more[] = {{key, true}};
    AuditEvent event;
    event.more = more;
    CHECK_THROWS_AS(formatLine(event, LinePlace()), kj::Exception);
  }
  AuditField tooMany[MAX_AUDIT_FIELDS + 1];
  AuditEvent event;
  event.more = tooMany;
  CHECK_THROWS_AS(formatLine(event, LinePlace()), kj::Exception);
}

TEST_CASE("times are RFC 3339 in UTC with microseconds, before 1970 as well") {
  CHECK((formatTime(kj::UNIX_EPOCH) == "1970-01-01T00:00:00.000000Z"));
  CHECK((formatTime(kj::UNIX_EPOCH - 1 * kj::MICROSECONDS) == "1969-12-31T23:59:59.999999Z"));
  CHECK((formatTime(kj::UNIX_EPOCH + 951782400 * kj::SECONDS) == "2000-02-29T00:00:00.000000Z"));
}

TEST_CASE("what is no line is not parsed: empty, cut anywhere, with anything before or behind it") {
  AuditEvent event;
  event.who = "x";
  auto line = formatLine(event, LinePlace());
  auto text = line.slice(0, line.size() - 1);
  for (size_t n = 0; n < text.size(); ++n) CHECK(parseLine(text.slice(0, n)) == nullptr);
  for (size_t n = 1; n < text.size(); ++n) CHECK(parseLine(text.slice(n, text.size())) == nullptr);
  CHECK(parseLine(line) == nullptr);  // with its newline
  CHECK(parseLine(kj::str(" ", text)) == nullptr);
}

}  // namespace
}  // namespace postern::host
