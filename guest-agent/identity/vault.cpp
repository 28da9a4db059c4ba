#include "guest-agent/identity/vault.h"

namespace postern::guest {

kj::OneOf<kj::Own<Vault>, VaultError> FileVault::open(kj::AutoCloseFd fd, uid_t owner, kj::StringPtr path) {
  auto opened = StateFile::open(kj::mv(fd), owner);
  if (opened.is<StateFileError>()) return VaultError{kj::str(path, ": ", describe(opened.get<StateFileError>()))};
  return kj::Own<Vault>(kj::heap<FileVault>(kj::mv(opened.get<StateFile>()), kj::heapString(path)));
}

kj::Maybe<kj::ArrayPtr<const kj::byte>> FileVault::state() const {
  KJ_IF_MAYBE (state, file.state()) {
    if (state->size() > 0) return *state;
  }
  return nullptr;
}

kj::Maybe<VaultError> FileVault::write(kj::ArrayPtr<const kj::byte> state) {
  KJ_IF_MAYBE (error, file.write(state)) return VaultError{kj::str(path, ": ", describe(*error))};
  return nullptr;
}

kj::Maybe<VaultError> FileVault::clear() {
  if (state() == nullptr) return nullptr;
  // Twice: into either slot.
  KJ_IF_MAYBE (error, write(nullptr)) return kj::mv(*error);
  return write(nullptr);
}

}  // namespace postern::guest
