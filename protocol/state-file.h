#pragma once
// StateFile: a small secret state on disk that survives a crash at any moment: the old version or the new one, never
// part of either, and never readable by anyone but its owner.
//
// Works on a descriptor that is given: whoever may open the file opens it (posternd, for a session), and this
// class refuses one that is not a regular file, belongs to another user, or has any permission bit for group or others.
//
//   file = slot[2], SLOT_BYTES each
//   slot = "PSTNSLOT" | u64 generation (LE) | u32 length (LE) | u32 0 | state[length] | zeros | BLAKE2b-256 of all
//   before it
//
// The valid slot with the higher generation counts. A write goes to the other slot and is on the disk (fdatasync) when
// write() returns, so a torn write leaves the slot that counts as it was. The checksum is against torn writes and rot,
// not against an attacker, who would have to be the owner.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern {

enum class StateFileError {
  NOT_A_FILE,   // a directory, a device, a FIFO, a socket
  WRONG_OWNER,  // another user could change it
  TOO_OPEN,     // group or others have a permission on it
  CORRUPT,      // neither slot is valid, and the file is not empty
  TOO_LARGE,    // write(): the state does not fit a slot
  DISK,         // read or write failed: disk full, read-only, I/O error; what counted before still counts
};
// One line for a person, with what to do, without the path.
kj::StringPtr describe(StateFileError error);

class StateFile {
 public:
  static constexpr size_t SLOT_BYTES = 4096;
  static constexpr size_t MAX_STATE_BYTES = SLOT_BYTES - 24 - 32;

  // `owner` is the user that must own the file. Both slots are read.
  static kj::OneOf<StateFile, StateFileError> open(kj::AutoCloseFd fd, uid_t owner);

  StateFile(StateFile&&) = default;
  StateFile& operator=(StateFile&&) = default;
  ~StateFile() noexcept(false);
  KJ_DISALLOW_COPY(StateFile);

  // The state that counts; null for a new, empty file. Wiped when this object is.
  kj::Maybe<kj::ArrayPtr<const kj::byte>> state() const;
  uint64_t generation() const { return currentGeneration; }

  // Replaces the state. On an error the old one still counts, here and on the disk.
  [[nodiscard]] kj::Maybe<StateFileError> write(kj::ArrayPtr<const kj::byte> state);

 private:
  explicit StateFile(kj::AutoCloseFd fd) : fd(kj::mv(fd)) {}

  kj::AutoCloseFd fd;
  uint64_t currentGeneration = 0;  // 0: none
  unsigned currentSlot = 1;        // so that the first write goes to slot 0
  kj::Array<kj::byte> current;

  kj::Maybe<StateFileError> load();
};

}  // namespace postern
