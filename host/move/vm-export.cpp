#include "host/move/vm-export.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "host/move/vm-export.capnp.h"
#include "host/registry/registry.h"
#include "protocol/checked-line.h"
#include "protocol/noise/handshake-state.h"

namespace postern::host {

namespace {

constexpr kj::StringPtr PREFIX = "postern-export-1:"_kj;
constexpr char PROLOGUE[] = "postern/export/1";  // with its NUL
constexpr uint16_t FORMAT = 1;
constexpr size_t KEY_BYTES = noise::KEY_BYTES;
constexpr size_t MAX_SEALED_BYTES = MAX_EXPORT_BYTES / 4 * 3;

using Bytes = kj::ArrayPtr<const kj::byte>;

// Wiped: a part of it is keys.
struct SecretBytes {
  kj::Array<kj::byte> bytes;
  explicit SecretBytes(kj::Array<kj::byte> bytes) : bytes(kj::mv(bytes)) {}
  ~SecretBytes() { sodium_memzero(bytes.begin(), bytes.size()); }
  KJ_DISALLOW_COPY(SecretBytes);
};

Bytes prologue() {
  return kj::arrayPtr(PROLOGUE, sizeof(PROLOGUE)).asBytes();
}

noise::HandshakeState sealing(noise::Side side, noise::HandshakeKeys keys) {
  auto pattern = KJ_ASSERT_NONNULL(noise::Pattern::parse("X"));
  return noise::HandshakeState(pattern, noise::HashKind::BLAKE2B, side, prologue(), kj::mv(keys));
}

kj::Array<kj::byte> encode(const VmExport& vm) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<schema::VmExport>();
  out.setFormat(FORMAT);
  out.setUuid(kj::arrayPtr(vm.uuid.bytes.data(), vm.uuid.bytes.size()));
  out.setName(vm.name);
  out.setNumber(vm.number);
  auto tags = out.initTags(static_cast<unsigned>(vm.tags.size()));
  for (unsigned i = 0; i < tags.size(); ++i) tags.set(i, vm.tags[i]);
  out.setBlocked(vm.blocked);
  out.setHostGrants(vm.hostGrants);
  out.setGuestGrants(vm.guestGrants);
  SecretBytes encoded(encodeState(*vm.state));
  auto state = out.initState(static_cast<unsigned>(encoded.bytes.size()));
  memcpy(state.begin(), encoded.bytes.begin(), state.size());
  auto words = capnp::messageToFlatArray(message);
  KJ_DEFER(sodium_memzero(words.begin(), words.asBytes().size()));
  sodium_memzero(state.begin(), state.size());
  return kj::heapArray<kj::byte>(words.asBytes());
}

// Checked fields, or false.
bool take(schema::VmExport::Reader in, VmExport& vm) {
  if (in.getUuid().size() != vm.uuid.bytes.size() || in.getTags().size() > MAX_VM_TAGS) return false;
  if (in.getNumber() == 0 || in.getNumber() > MAX_MOVE_NUMBER) return false;
  if (in.getHostGrants().size() > MAX_EXPORTED_GRANTS_BYTES) return false;
  if (in.getGuestGrants().size() > MAX_BUNDLE_GRANTS_BYTES) return false;
  memcpy(vm.uuid.bytes.data(), in.getUuid().begin(), vm.uuid.bytes.size());
  vm.name = kj::str(in.getName());
  vm.number = in.getNumber();
  for (auto tag : in.getTags()) vm.tags.add(kj::str(tag));
  vm.blocked = in.getBlocked();
  vm.hostGrants = kj::str(in.getHostGrants());
  vm.guestGrants = kj::str(in.getGuestGrants());
  auto state = decodeHostState(in.getState());
  if (!state.is<kj::Own<HostState>>()) return false;
  vm.state = kj::mv(state.get<kj::Own<HostState>>());
  return vm.state->vm == vm.uuid && vm.state->current != nullptr && vm.state->offer == nullptr;
}

kj::OneOf<VmExport, ExportError> decode(Bytes payload) {
  if (payload.size() % sizeof(capnp::word) != 0) return ExportError::ALTERED;
  auto words = kj::heapArray<capnp::word>(payload.size() / sizeof(capnp::word));
  KJ_DEFER(sodium_memzero(words.begin(), words.asBytes().size()));
  memcpy(words.begin(), payload.begin(), payload.size());
  VmExport vm;
  auto error = ExportError::ALTERED;
  bool good = false;
  auto broken = kj::runCatchingExceptions([&]() {
    capnp::FlatArrayMessageReader reader(words);
    auto in = reader.getRoot<schema::VmExport>();
    if (in.getFormat() > FORMAT) error = ExportError::NEWER_FORMAT;
    good = in.getFormat() == FORMAT && take(in, vm);
  });
  if (broken != nullptr || !good) return error;
  return kj::mv(vm);
}

}  // namespace

kj::StringPtr describe(ExportError error) {
  switch (error) {
    case ExportError::NOT_AN_EXPORT:
      return "is no export of a VM; one begins with postern-export-1:";
    case ExportError::DAMAGED:
      return "is a damaged or truncated export; copy it again, or run `postern vm export` there again";
    case ExportError::FOR_ANOTHER_HOST:
      return "is sealed to another host's key; `postern vm host-key` shows this one's";
    case ExportError::ALTERED:
      return "does not open: it was altered, or sealed wrongly";
    case ExportError::NEWER_FORMAT:
      return "is an export of a later version of Postern; upgrade this one";
  }
  KJ_UNREACHABLE;
}

kj::Maybe<kj::String> sealExport(const VmExport& vm, const TransferKeyPair& own, const TransferPublicKey& to,
                                 Random& random) {
  SecretBytes payload(encode(vm));
  noise::HandshakeKeys keys;
  keys.ephemeral = TransferKeyPair::generate(random).pair;
  keys.ownStatic = own.pair;
  keys.peerStatic = to.bytes;
  auto handshake = sealing(noise::Side::INITIATOR, kj::mv(keys));
  auto sealed = kj::heapArray<kj::byte>(KEY_BYTES + handshake.nextOverhead() + payload.bytes.size());
  KJ_ASSERT(sealed.size() + LINE_CHECKSUM_BYTES <= MAX_SEALED_BYTES, "more than the bounds of a VM's record allow");
  memcpy(sealed.begin(), to.bytes.data(), KEY_BYTES);
  auto written = handshake.writeMessage(payload.bytes, sealed.slice(KEY_BYTES, sealed.size()));
  if (written.is<noise::HandshakeError>()) return nullptr;
  return kj::str(encodeLine(PREFIX, sealed).get());
}

// T120
kj::OneOf<OpenedExport, ExportError> openExport(kj::ArrayPtr<const char> untrusted, const TransferKeyPair& own) {
  auto room = kj::heapArray<kj::byte>(MAX_SEALED_BYTES);
  auto decoded = decodeLine(PREFIX, untrusted, room);
  KJ_IF_MAYBE (error, decoded.tryGet<LineError>()) {
    return *error == LineError::OTHER_PREFIX ? ExportError::NOT_AN_EXPORT : ExportError::DAMAGED;
  }
  Bytes sealed = room.slice(0, decoded.get<size_t>());
  if (sealed.size() < KEY_BYTES) return ExportError::DAMAGED;
  if (memcmp(sealed.begin(), own.pair.publicKey.data(), KEY_BYTES) != 0) return ExportError::FOR_ANOTHER_HOST;

  noise::HandshakeKeys keys;
  keys.ownStatic = own.pair;
  auto handshake = sealing(noise::Side::RESPONDER, kj::mv(keys));
  SecretBytes payload(kj::heapArray<kj::byte>(sealed.size()));
  auto read = handshake.readMessage(sealed.slice(KEY_BYTES, sealed.size()), payload.bytes);
  if (read.is<noise::HandshakeError>()) return ExportError::ALTERED;
  auto vm = decode(payload.bytes.slice(0, read.get<size_t>()));
  KJ_IF_MAYBE (error, vm.tryGet<ExportError>()) return *error;
  return OpenedExport{{KJ_ASSERT_NONNULL(handshake.peerStatic())}, kj::mv(vm.get<VmExport>())};
}

}  // namespace postern::host
