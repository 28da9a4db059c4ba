#include "host/move/transfer-key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "protocol/checked-line.h"
#include "protocol/state-file.h"
#include "transport/connection.h"

namespace postern::host {

namespace {

constexpr kj::StringPtr PREFIX = "postern-host-1:"_kj;
constexpr int FLAGS = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

FileError unusable(kj::StringPtr path, StateFileError error) {
  return {kj::str(path, ": ", describe(error))};
}

kj::OneOf<TransferKeyPair, FileError> read(kj::StringPtr path, kj::AutoCloseFd fd) {
  auto opened = StateFile::open(kj::mv(fd), geteuid());
  KJ_IF_MAYBE (error, opened.tryGet<StateFileError>()) return unusable(path, *error);
  KJ_IF_MAYBE (stored, opened.get<StateFile>().state()) {
    if (stored->size() == noise::KEY_BYTES) return TransferKeyPair{noise::KeyPair::from(Secret<32>(*stored))};
  }
  return unusable(path, StateFileError::CORRUPT);
}

// Under another name first, so that a crash leaves no half of a key.
kj::OneOf<TransferKeyPair, FileError> make(kj::StringPtr path, Random& random) {
  auto beside = kj::str(path, ".new");
  kj::AutoCloseFd fd(open(beside.cStr(), FLAGS | O_CREAT | O_TRUNC, 0600));
  if (fd == nullptr) return FileError{kj::str(beside, ": cannot make it: ", errorWords(errno))};
  auto opened = StateFile::open(kj::mv(fd), geteuid());
  KJ_IF_MAYBE (error, opened.tryGet<StateFileError>()) return unusable(beside, *error);
  auto key = TransferKeyPair::generate(random);
  KJ_IF_MAYBE (error, opened.get<StateFile>().write(key.pair.secretKey.asPtr())) return unusable(beside, *error);
  if (rename(beside.cStr(), path.cStr()) != 0) {
    return FileError{kj::str(path, ": cannot make it: ", errorWords(errno))};
  }
  KJ_IF_MAYBE (error, syncFolderOf(path)) return kj::mv(*error);
  return kj::mv(key);
}

}  // namespace

kj::String toText(const TransferPublicKey& key) {
  return kj::str(encodeLine(PREFIX, kj::arrayPtr(key.bytes.data(), key.bytes.size())).get());
}

kj::Maybe<TransferPublicKey> parseTransferKey(kj::ArrayPtr<const char> untrusted) {
  kj::byte room[noise::KEY_BYTES + LINE_CHECKSUM_BYTES];
  auto decoded = decodeLine(PREFIX, untrusted, room);
  if (!decoded.is<size_t>() || decoded.get<size_t>() != noise::KEY_BYTES) return nullptr;
  TransferPublicKey key;
  memcpy(key.bytes.data(), room, key.bytes.size());
  return key;
}

kj::OneOf<TransferKeyPair, FileError> loadTransferKey(kj::StringPtr path, Random& random) {
  kj::AutoCloseFd fd(open(path.cStr(), FLAGS));
  if (fd != nullptr) return read(path, kj::mv(fd));
  if (errno != ENOENT) return FileError{kj::str(path, ": cannot open it: ", errorWords(errno))};
  return make(path, random);
}

}  // namespace postern::host
