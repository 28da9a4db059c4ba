#include "protocol/noise/cipher-state.h"

#include <doctest/doctest.h>
#include <string.h>

namespace postern::noise {
namespace {

Secret<32> key(kj::byte seed) {
  Secret<32> result;
  memset(result.begin(), seed, 32);
  return result;
}

TEST_CASE("a cipher without a key copies") {
  CipherState cipher;
  const kj::byte text[3] = {1, 2, 3};
  kj::byte out[3] = {};
  CHECK(!cipher.hasKey());
  CHECK(cipher.overhead() == 0);
  cipher.encrypt(nullptr, text, out);
  CHECK(memcmp(text, out, 3) == 0);
  memset(out, 0, 3);
  CHECK(cipher.decrypt(nullptr, text, out));
  CHECK(memcmp(text, out, 3) == 0);
  cipher.encrypt(nullptr, nullptr, nullptr);
}

TEST_CASE("each message has its own number, and both ends count alike") {
  CipherState sender;
  CipherState receiver;
  sender.setKey(key(1));
  receiver.setKey(key(1));
  const kj::byte text[5] = {1, 2, 3, 4, 5};
  kj::byte first[21];
  kj::byte second[21];
  sender.encrypt(nullptr, text, first);
  sender.encrypt(nullptr, text, second);
  CHECK(memcmp(first, second, sizeof(first)) != 0);

  kj::byte out[5];
  CHECK(!receiver.decrypt(nullptr, second, out));  // out of order: does not move the number
  CHECK(receiver.decrypt(nullptr, first, out));
  CHECK(memcmp(out, text, 5) == 0);
  CHECK(!receiver.decrypt(nullptr, first, out));  // again
  CHECK(receiver.decrypt(nullptr, second, out));

  sender.setKey(key(1));
  kj::byte again[21];
  sender.encrypt(nullptr, text, again);
  CHECK(memcmp(first, again, sizeof(first)) == 0);
}

TEST_CASE("every changed byte, a changed key and changed associated data are refused, and no text is left") {
  const kj::byte text[5] = {'p', 'p', 'p', 'p', 'p'};
  const kj::byte associated[2] = {8, 9};
  kj::byte good[21];
  CipherState sender;
  sender.setKey(key(1));
  sender.encrypt(associated, text, good);

  auto refused = [](kj::byte seed, kj::ArrayPtr<const kj::byte> data, kj::ArrayPtr<const kj::byte> message) {
    CipherState receiver;
    receiver.setKey(key(seed));
    kj::byte out[5];
    memset(out, 0xee, sizeof(out));
    bool accepted = receiver.decrypt(data, message, kj::arrayPtr(out, message.size() - TAG_BYTES));
    CHECK((accepted == (memchr(out, 'p', sizeof(out)) != nullptr)));
    return !accepted;
  };
  CHECK(!refused(1, associated, good));
  CHECK(refused(2, associated, good));
  CHECK(refused(1, nullptr, good));
  for (size_t i = 0; i < sizeof(good); ++i) {
    kj::byte bad[21];
    memcpy(bad, good, sizeof(bad));
    bad[i] ^= 1;
    CHECK(refused(1, associated, bad));
  }
  for (size_t size = TAG_BYTES; size < sizeof(good); ++size) CHECK(refused(1, associated, kj::arrayPtr(good, size)));
}

TEST_CASE("less than a tag is refused") {
  CipherState receiver;
  receiver.setKey(key(1));
  const kj::byte message[TAG_BYTES] = {};
  for (size_t size = 0; size < TAG_BYTES; ++size)
    CHECK(!receiver.decrypt(nullptr, kj::arrayPtr(message, size), nullptr));
}

TEST_CASE("a wiped cipher has no key, nor any trace of it") {
  auto secret = key(0x5a);
  CipherState cipher;
  cipher.setKey(secret);
  CHECK(memmem(&cipher, sizeof(cipher), secret.begin(), 32) != nullptr);
  cipher.wipe();
  CHECK(!cipher.hasKey());
  CHECK(memmem(&cipher, sizeof(cipher), secret.begin(), 32) == nullptr);
}

TEST_CASE("a buffer of another size is the caller's bug") {
  CipherState cipher;
  cipher.setKey(key(1));
  kj::byte out[40] = {};
  CHECK_THROWS(cipher.encrypt(nullptr, kj::arrayPtr(out, 4), kj::arrayPtr(out + 4, 19)));
  CHECK_THROWS((void)cipher.decrypt(nullptr, kj::arrayPtr(out, 20), kj::arrayPtr(out + 20, 5)));
}

}  // namespace
}  // namespace postern::noise
