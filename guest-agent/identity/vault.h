#pragma once
// Vault: where one identity lies: a StateFile, or in tests memory that can fail at the Nth write. Errors are lines for
// a person that name the file and say what to do.

#include <kj/array.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/state-file.h"

namespace postern::guest {

struct VaultError {
  kj::String text;
};

class Vault {
 public:
  virtual ~Vault() noexcept(false) {}

  // Null when it holds none: new, or cleared.
  virtual kj::Maybe<kj::ArrayPtr<const kj::byte>> state() const = 0;
  // On the disk when this returns. On an error what was there before still counts.
  [[nodiscard]] virtual kj::Maybe<VaultError> write(kj::ArrayPtr<const kj::byte> state) = 0;
  // Holds none from here on, and no copy of an older one.
  [[nodiscard]] virtual kj::Maybe<VaultError> clear() = 0;
  // For errors about what it holds.
  virtual kj::StringPtr name() const = 0;
};

class FileVault final : public Vault {
 public:
  // `path` is for errors; the descriptor is what counts (StateFile::open checks it, `owner` included).
  static kj::OneOf<kj::Own<Vault>, VaultError> open(kj::AutoCloseFd fd, uid_t owner, kj::StringPtr path);

  FileVault(StateFile file, kj::String path) : file(kj::mv(file)), path(kj::mv(path)) {}

  kj::Maybe<kj::ArrayPtr<const kj::byte>> state() const override;
  kj::Maybe<VaultError> write(kj::ArrayPtr<const kj::byte> state) override;
  kj::Maybe<VaultError> clear() override;
  kj::StringPtr name() const override { return path; }

 private:
  StateFile file;
  kj::String path;
};

}  // namespace postern::guest
