#pragma once
// Small files of posternd's own: read whole with a bound, and replaced so that a crash at any moment leaves the old one
// or the new one. Errors are lines for a person that name the file.

#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <sys/types.h>

namespace postern::host {

struct FileError {
  kj::String text;
};

kj::OneOf<kj::String, FileError> readFile(kj::StringPtr path, size_t maxBytes);
// What a crash of the machine may do to a file that was replaced.
enum class Lasting {
  THROUGH_CRASHES,  // nothing: written beside it, synced, renamed, and the folder synced
  UNTIL_REBOOT,     // anything: its content says something of this boot only, and syncing keeps a thousand VMs waiting
};
kj::Maybe<FileError> replaceFile(kj::StringPtr path, kj::StringPtr content, mode_t mode,
                                 Lasting lasting = Lasting::THROUGH_CRASHES);
// It, if it is there, and the folder synced.
kj::Maybe<FileError> removeFile(kj::StringPtr path);
// Names in it that end so, sorted, without those that begin with a dot; none if the folder is not there.
kj::OneOf<kj::Vector<kj::String>, FileError> listFolder(kj::StringPtr path, kj::StringPtr ending);
// With all folders above that are missing; an existing one keeps its mode.
kj::Maybe<FileError> makeFolder(kj::StringPtr path, mode_t mode);
kj::Maybe<FileError> syncFolderOf(kj::StringPtr path);

}  // namespace postern::host
