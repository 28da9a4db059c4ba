#include "host/audit/audit-line.h"

#include <ctype.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <kj/vector.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

namespace postern::host {

namespace {

constexpr size_t SUM_BYTES = 8;
constexpr size_t HASH_HEX = 64;
constexpr kj::StringPtr PREV = ",\"prev\":\""_kj;
constexpr kj::StringPtr SUM = "\",\"sum\":\""_kj;
constexpr kj::StringPtr END = "\"}"_kj;
// prev, its value, sum, its value, end: every line ends with that many characters of known form.
constexpr size_t TAIL_CHARS = 9 + HASH_HEX + 9 + 2 * SUM_BYTES + 2;

constexpr kj::StringPtr OWN_KEYS[] = {"seq"_kj,     "file"_kj, "time"_kj,       "who"_kj,   "vm"_kj,
                                      "call"_kj,    "rule"_kj, "outcome"_kj,    "bytes"_kj, "duration-us"_kj,
                                      "dropped"_kj, "torn"_kj, "torn-bytes"_kj, "prev"_kj,  "sum"_kj};

void put(kj::Vector<char>& out, kj::ArrayPtr<const char> text) {
  out.addAll(text.begin(), text.end());
}

void putNumber(kj::Vector<char>& out, kj::StringPtr key, uint64_t value) {
  put(out, kj::str(",\"", key, "\":", value));
}

// A UTF-8 sequence at `at`: its code point and length; U+FFFD and one byte if there is none.
struct Decoded {
  uint32_t codePoint;
  size_t bytes;
};
Decoded decode(kj::ArrayPtr<const char> text, size_t at) {
  constexpr Decoded bad = {0xfffd, 1};
  auto byteAt = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  uint8_t first = byteAt(at);
  if (first < 0x80) return {first, 1};
  size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return bad;
  uint32_t codePoint = first & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byteAt(at + i) & 0xc0) != 0x80) return bad;
    codePoint = codePoint << 6 | (byteAt(at + i) & 0x3f);
  }
  constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  bool surrogate = codePoint >= 0xd800 && codePoint <= 0xdfff;
  if (codePoint < smallest[length] || codePoint > 0x10ffff || surrogate) return bad;
  return {codePoint, length};
}

kj::String escaped(uint32_t codePoint) {
  auto unit = [](uint32_t value) {
    const kj::byte bytes[] = {kj::byte(value >> 8), kj::byte(value)};
    return kj::str("\\u", kj::encodeHex(bytes));
  };
  if (codePoint == '"') return kj::str("\\\"");
  if (codePoint == '\\') return kj::str("\\\\");
  if (codePoint >= ' ' && codePoint <= '~') return kj::str(char(codePoint));
  if (codePoint < 0x10000) return unit(codePoint);
  return kj::str(unit(0xd800 + ((codePoint - 0x10000) >> 10)), unit(0xdc00 + ((codePoint - 0x10000) & 0x3ff)));
}

void putText(kj::Vector<char>& out, kj::StringPtr key, kj::ArrayPtr<const char> untrustedText) {
  constexpr kj::StringPtr ellipsis = "..."_kj;
  put(out, kj::str(",\"", key, "\":\""));
  size_t end = out.size() + MAX_TEXT_BYTES - ellipsis.size();
  for (size_t at = 0; at < untrustedText.size();) {
    auto next = decode(untrustedText, at);
    auto safe = escaped(next.codePoint);
    if (out.size() + safe.size() > end) {
      put(out, ellipsis);
      break;
    }
    put(out, safe);
    at += next.bytes;
  }
  out.add('"');
}

void putNamed(kj::Vector<char>& out, kj::StringPtr key, kj::StringPtr text) {
  if (text.size() > 0) putText(out, key, text);
}

bool isFreeKey(kj::StringPtr key) {
  for (auto own : OWN_KEYS) {
    if (key == own) return false;
  }
  for (char c : key) {
    if (!islower(c) && !isdigit(c) && c != '-') return false;
  }
  return key.size() > 0 && key.size() <= 32;
}

void putField(kj::Vector<char>& out, const AuditField& field) {
  KJ_REQUIRE(isFreeKey(field.key), "not a key for a free field of the audit log", field.key);
  KJ_SWITCH_ONEOF(field.value) {
    KJ_CASE_ONEOF(text, kj::StringPtr) {
      putText(out, field.key, text);
    }
    KJ_CASE_ONEOF(number, int64_t) {
      put(out, kj::str(",\"", field.key, "\":", number));
    }
    KJ_CASE_ONEOF(flag, bool) {
      put(out, kj::str(",\"", field.key, "\":", flag ? "true" : "false"));
    }
  }
}

kj::String sumOf(kj::ArrayPtr<const char> text) {
  auto hash = hashLine(text);
  return kj::encodeHex(kj::arrayPtr(hash.data(), SUM_BYTES));
}

bool startsWith(kj::ArrayPtr<const char> text, kj::StringPtr prefix) {
  return text.size() >= prefix.size() && memcmp(text.begin(), prefix.begin(), prefix.size()) == 0;
}

// `"KEY":NUMBER` at the beginning of `rest`, which is moved behind it.
kj::Maybe<uint64_t> takeNumber(kj::ArrayPtr<const char>& rest, kj::StringPtr before) {
  if (!startsWith(rest, before)) return nullptr;
  size_t at = before.size();
  uint64_t value = 0;
  size_t digits = 0;
  for (; at < rest.size() && isdigit(rest[at]) && digits < 19; ++at, ++digits)
    value = value * 10 + uint64_t(rest[at] - '0');
  if (digits == 0) return nullptr;
  rest = rest.slice(at, rest.size());
  return value;
}

}  // namespace

LineHash hashLine(kj::ArrayPtr<const char> line) {
  LineHash hash;
  auto bytes = line.asBytes();
  crypto_generichash(hash.data(), hash.size(), bytes.begin(), bytes.size(), nullptr, 0);
  return hash;
}

kj::String hexOf(const LineHash& hash) {
  return kj::encodeHex(kj::arrayPtr(hash.data(), hash.size()));
}

kj::String formatTime(kj::Date time) {
  auto micros = (time - kj::UNIX_EPOCH) / kj::MICROSECONDS;
  auto fraction = (micros % 1'000'000 + 1'000'000) % 1'000'000;
  time_t seconds = (micros - fraction) / 1'000'000;
  tm utc;
  gmtime_r(&seconds, &utc);
  char text[64];
  size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  auto digits = kj::str(1'000'000 + fraction);
  return kj::str(kj::arrayPtr(text, n), ".", digits.slice(1), "Z");
}

// T56
kj::String formatLine(const AuditEvent& event, const LinePlace& place) {
  KJ_REQUIRE(event.more.size() <= MAX_AUDIT_FIELDS, "too many fields in an audit event", event.more.size());
  kj::Vector<char> out(512);
  put(out, kj::str("{\"seq\":", place.sequence));
  KJ_IF_MAYBE (number, place.file) putNumber(out, "file", *number);
  put(out, kj::str(",\"time\":\"", formatTime(event.time), '"'));
  putNamed(out, "who", event.who);
  putNamed(out, "vm", event.vm);
  putNamed(out, "call", event.call);
  putNamed(out, "rule", event.rule);
  putNamed(out, "outcome", event.outcome);
  KJ_IF_MAYBE (bytes, event.bytes) putNumber(out, "bytes", *bytes);
  KJ_IF_MAYBE (duration, event.duration) {
    putNumber(out, "duration-us", uint64_t(kj::max(int64_t(0), *duration / kj::MICROSECONDS)));
  }
  for (auto& field : event.more) putField(out, field);
  if (place.dropped > 0) putNumber(out, "dropped", place.dropped);
  if (place.torn.size() > 0) {
    putText(out, "torn", place.torn);
    putNumber(out, "torn-bytes", place.torn.size());
  }
  put(out, kj::str(PREV, hexOf(place.previous)));
  put(out, kj::str(SUM, sumOf(out), END, '\n'));
  KJ_ASSERT(out.size() <= MAX_LINE_BYTES);
  return kj::heapString(out.begin(), out.size());
}

kj::Maybe<ParsedLine> parseLine(kj::ArrayPtr<const char> line) {
  if (line.size() <= TAIL_CHARS || line.size() > MAX_LINE_BYTES) return nullptr;
  auto tail = line.slice(line.size() - TAIL_CHARS, line.size());
  if (!startsWith(tail, PREV)) return nullptr;
  auto previous = tail.slice(PREV.size(), PREV.size() + HASH_HEX);
  size_t sumAt = PREV.size() + HASH_HEX;
  if (!startsWith(tail.slice(sumAt, tail.size()), SUM)) return nullptr;
  auto sum = sumOf(line.slice(0, line.size() - TAIL_CHARS + sumAt));
  if (tail.slice(sumAt + SUM.size(), TAIL_CHARS) != kj::str(sum, END).asArray()) return nullptr;

  auto rest = line;
  auto sequence = takeNumber(rest, "{\"seq\":");
  KJ_IF_MAYBE (number, sequence) {
    auto file = takeNumber(rest, ",\"file\":");
    if (!startsWith(rest, ",\"time\":\"")) return nullptr;
    return ParsedLine{*number, file, previous};
  }
  return nullptr;
}

}  // namespace postern::host
