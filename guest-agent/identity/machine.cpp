#include "guest-agent/identity/machine.h"

#include <sodium.h>

#include "guest-agent/identity/bounded-file.h"
#include "protocol/bundle.h"

namespace postern::guest {

namespace {

constexpr size_t MAX_ID_BYTES = 256;
constexpr kj::StringPtr UUID_CONTEXT = "postern guest machine: product uuid"_kj;
constexpr kj::StringPtr MACHINE_ID_CONTEXT = "postern guest machine: machine-id"_kj;
constexpr kj::StringPtr NO_CONTEXT = "postern guest machine: unknown"_kj;

MachineHash hashOf(kj::StringPtr context, kj::ArrayPtr<const char> id) {
  MachineHash out{};
  crypto_generichash(out.data(), out.size(), id.asBytes().begin(), id.size(), context.asBytes().begin(),
                     context.size());
  return out;
}

kj::ArrayPtr<const char> trimmed(kj::ArrayPtr<const char> text) {
  auto isSpace = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == 0; };
  while (text.size() > 0 && isSpace(text.front())) text = text.slice(1, text.size());
  while (text.size() > 0 && isSpace(text.back())) text = text.slice(0, text.size() - 1);
  return text;
}

// Firmware that was never told a UUID shows one of these.
bool isNobodys(const VmId& uuid) {
  auto first = uuid.bytes[0];
  if (first != 0 && first != 0xff) return false;
  for (auto byte : uuid.bytes) {
    if (byte != first) return false;
  }
  return true;
}

kj::Maybe<MachineHash> uuidHashOf(kj::StringPtr path) {
  auto content = readBounded(path, MAX_ID_BYTES);
  if (!content.is<kj::Array<char>>()) return nullptr;
  KJ_IF_MAYBE (uuid, parseVmId(trimmed(content.get<kj::Array<char>>()))) {
    if (!isNobodys(*uuid)) return hashOf(UUID_CONTEXT, toString(*uuid).asArray());
  }
  return nullptr;
}

kj::Maybe<MachineHash> machineIdHashOf(kj::StringPtr path) {
  auto content = readBounded(path, MAX_ID_BYTES);
  if (!content.is<kj::Array<char>>()) return nullptr;
  auto id = trimmed(content.get<kj::Array<char>>());
  // systemd writes "uninitialized" into an image that has not booted yet.
  if (id.size() != 32) return nullptr;
  return hashOf(MACHINE_ID_CONTEXT, id);
}

}  // namespace

Machine Machine::read(const Paths& paths) {
  return Machine(uuidHashOf(paths.productUuid), machineIdHashOf(paths.machineId));
}

Machine::Basis Machine::basis() const {
  if (byUuid != nullptr) return Basis::PRODUCT_UUID;
  return byMachineId != nullptr ? Basis::MACHINE_ID : Basis::NONE;
}

MachineHash Machine::hash() const {
  KJ_IF_MAYBE (uuid, byUuid) return *uuid;
  KJ_IF_MAYBE (id, byMachineId) return *id;
  return hashOf(NO_CONTEXT, nullptr);
}

// T46
bool Machine::made(const MachineHash& bound) const {
  KJ_IF_MAYBE (uuid, byUuid) {
    if (*uuid == bound) return true;
  }
  KJ_IF_MAYBE (id, byMachineId) {
    if (*id == bound) return true;
  }
  return bound == hash();
}

}  // namespace postern::guest
