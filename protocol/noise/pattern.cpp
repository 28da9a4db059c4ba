#include "protocol/noise/pattern.h"

#include <kj/debug.h>
#include <string.h>

namespace postern::noise {
namespace {

using enum Token;
using enum PatternRow::Shape;
using enum PatternRow::Known;

constexpr PatternRow TABLE[] = {
    // Section 7.4
    {"N", ONE_WAY, RESPONDER, {{E, ES}}},
    {"K", ONE_WAY, BOTH, {{E, ES, SS}}},
    {"X", ONE_WAY, RESPONDER, {{E, ES, S, SS}}},
    // Section 7.5
    {"NN", INTERACTIVE, NOBODY, {{E}, {E, EE}}},
    {"NK", INTERACTIVE, RESPONDER, {{E, ES}, {E, EE}}},
    {"NX", INTERACTIVE, NOBODY, {{E}, {E, EE, S, ES}}},
    {"XN", INTERACTIVE, NOBODY, {{E}, {E, EE}, {S, SE}}},
    {"XK", INTERACTIVE, RESPONDER, {{E, ES}, {E, EE}, {S, SE}}},
    {"XX", INTERACTIVE, NOBODY, {{E}, {E, EE, S, ES}, {S, SE}}},
    {"KN", INTERACTIVE, INITIATOR, {{E}, {E, EE, SE}}},
    {"KK", INTERACTIVE, BOTH, {{E, ES, SS}, {E, EE, SE}}},
    {"KX", INTERACTIVE, INITIATOR, {{E}, {E, EE, SE, S, ES}}},
    {"IN", INTERACTIVE, NOBODY, {{E, S}, {E, EE, SE}}},
    {"IK", INTERACTIVE, RESPONDER, {{E, ES, S, SS}, {E, EE, SE}}},
    {"IX", INTERACTIVE, NOBODY, {{E, S}, {E, EE, SE, S, ES}}},
    // Section 18.1
    {"NK1", INTERACTIVE, RESPONDER, {{E}, {E, EE, ES}}},
    {"NX1", INTERACTIVE, NOBODY, {{E}, {E, EE, S}, {ES}}},
    {"X1N", INTERACTIVE, NOBODY, {{E}, {E, EE}, {S}, {SE}}},
    {"X1K", INTERACTIVE, RESPONDER, {{E, ES}, {E, EE}, {S}, {SE}}},
    {"XK1", INTERACTIVE, RESPONDER, {{E}, {E, EE, ES}, {S, SE}}},
    {"X1K1", INTERACTIVE, RESPONDER, {{E}, {E, EE, ES}, {S}, {SE}}},
    {"X1X", INTERACTIVE, NOBODY, {{E}, {E, EE, S, ES}, {S}, {SE}}},
    {"XX1", INTERACTIVE, NOBODY, {{E}, {E, EE, S}, {ES, S, SE}}},
    {"X1X1", INTERACTIVE, NOBODY, {{E}, {E, EE, S}, {ES, S}, {SE}}},
    {"K1N", INTERACTIVE, INITIATOR, {{E}, {E, EE}, {SE}}},
    {"K1K", INTERACTIVE, BOTH, {{E, ES}, {E, EE}, {SE}}},
    {"KK1", INTERACTIVE, BOTH, {{E}, {E, EE, SE, ES}}},
    {"K1K1", INTERACTIVE, BOTH, {{E}, {E, EE, ES}, {SE}}},
    {"K1X", INTERACTIVE, INITIATOR, {{E}, {E, EE, S, ES}, {SE}}},
    {"KX1", INTERACTIVE, INITIATOR, {{E}, {E, EE, SE, S}, {ES}}},
    {"K1X1", INTERACTIVE, INITIATOR, {{E}, {E, EE, S}, {SE, ES}}},
    {"I1N", INTERACTIVE, NOBODY, {{E, S}, {E, EE}, {SE}}},
    {"I1K", INTERACTIVE, RESPONDER, {{E, ES, S}, {E, EE}, {SE}}},
    {"IK1", INTERACTIVE, RESPONDER, {{E, S}, {E, EE, SE, ES}}},
    {"I1K1", INTERACTIVE, RESPONDER, {{E, S}, {E, EE, ES}, {SE}}},
    {"I1X", INTERACTIVE, NOBODY, {{E, S}, {E, EE, S, ES}, {SE}}},
    {"IX1", INTERACTIVE, NOBODY, {{E, S}, {E, EE, SE, S}, {ES}}},
    {"I1X1", INTERACTIVE, NOBODY, {{E, S}, {E, EE, S}, {SE, ES}}},
};

constexpr char MODIFIER[] = "psk";
constexpr size_t MODIFIER_LENGTH = sizeof(MODIFIER) - 1;

// The modifiers behind a pattern's name ("psk0+psk2") as bits. Null unless they are pskN in rising order.
kj::Maybe<uint8_t> parseModifiers(const char* text) {
  uint8_t psks = 0;
  for (int previous = -1;;) {
    if (strncmp(text, MODIFIER, MODIFIER_LENGTH) != 0) return nullptr;
    int number = text[MODIFIER_LENGTH] - '0';
    if (number <= previous || number >= int(MAX_PSKS)) return nullptr;
    psks = uint8_t(psks | 1u << number);
    previous = number;
    text += MODIFIER_LENGTH + 1;
    if (*text == '\0') return psks;
    if (*text++ != '+') return nullptr;
  }
}

}  // namespace

kj::Maybe<Pattern> Pattern::parse(kj::StringPtr name) {
  if (strlen(name.cStr()) != name.size()) return nullptr;
  for (auto& row : TABLE) {
    // No base name contains a lower-case letter, so a name ends where its modifiers begin.
    size_t length = strlen(row.name);
    if (!name.startsWith(row.name)) continue;
    if (name.size() == length) return Pattern(row, 0);
    if (name[length] != MODIFIER[0]) continue;

    KJ_IF_MAYBE (psks, parseModifiers(name.cStr() + length)) {
      Pattern pattern(row, *psks);
      if (*psks >> (pattern.messageCount() + 1) != 0) return nullptr;
      return pattern;
    }
    return nullptr;
  }
  return nullptr;
}

size_t Pattern::messageCount() const {
  size_t count = 0;
  while (count < MAX_MESSAGES && row->messages[count][0] != NONE) ++count;
  return count;
}

TokenList Pattern::tokens(size_t message) const {
  KJ_IREQUIRE(message < messageCount());
  TokenList list;
  auto add = [&list](Token token) { list.tokens[list.count++] = token; };

  // psk0 opens the first message, pskN closes the Nth (section 9.4).
  if (message == 0 && (psks & 1u) != 0) add(PSK);
  for (auto token : row->messages[message]) {
    if (token != NONE) add(token);
  }
  if ((psks >> (message + 1) & 1u) != 0) add(PSK);
  return list;
}

size_t Pattern::pskCount() const {
  return size_t(__builtin_popcount(psks));
}

bool Pattern::knowsStaticOf(Side side) const {
  return row->known == BOTH || row->known == (side == Side::INITIATOR ? INITIATOR : RESPONDER);
}

bool Pattern::sends(Side side, Token wanted) const {
  for (size_t message = side == Side::INITIATOR ? 0 : 1; message < MAX_MESSAGES; message += 2) {
    for (auto token : row->messages[message]) {
      if (token == wanted) return true;
    }
  }
  return false;
}

bool Pattern::sendsEphemeral(Side side) const {
  return sends(side, E);
}
bool Pattern::hasStatic(Side side) const {
  return knowsStaticOf(side) || sends(side, S);
}

size_t Pattern::writeName(kj::ArrayPtr<char> out) const {
  KJ_REQUIRE(out.size() >= MAX_PATTERN_NAME);
  size_t length = 0;
  auto add = [&](const char* text, size_t count) {
    memcpy(out.begin() + length, text, count);
    length += count;
  };
  add(row->name, strlen(row->name));
  bool first = true;
  for (size_t number = 0; number < MAX_PSKS; ++number) {
    if ((psks >> number & 1u) == 0) continue;
    if (!first) add("+", 1);
    first = false;
    add(MODIFIER, MODIFIER_LENGTH);
    char digit = char('0' + number);
    add(&digit, 1);
  }
  return length;
}

}  // namespace postern::noise
