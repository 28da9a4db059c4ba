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
constexpr size_t MAX_MESSAGE_BYTES = MAX_BUNDLE_BYTES / 4 * 3;

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
  KJ_DEFER(sodium_memzero(words.begin(), words.asBytes().size()));
  auto line = encodeLine(PREFIX, words.asBytes());
  KJ_ASSERT(line.get().size() <= MAX_BUNDLE_BYTES);
  return line;
}

kj::OneOf<kj::Own<Bundle>, BundleError> parseBundle(kj::ArrayPtr<const char> untrusted) {
  alignas(8) kj::byte bytes[MAX_MESSAGE_BYTES + LINE_CHECKSUM_BYTES];
  KJ_DEFER(sodium_memzero(bytes, sizeof(bytes)));
  auto decoded = decodeLine(PREFIX, untrusted, kj::arrayPtr(bytes, sizeof(bytes)));
  KJ_IF_MAYBE (error, decoded.tryGet<LineError>()) {
    return *error == LineError::OTHER_PREFIX ? BundleError::NOT_A_BUNDLE : BundleError::DAMAGED;
  }
  auto size = decoded.get<size_t>();
  if (size % sizeof(capnp::word) != 0) return BundleError::DAMAGED;

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
