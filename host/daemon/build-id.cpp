#include "host/daemon/build-id.h"

#include <elf.h>
#include <fcntl.h>
#include <kj/encoding.h>
#include <kj/io.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

namespace postern::host {

namespace {

constexpr size_t MAX_SEGMENTS = 64;
constexpr size_t MAX_NOTES_BYTES = 4096;

template <typename T>
bool readAt(int fd, off_t offset, kj::ArrayPtr<T> into) {
  auto bytes = into.asBytes();
  return pread(fd, bytes.begin(), bytes.size(), offset) == ssize_t(bytes.size());
}

size_t padded(size_t size) {
  return (size + 3) / 4 * 4;
}

kj::Maybe<kj::String> findId(kj::ArrayPtr<const kj::byte> notes) {
  ElfW(Nhdr) note;
  while (notes.size() >= sizeof(note)) {
    memcpy(&note, notes.begin(), sizeof(note));
    auto rest = notes.slice(sizeof(note), notes.size());
    if (note.n_namesz > MAX_NOTES_BYTES || note.n_descsz > MAX_NOTES_BYTES) break;
    auto contentAt = padded(note.n_namesz);
    auto end = contentAt + padded(note.n_descsz);
    if (end > rest.size()) break;
    bool isGnu = note.n_namesz == sizeof(ELF_NOTE_GNU) && memcmp(rest.begin(), ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0;
    if (isGnu && note.n_type == NT_GNU_BUILD_ID) {
      return kj::encodeHex(rest.slice(contentAt, contentAt + note.n_descsz));
    }
    notes = rest.slice(end, rest.size());
  }
  return nullptr;
}

}  // namespace

kj::String buildIdOf(kj::StringPtr program) {
  kj::AutoCloseFd fd(open(program.cStr(), O_RDONLY | O_CLOEXEC));
  ElfW(Ehdr) header;
  if (fd == nullptr || !readAt(fd, 0, kj::arrayPtr(&header, 1))) return kj::String();
  bool isElf = memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_phentsize == sizeof(ElfW(Phdr));
  if (!isElf || header.e_phnum > MAX_SEGMENTS) return kj::String();
  auto segments = kj::heapArray<ElfW(Phdr)>(header.e_phnum);
  if (!readAt(fd, off_t(header.e_phoff), segments.asPtr())) return kj::String();
  for (auto& segment : segments) {
    if (segment.p_type != PT_NOTE || segment.p_filesz > MAX_NOTES_BYTES) continue;
    auto notes = kj::heapArray<kj::byte>(segment.p_filesz);
    if (!readAt(fd, off_t(segment.p_offset), notes.asPtr())) continue;
    KJ_IF_MAYBE (id, findId(notes)) return kj::mv(*id);
  }
  return kj::String();
}

}  // namespace postern::host
