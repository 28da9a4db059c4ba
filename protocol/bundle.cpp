#include "protocol/bundle.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/bundle.capnp.h"
#include "protocol/locked.h"
#include "protocol/policy/names.h"

namespace postern {

namespace {

constexpr kj::StringPtr PREFIX = "postern-bundle-1:"_kj;
constexpr uint16_t FORMAT = 1;
constexpr size_t CHECKSUM_BYTES = 16;
constexpr int VARIANT = sodium_base64_VARIANT_URLSAFE_NO_PADDING;
constexpr size_t MAX_MESSAGE_BYTES = MAX_BUNDLE_BYTES / 4 * 3;

bool isSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\0';  // fw_cfg files may end in NUL
}

kj::ArrayPtr<const char> trimmed(kj::ArrayPtr<const char> text) {
  while (text.size() > 0 && isSpace(text.front())) text = text.slice(1, text.size());
  while (text.size() > 0 && isSpace(text.back())) text = text.slice(0, text.size() - 1);
  return text;
}

void checksum(kj::ArrayPtr<const kj::byte> message, kj::byte (&out)[CHECKSUM_BYTES]) {
  crypto_generichash(out, sizeof(out), message.begin(), message.size(), nullptr, 0);
}

// sodium_base642bin() of 1.0.18 takes some bytes above 127 for digits.
bool isBase64(kj::ArrayPtr<const char> text) {
  for (char c : text) {
    bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!good) return false;
  }
  return true;
}

// Checked fields of a message, or null.
kj::Maybe<kj::Own<Bundle>> take(schema::Bundle::Reader in) {
  if (in.getVm().size() != 16 || in.getHostPublicKey().size() != 32 || in.getToken().size() != 32) return nullptr;
  if (!policy::isVmName(in.getVmName()) || in.getTransport().size() > 256) return nullptr;
  if (in.getGrants().size() > MAX_BUNDLE_GRANTS_BYTES) return nullptr;
  auto bundle = newLocked(Bundle());
  memcpy(bundle->vm.bytes.data(), in.getVm().begin(), 16);
  memcpy(bundle->host.bytes.data(), in.getHostPublicKey().begin(), 32);
  bundle->token.bytes = Secret<32>(in.getToken());
  if (bundle->token.bytes.isZero()) return nullptr;
  bundle->vmName = kj::str(in.getVmName());
  bundle->transport = kj::str(in.getTransport());
  bundle->grants = kj::str(in.getGrants());
  bundle->lifetimeSeconds = in.getLifetimeSeconds();
  return kj::mv(bundle);
}

int digitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

SecretText::~SecretText() {
  if (text.size() > 0) sodium_memzero(text.begin(), text.size());
}

kj::StringPtr describe(BundleError error) {
  switch (error) {
    case BundleError::NOT_A_BUNDLE:
      return "is no bundle; one begins with postern-bundle-1:";
    case BundleError::DAMAGED:
      return "is a damaged or truncated bundle; copy it again, or make a new one with `postern vm rekey`";
    case BundleError::NEWER_FORMAT:
      return "is a bundle of a later version of Postern; upgrade this one";
  }
  KJ_UNREACHABLE;
}

SecretText encodeBundle(const Bundle& bundle) {
  KJ_REQUIRE(policy::isVmName(bundle.vmName));
  KJ_REQUIRE(bundle.grants.size() <= MAX_BUNDLE_GRANTS_BYTES && bundle.transport.size() <= 256);
  capnp::MallocMessageBuilder message(MAX_MESSAGE_BYTES / sizeof(capnp::word));
  auto out = message.initRoot<schema::Bundle>();
  out.setFormat(FORMAT);
  out.setVm(kj::arrayPtr(bundle.vm.bytes.data(), 16));
  out.setVmName(bundle.vmName);
  out.setHostPublicKey(kj::arrayPtr(bundle.host.bytes.data(), 32));
  auto token = out.initToken(32);
  memcpy(token.begin(), bundle.token.bytes.begin(), 32);
  out.setTransport(bundle.transport);
  out.setGrants(bundle.grants);
  out.setLifetimeSeconds(bundle.lifetimeSeconds);
  auto words = capnp::messageToFlatArray(message);
  sodium_memzero(token.begin(), 32);
  auto bytes = words.asBytes();
  auto whole = kj::heapArray<kj::byte>(bytes.size() + CHECKSUM_BYTES);
  memcpy(whole.begin(), bytes.begin(), bytes.size());
  kj::byte sum[CHECKSUM_BYTES];
  checksum(bytes, sum);
  memcpy(whole.begin() + bytes.size(), sum, sizeof(sum));
  KJ_DEFER({
    sodium_memzero(bytes.begin(), bytes.size());
    sodium_memzero(whole.begin(), whole.size());
  });
  auto text = kj::heapString(PREFIX.size() + sodium_base64_encoded_len(whole.size(), VARIANT) - 1);
  memcpy(text.begin(), PREFIX.begin(), PREFIX.size());
  sodium_bin2base64(text.begin() + PREFIX.size(), text.size() - PREFIX.size() + 1, whole.begin(), whole.size(),
                    VARIANT);
  KJ_ASSERT(text.size() <= MAX_BUNDLE_BYTES);
  return SecretText(kj::mv(text));
}

// T42
kj::OneOf<kj::Own<Bundle>, BundleError> parseBundle(kj::ArrayPtr<const char> untrusted) {
  auto text = trimmed(untrusted);
  if (text.size() < PREFIX.size() || memcmp(text.begin(), PREFIX.begin(), PREFIX.size()) != 0) {
    return BundleError::NOT_A_BUNDLE;
  }
  text = text.slice(PREFIX.size(), text.size());
  if (text.size() > MAX_BUNDLE_BYTES || !isBase64(text)) return BundleError::DAMAGED;

  alignas(8) kj::byte bytes[MAX_MESSAGE_BYTES + 64];
  KJ_DEFER(sodium_memzero(bytes, sizeof(bytes)));
  size_t size = 0;
  const char* end = nullptr;
  int failed = sodium_base642bin(bytes, sizeof(bytes), text.begin(), text.size(), nullptr, &size, &end, VARIANT);
  if (failed != 0 || end != text.end() || size <= CHECKSUM_BYTES) return BundleError::DAMAGED;
  size -= CHECKSUM_BYTES;
  kj::byte sum[CHECKSUM_BYTES];
  checksum(kj::arrayPtr(bytes, size), sum);
  if (sodium_memcmp(sum, bytes + size, CHECKSUM_BYTES) != 0 || size % sizeof(capnp::word) != 0) {
    return BundleError::DAMAGED;
  }

  kj::OneOf<kj::Own<Bundle>, BundleError> result = BundleError::DAMAGED;
  auto broken = kj::runCatchingExceptions([&]() {
    auto words = kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes), size / sizeof(capnp::word));
    capnp::FlatArrayMessageReader reader(words);
    auto in = reader.getRoot<schema::Bundle>();
    if (in.getFormat() > FORMAT) result = BundleError::NEWER_FORMAT;
    if (in.getFormat() != FORMAT) return;
    KJ_IF_MAYBE (bundle, take(in)) result = kj::mv(*bundle);
  });
  if (broken != nullptr) return BundleError::DAMAGED;
  return result;
}

kj::Maybe<VmId> parseVmId(kj::ArrayPtr<const char> untrusted) {
  if (untrusted.size() != 36) return nullptr;
  VmId vm;
  size_t digits = 0;
  for (size_t i = 0; i < untrusted.size(); ++i) {
    bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash != (untrusted[i] == '-')) return nullptr;
    if (dash) continue;
    int digit = digitOf(untrusted[i]);
    if (digit < 0) return nullptr;
    auto& byte = vm.bytes[digits / 2];
    byte = static_cast<kj::byte>(byte << 4 | digit);
    ++digits;
  }
  return vm;
}

kj::String toString(const VmId& vm) {
  static const char HEX[] = "0123456789abcdef";
  kj::Vector<char> text;
  for (size_t i = 0; i < vm.bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text.add('-');
    text.add(HEX[vm.bytes[i] >> 4]);
    text.add(HEX[vm.bytes[i] & 15]);
  }
  text.add('\0');
  return kj::String(text.releaseAsArray());
}

}  // namespace postern
