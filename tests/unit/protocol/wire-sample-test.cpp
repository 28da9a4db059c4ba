// The bytes of whole sessions for fixed keys and fixed randomness. Later versions must keep speaking to what is out
// there, so these never change; docs/PROTOCOL.md quotes them, and the last test holds it to that.

#include <doctest/doctest.h>
#include <kj/encoding.h>
#include <stdio.h>
#include <string.h>

#include <array>
#include <string>

#include "protocol/confirmation.h"
#include "protocol/wire-int.h"
#include "tests/support/sample-meeting.h"
#include "transport/sync-scanner.h"

namespace postern {
namespace {

using test::SameByte;
using test::SampleMeeting;
namespace sample = test::sample;

// The sample --------------------------------------------------------------------------------------------------------

struct Line {
  const char* what;
  const char* hex;
};

constexpr Line KK_FROM_GUEST[] = {
    {"HELLO",
     "70000100000000005053544e0101010101000000010000006666666666666666666666666666666666666666666666666666"
     "66666666666669ea7309fa109378000000000000000000000000000000000000000000000000000000000000000000000000"
     "0000000000000000000000000000000022dcb3af"},
    {"HS 1",
     "3000020098f7b03fcc78aecf30805a11a6efa96a2ee5e802774871d1536d6720ee7f82f272fd584cd58a4c312b618488bda8"
     "a8b7b6020de8"},
    {"CONFIRM",
     "7800030098f7b03f87aa24ab42ddd20b0544d8acdf0e6c957c8dff35b98f8457f54ee3478627b138d25785fbde8b3c9a562b"
     "29f054e7f01577462857ee472bbc400696d54acc9975cf2ef647310efa4382889a88c44baa2d88cfe36683a6bdf99b054774"
     "a8389cf12772af8fde6ebc8aa1865519909780ca3de2cefdabc8719a"},
    {"PING 1", "2000030098f7b03fae456224db6ef5a9a2a794a81413469de88f3485f65f9aaefdeb86b99c529700"},
};
constexpr Line KK_FROM_HOST[] = {
    {"HELLO",
     "70000100000000005053544e0101020101000000030000007777777777777777777777777777777777777777777777777777"
     "7777777777770000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
     "00000000000000000000000000000000fdbf475a"},
    {"HS 2",
     "3000020098f7b03f1d1b49346877805ef7b5bed677676c6793d0bdeee44b4a3484262cd6db11b109cb2b312a6942080aaf7d"
     "07b168e950e1"},
    {"ACCEPT",
     "5800030098f7b03fb649bad407cb4a20642bcc67af537b76ecf6814266e436a028d8f4b1df396402637e6edba2ee5af65a13"
     "51db48f60df9f6b4da9e2e66b5a3e9a84261131084aec5b6aefff54e93c8ecce0ced389e14eea2ee7c0d77f50f2d"},
    {"PONG 1", "2000030098f7b03f2e82713dd7adfde7cf2ddfbe908d9d7e165e198804d394800a1548df5e2af149"},
};
constexpr Line XX_FROM_GUEST[] = {
    {"HELLO",
     "70000100000000005053544e0101010101000000020000006666666666666666666666666666666666666666666666666666"
     "6666666666660000000000000000ffd144ecc78b483900000000000000000000000000000000000000000000000000000000"
     "0000000000000000000000000000000089ce3147"},
    {"HS 1",
     "3000020098f7b03fcc78aecf30805a11a6efa96a2ee5e802774871d1536d6720ee7f82f272fd584c6b99a4f32672ab57e47e"
     "c48ab8222aa1"},
    {"HS 3",
     "4000020098f7b03f3e7f66bee21285f00e71ae4b9c7e8f1ebdaf49458b1983dead30ab8d9cfd27767cde307d3eb7e5953ba5"
     "a6257100a2892b761d2db93acd9121c49d32cfeac0df"},
    {"CONFIRM",
     "7800030098f7b03f80b230302f4bea13f6bdb9c8f790fe0a1bf282c27d090d28859a3e12079b1f341cd12646d6c10213de99"
     "d15e24dc431f8d719b6d7b8e5c95a677fd1458988230b7ac64fe94bc6b2351c8895e490b23febea0635832559cd41eafb88a"
     "4acb203a68e39f9b50ef1a9ea36ecb42ba569b00d4c0a3a4aed9a079"},
    {"COMMIT", "1800030098f7b03f31151018966cb7ac8ec4c0a61f1f84c70a1b50e020c61ba2"},
};
constexpr Line XX_FROM_HOST[] = {
    {"HELLO",
     "70000100000000005053544e0101020101000000030000007777777777777777777777777777777777777777777777777777"
     "7777777777770000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
     "00000000000000000000000000000000fdbf475a"},
    {"HS 2",
     "6000020098f7b03f1d1b49346877805ef7b5bed677676c6793d0bdeee44b4a3484262cd6db11b109f73ba045ab76c935f7a9"
     "2570ec0b9a21ddb6d52313256307531a1dc5e5dd2c178db918ab23e39f0ab50c6167022a14d9250f2fd0eea1465c4e33b21e"
     "cdd1ac38"},
    {"ACCEPT",
     "5800030098f7b03f4268280f263f23857f3ee4ef1a7a93f8cca1d805c6d44e67564e9045b4f4ac7384c3dbbefd35c36677a4"
     "377a0d7d9cb8e609bdd072871bd2e4d78a08d509c34cf62289322dab85de8690567d630ae99cd80ac18dca7db9f2"},
    {"COMMITTED", "1800030098f7b03f3e0d71c6d123a7f992c33cd003848534cc078e811d2dcdb4"},
};
constexpr Line REKEYED[] = {
    {"PING 1", "20000300b0b1b2b3e51cf96f2c5e5f09438a737cf0903eb7f773bebdcf623dc7658d65f0bc8ab0a5"},
    {"REKEY", "18000300b0b1b2b399d73d063265bbf63b2a3456fdd4f82d41f251840b1c0928"},
    {"PING 2", "20000300b0b1b2b38f8b358e173eee4e68d176d1c2df98de44baa398bf13c7faee1b7184a21d2cb6"},
};
constexpr Line PLAIN[] = {
    {"Confirm",
     "000000000b000000000000000a0000000100000000000000000000000000000007000000000000000807060504030201100f"
     "0e0d0c0b0a091817161514131211201f1e1d1c1b1a19000000000000000000000000000000000000000000000000"},
    {"Accept",
     "0000000007000000000000000600000001000000000000000000000000000000000000000000000000000000000000000000"
     "0000000000000000000000000000"},
    {"Accept with a link secret",
     "0000000007000000000000000600000001000100000000000000000000000000333333333333333333333333333333333333"
     "3333333333333333333333333333"},
};
constexpr Line DERIVED[] = {
    {"guest public key", "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"},
    {"host public key", "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"},
    {"guest ephemeral public key", "cc78aecf30805a11a6efa96a2ee5e802774871d1536d6720ee7f82f272fd584c"},
    {"host ephemeral public key", "1d1b49346877805ef7b5bed677676c6793d0bdeee44b4a3484262cd6db11b109"},
    {"key hint", "69ea7309fa109378"},
    {"token hint", "ffd144ecc78b4839"},
    {"link tag", "98f7b03f"},
};
constexpr char GUEST_FINGERPRINT[] = "b4a9-e9b4-86e5-2f30-be19-aef9-4e91-bc28";
constexpr char HOST_FINGERPRINT[] = "4862-7380-ed89-11d1-d7fb-364d-f433-c3dd";

// Its making --------------------------------------------------------------------------------------------------------

struct Sample {
  kj::Vector<kj::byte> fromGuest;
  kj::Vector<kj::byte> fromHost;

  // One session over a stream, as far as its first records.
  explicit Sample(GuestCredentials credentials) {
    bool enrolling = credentials.is<GuestEnrolment>();
    SampleMeeting meeting(kj::mv(credentials));
    meeting.wire.toHost.tap = &fromGuest;
    meeting.wire.toGuest.tap = &fromHost;
    auto sessions = meeting.connect();
    if (enrolling) {
      meeting.commit(sessions);
    } else {
      sessions.guest->ping().wait(meeting.waitScope);
    }
  }
};

std::string hex(kj::ArrayPtr<const kj::byte> bytes) {
  return kj::encodeHex(bytes).cStr();
}

template <size_t N>
std::string hex(const std::array<kj::byte, N>& bytes) {
  return hex(kj::arrayPtr(bytes.data(), N));
}

// `sent` is these frames, one after the other, and nothing else.
template <size_t N>
void checkFrames(kj::ArrayPtr<const kj::byte> sent, const Line (&expected)[N]) {
  for (auto& line : expected) {
    INFO(std::string(line.what));
    REQUIRE(sent.size() >= FRAME_HEADER_BYTES);
    size_t size = FRAME_HEADER_BYTES + getLittleEndian<uint16_t>(sent.begin());
    REQUIRE(sent.size() >= size);
    CHECK(hex(sent.slice(0, size)) == std::string(line.hex));
    sent = sent.slice(size, sent.size());
  }
  CHECK(sent.size() == 0);
}

// Tests -------------------------------------------------------------------------------------------------------------

TEST_CASE("a session of an enrolled pair has these bytes on the wire, for ever") {
  Sample sent(sample::identity());
  checkFrames(sent.fromGuest, KK_FROM_GUEST);
  checkFrames(sent.fromHost, KK_FROM_HOST);
}

TEST_CASE("an enrolment has these bytes on the wire, for ever") {
  Sample sent(sample::enrolment());
  checkFrames(sent.fromGuest, XX_FROM_GUEST);
  checkFrames(sent.fromHost, XX_FROM_HOST);
}

// T17
TEST_CASE("REKEY changes the key and leaves the counter, with these bytes, for ever") {
  RecordSealer sealer(SealingKey{sample::secretOf(0xaa)}, LinkTag{0xb0, 0xb1, 0xb2, 0xb3});
  kj::Vector<kj::byte> sent;
  auto send = [&](RecordType type, kj::ArrayPtr<const kj::byte> data) {
    auto record = smallRecord({type}, data);
    sent.addAll(sealer.seal(record.header, record.buffer, record.dataBytes));
  };
  kj::byte number[8];
  putLittleEndian<uint64_t>(1, number);
  send(RecordType::PING, number);
  send(RecordType::REKEY, nullptr);
  sealer.rekey();
  putLittleEndian<uint64_t>(2, number);
  send(RecordType::PING, number);
  checkFrames(sent, REKEYED);
}

TEST_CASE("CONFIRM and ACCEPT have these bytes before encryption, for ever") {
  CHECK(hex(encodeConfirmation(sample::confirmation())) == std::string(PLAIN[0].hex));
  CHECK(hex(encodeAcceptance(sample::acceptance(false))) == std::string(PLAIN[1].hex));
  CHECK(hex(encodeAcceptance(sample::acceptance(true))) == std::string(PLAIN[2].hex));
}

TEST_CASE("hints, fingerprints, link tag and hedged ephemerals are derived so, for ever") {
  auto guest = sample::guestKeys();
  auto host = sample::hostKeys();
  HelloPair pair{Role::GUEST, {}, {}, {}, {}};
  pair.own.nonce = sample::nonceOf(Role::GUEST);
  pair.peer.role = Role::HOST;
  pair.peer.nonce = sample::nonceOf(Role::HOST);
  SameByte guestRandom(0x88), hostRandom(0x99);
  CHECK(hex(guest.pair.publicKey) == std::string(DERIVED[0].hex));
  CHECK(hex(host.pair.publicKey) == std::string(DERIVED[1].hex));
  CHECK(hex(hedgedEphemeral(guest.pair, guestRandom, pair).publicKey) == std::string(DERIVED[2].hex));
  CHECK(hex(linkTag(pair)) == std::string(DERIVED[6].hex));
  std::swap(pair.own, pair.peer);
  pair.self = Role::HOST;
  CHECK(hex(hedgedEphemeral(host.pair, hostRandom, pair).publicKey) == std::string(DERIVED[3].hex));
  CHECK(hex(linkTag(pair)) == std::string(DERIVED[6].hex));
  CHECK(hex(keyHint(host.publicKey(), guest.publicKey())) == std::string(DERIVED[4].hex));
  CHECK(hex(tokenHint(sample::token())) == std::string(DERIVED[5].hex));
  CHECK(std::string(fingerprint(guest.publicKey()).cStr()) == std::string(GUEST_FINGERPRINT));
  CHECK(std::string(fingerprint(host.publicKey()).cStr()) == std::string(HOST_FINGERPRINT));
}

// The document ------------------------------------------------------------------------------------------------------

std::string protocolDocument() {
  FILE* file = fopen("docs/PROTOCOL.md", "r");
  REQUIRE(file != nullptr);
  std::string text;
  for (int c = getc(file); c != EOF; c = getc(file)) {
    if (c != ' ' && c != '\n') text.push_back(static_cast<char>(c));
  }
  fclose(file);
  return text;
}

template <size_t N>
void checkQuoted(const std::string& document, const Line (&lines)[N]) {
  for (auto& line : lines) {
    INFO(std::string(line.what));
    CHECK(document.find(line.hex) != std::string::npos);
  }
}

TEST_CASE("docs/PROTOCOL.md quotes every one of these bytes") {
  auto document = protocolDocument();
  checkQuoted(document, KK_FROM_GUEST);
  checkQuoted(document, KK_FROM_HOST);
  checkQuoted(document, XX_FROM_GUEST);
  checkQuoted(document, XX_FROM_HOST);
  checkQuoted(document, REKEYED);
  checkQuoted(document, PLAIN);
  checkQuoted(document, DERIVED);
  CHECK(document.find(GUEST_FINGERPRINT) != std::string::npos);
  CHECK(document.find(HOST_FINGERPRINT) != std::string::npos);
  CHECK(document.find(hex(SYNC_WORD)) != std::string::npos);
}

}  // namespace
}  // namespace postern
