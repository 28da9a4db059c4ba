#include "protocol/noise/pattern.h"

#include <doctest/doctest.h>

#include <set>

#include "tests/unit/protocol/noise-meeting.h"

namespace postern::noise {
namespace {

kj::String nameOf(const Pattern& pattern) {
  char name[MAX_PATTERN_NAME];
  return kj::heapString(name, pattern.writeName(name));
}

kj::Vector<Token> allTokens(const Pattern& pattern, size_t message) {
  kj::Vector<Token> tokens;
  for (auto token : pattern.tokens(message)) tokens.add(token);
  return tokens;
}

TEST_CASE("every pattern is found by its name and gives the name back, with and without psks") {
  for (auto name : ALL_PATTERNS) {
    CHECK((nameOf(patternOf(name)) == name));
    for (auto modifiers : {"psk0"_kj, "psk1"_kj, "psk0+psk1"_kj}) {
      auto full = kj::str(name, modifiers);
      CHECK((nameOf(patternOf(full)) == full));
    }
  }
  CHECK((nameOf(patternOf("X1X1psk0+psk1+psk2+psk3")) == "X1X1psk0+psk1+psk2+psk3"));
}

TEST_CASE("a name that is no pattern's does not parse") {
  for (auto name : {"",
                    "n",
                    "A",
                    "NNN",
                    "KK ",
                    " KK",
                    "kk",
                    "NN1",
                    "N1",
                    "XX11",
                    "KKfallback",
                    "XXfallback",
                    "KKpsk",
                    "KKpsk4",
                    "KKpsk9",
                    "KKpsk-1",
                    "KKpsk/",
                    "KKpsk00",
                    "KKpsk0 ",
                    "KKpsk0+",
                    "KKpsk0+psk",
                    "KKpsk0+psk0",
                    "KKpsk1+psk0",
                    "KKpsk0psk1",
                    "KKpsk0,psk1",
                    "KKPSK0",
                    "KK+psk0",
                    "psk0",
                    "KKpsk0+fallback",
                    "KKhfs",
                    "Noise_KK"}) {
    CAPTURE(name);
    CHECK((Pattern::parse(name) == nullptr));
  }
  CHECK((Pattern::parse(kj::StringPtr("KK\0psk0", 7)) == nullptr));
}

TEST_CASE("a psk behind the last message does not parse") {
  CHECK((Pattern::parse("Npsk1") != nullptr));
  CHECK((Pattern::parse("Npsk2") == nullptr));
  CHECK((Pattern::parse("KKpsk2") != nullptr));
  CHECK((Pattern::parse("KKpsk3") == nullptr));
  CHECK((Pattern::parse("XXpsk3") != nullptr));
}

TEST_CASE("Postern's own two patterns carry the tokens that the protocol promises") {
  auto kk = patternOf("KKpsk0");
  CHECK((kk.messageCount() == 2));
  CHECK((allTokens(kk, 0).asPtr() == kj::arr(Token::PSK, Token::E, Token::ES, Token::SS).asPtr()));
  CHECK((allTokens(kk, 1).asPtr() == kj::arr(Token::E, Token::EE, Token::SE).asPtr()));
  CHECK(kk.knowsStaticOf(Side::INITIATOR));
  CHECK(kk.knowsStaticOf(Side::RESPONDER));

  auto xx = patternOf("XXpsk0");
  CHECK((xx.messageCount() == 3));
  CHECK((allTokens(xx, 0).asPtr() == kj::arr(Token::PSK, Token::E).asPtr()));
  CHECK((allTokens(xx, 1).asPtr() == kj::arr(Token::E, Token::EE, Token::S, Token::ES).asPtr()));
  CHECK((allTokens(xx, 2).asPtr() == kj::arr(Token::S, Token::SE).asPtr()));
  CHECK(!xx.knowsStaticOf(Side::INITIATOR));
  CHECK(!xx.knowsStaticOf(Side::RESPONDER));
}

TEST_CASE("psks stand before the first message and behind the others") {
  auto pattern = patternOf("XXpsk0+psk1+psk2+psk3");
  CHECK((pattern.pskCount() == 4));
  CHECK((allTokens(pattern, 0).asPtr() == kj::arr(Token::PSK, Token::E, Token::PSK).asPtr()));
  CHECK((allTokens(pattern, 1).asPtr() == kj::arr(Token::E, Token::EE, Token::S, Token::ES, Token::PSK).asPtr()));
  CHECK((allTokens(pattern, 2).asPtr() == kj::arr(Token::S, Token::SE, Token::PSK).asPtr()));
}

// Sections 7.3: a party sends each key once, and a Diffie-Hellman is done once, with keys that both sides have by then.
TEST_CASE("every pattern of the table is valid") {
  for (auto name : ALL_PATTERNS) {
    CAPTURE(name.cStr());
    auto pattern = patternOf(name);
    bool hasE[2] = {};
    bool hasS[2] = {pattern.knowsStaticOf(Side::INITIATOR), pattern.knowsStaticOf(Side::RESPONDER)};
    std::set<Token> secrets;
    for (size_t message = 0; message < pattern.messageCount(); ++message) {
      size_t sender = message % 2;
      for (auto token : pattern.tokens(message)) {
        if (token == Token::E) {
          CHECK(!hasE[sender]);
          hasE[sender] = true;
        } else if (token == Token::S) {
          CHECK(!hasS[sender]);
          CHECK(hasE[sender]);
          hasS[sender] = true;
        } else {
          CHECK((token == Token::EE || token == Token::SE || hasS[1]));
          CHECK((token == Token::EE || token == Token::ES || hasS[0]));
          CHECK((token == Token::SS || token == Token::SE || hasE[0]));
          CHECK((token == Token::SS || token == Token::ES || hasE[1]));
          CHECK(secrets.insert(token).second);
        }
      }
    }
    CHECK((pattern.isOneWay() == (pattern.messageCount() == 1)));
    CHECK((secrets.count(Token::EE) == (pattern.isOneWay() ? 0 : 1)));
    CHECK((secrets.count(Token::ES) == (pattern.hasStatic(Side::RESPONDER) ? 1 : 0)));
    CHECK((pattern.isOneWay() || secrets.count(Token::SE) == (pattern.hasStatic(Side::INITIATOR) ? 1 : 0)));
  }
}

}  // namespace
}  // namespace postern::noise
