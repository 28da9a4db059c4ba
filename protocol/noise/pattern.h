#pragma once
// The handshake patterns of the Noise specification (revision 34) as data: which tokens each message carries and which
// static keys both sides know beforehand. Nothing here is secret or comes from a peer.
//
// Built: the one-way and the interactive fundamental patterns (sections 7.4, 7.5), the deferred ones (section 18.1) and
// the modifiers psk0 to psk3 (section 9.4). Not built: `fallback`.

#include <kj/common.h>
#include <kj/string.h>
#include <stdint.h>

#include <array>

namespace postern::noise {

enum class Side : uint8_t { INITIATOR, RESPONDER };

enum class Token : uint8_t { NONE, E, S, EE, ES, SE, SS, PSK };

constexpr size_t MAX_MESSAGES = 4;
constexpr size_t MAX_PSKS = 4;
constexpr size_t MAX_ROW_TOKENS = 5;  // second message of KX and IX
// A psk more; the first message has two at most, but four tokens of its own.
constexpr size_t MAX_TOKENS = 6;
// "X1X1psk0+psk1+psk2+psk3"
constexpr size_t MAX_PATTERN_NAME = 4 + MAX_PSKS * 5 - 1;

// One row of the table: a pattern without modifiers. Unused places hold NONE, at the end.
struct PatternRow {
  enum class Shape : uint8_t { ONE_WAY, INTERACTIVE };
  // Whose static public key the other side has before the first message.
  enum class Known : uint8_t { NOBODY, INITIATOR, RESPONDER, BOTH };

  const char* name;
  Shape shape;
  Known known;
  Token messages[MAX_MESSAGES][MAX_ROW_TOKENS];
};

struct TokenList {
  std::array<Token, MAX_TOKENS> tokens{};
  size_t count = 0;

  const Token* begin() const { return tokens.data(); }
  const Token* end() const { return tokens.data() + count; }
};

// A row and its modifiers. A plain value of two words; the table lives for ever.
class Pattern {
 public:
  // Null for a name that is not in the table, for a modifier other than psk0 to psk3, for a psk behind the pattern's
  // last message, and for modifiers that are repeated or out of order (a protocol has one name only).
  static kj::Maybe<Pattern> parse(kj::StringPtr name);

  size_t messageCount() const;
  // Even messages are the initiator's.
  TokenList tokens(size_t message) const;

  bool isOneWay() const { return row->shape == PatternRow::Shape::ONE_WAY; }
  bool usesPsk() const { return psks != 0; }
  size_t pskCount() const;

  // Is `side`'s static public key known to the other side beforehand (a pre-message)?
  bool knowsStaticOf(Side side) const;
  // Does `side` send an ephemeral key, or have a static key, in this pattern?
  bool sendsEphemeral(Side side) const;
  bool hasStatic(Side side) const;

  // Writes the name, as parse() takes it, without a terminating zero; returns its length, MAX_PATTERN_NAME at most.
  size_t writeName(kj::ArrayPtr<char> out) const;

 private:
  Pattern(const PatternRow& row, uint8_t psks) : row(&row), psks(psks) {}

  const PatternRow* row;
  uint8_t psks;  // bit N: modifier pskN

  bool sends(Side side, Token token) const;
};

}  // namespace postern::noise
