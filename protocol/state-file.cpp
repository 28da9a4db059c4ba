#include "protocol/state-file.h"

#include <errno.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/secret.h"
#include "protocol/wire-int.h"

namespace postern {

namespace {

constexpr char MAGIC[8] = {'P', 'S', 'T', 'N', 'S', 'L', 'O', 'T'};
constexpr size_t GENERATION = 8;
constexpr size_t LENGTH = 16;
constexpr size_t STATE = 24;
constexpr size_t CHECKSUM = StateFile::SLOT_BYTES - 32;

using Slot = Secret<StateFile::SLOT_BYTES>;  // wiped: it holds keys

void checksum(const Slot& slot, kj::byte* out) {
  crypto_generichash(out, 32, slot.begin(), CHECKSUM, nullptr, 0);
}

bool isValid(const Slot& slot) {
  kj::byte expected[32];
  checksum(slot, expected);
  return memcmp(slot.begin(), MAGIC, sizeof(MAGIC)) == 0 && memcmp(slot.begin() + CHECKSUM, expected, 32) == 0 &&
         getLittleEndian<uint64_t>(slot.begin() + GENERATION) > 0 &&
         getLittleEndian<uint32_t>(slot.begin() + LENGTH) <= StateFile::MAX_STATE_BYTES;
}

// As much of the slot as the file has; the rest is zeros. False on an I/O error.
bool readSlot(int fd, unsigned number, Slot& slot, size_t& have) {
  have = 0;
  while (have < StateFile::SLOT_BYTES) {
    auto offset = static_cast<off_t>(number * StateFile::SLOT_BYTES + have);
    ssize_t n = pread(fd, slot.begin() + have, StateFile::SLOT_BYTES - have, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  return true;
}

bool writeSlot(int fd, unsigned number, const Slot& slot) {
  size_t done = 0;
  while (done < StateFile::SLOT_BYTES) {
    auto offset = static_cast<off_t>(number * StateFile::SLOT_BYTES + done);
    ssize_t n = pwrite(fd, slot.begin() + done, StateFile::SLOT_BYTES - done, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return fdatasync(fd) == 0;
}

}  // namespace

kj::StringPtr describe(StateFileError error) {
  switch (error) {
    case StateFileError::NOT_A_FILE:
      return "is not a regular file";
    case StateFileError::WRONG_OWNER:
      return "belongs to another user; chown it to the user that runs this";
    case StateFileError::TOO_OPEN:
      return "can be read or written by others; chmod 600 it, and enrol again if somebody may have read it";
    case StateFileError::CORRUPT:
      return "is damaged; restore it, or remove it and enrol again";
    case StateFileError::TOO_LARGE:
      return "cannot hold a state of this size";
    case StateFileError::DISK:
      return "cannot be read or written: is the disk full or read-only?";
  }
  KJ_UNREACHABLE;
}

StateFile::~StateFile() noexcept(false) {
  sodium_memzero(current.begin(), current.size());
}

kj::OneOf<StateFile, StateFileError> StateFile::open(kj::AutoCloseFd fd, uid_t owner) {
  struct stat info;
  if (fstat(fd, &info) != 0) return StateFileError::DISK;
  // T35
  if (!S_ISREG(info.st_mode)) return StateFileError::NOT_A_FILE;
  if (info.st_uid != owner) return StateFileError::WRONG_OWNER;
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) return StateFileError::TOO_OPEN;
  StateFile file(kj::mv(fd));
  KJ_IF_MAYBE (error, file.load()) return *error;
  return kj::mv(file);
}

kj::Maybe<StateFileError> StateFile::load() {
  size_t bytesInFile = 0;
  for (unsigned number : {0u, 1u}) {
    Slot slot;
    size_t have = 0;
    if (!readSlot(fd, number, slot, have)) return StateFileError::DISK;
    bytesInFile += have;
    if (!isValid(slot)) continue;
    auto generation = getLittleEndian<uint64_t>(slot.begin() + GENERATION);
    if (generation <= currentGeneration) continue;
    sodium_memzero(current.begin(), current.size());
    current = kj::heapArray<kj::byte>(slot.begin() + STATE, getLittleEndian<uint32_t>(slot.begin() + LENGTH));
    currentGeneration = generation;
    currentSlot = number;
  }
  // A first write that was cut leaves bytes and no valid slot. Nothing counted before it, so nothing is lost; but it
  // looks the same as a file that rotted, so the person decides.
  if (currentGeneration == 0 && bytesInFile > 0) return StateFileError::CORRUPT;
  return nullptr;
}

kj::Maybe<kj::ArrayPtr<const kj::byte>> StateFile::state() const {
  if (currentGeneration == 0) return nullptr;
  return current.asPtr();
}

// T36
kj::Maybe<StateFileError> StateFile::write(kj::ArrayPtr<const kj::byte> state) {
  if (state.size() > MAX_STATE_BYTES) return StateFileError::TOO_LARGE;
  Slot slot;
  memcpy(slot.begin(), MAGIC, sizeof(MAGIC));
  putLittleEndian<uint64_t>(currentGeneration + 1, slot.begin() + GENERATION);
  putLittleEndian<uint32_t>(static_cast<uint32_t>(state.size()), slot.begin() + LENGTH);
  if (state.size() > 0) memcpy(slot.begin() + STATE, state.begin(), state.size());
  checksum(slot, slot.begin() + CHECKSUM);
  if (!writeSlot(fd, 1 - currentSlot, slot)) return StateFileError::DISK;

  auto copy = kj::heapArray<kj::byte>(state);
  sodium_memzero(current.begin(), current.size());
  current = kj::mv(copy);
  ++currentGeneration;
  currentSlot = 1 - currentSlot;
  return nullptr;
}

}  // namespace postern
