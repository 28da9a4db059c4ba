#include "host/files/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "transport/connection.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

FileError fileError(kj::StringPtr path, kj::StringPtr what, int error) {
  kj::StringPtr advice = "";
  if (error == ENOSPC || error == EDQUOT) advice = "; free some space and try again";
  if (error == EROFS) advice = "; mount its file system writable";
  if (error == EACCES || error == EPERM) advice = "; check who owns it";
  return {kj::str(printable(path, 200), ": cannot ", what, ": ", errorWords(error), advice)};
}

bool writeAll(int fd, kj::StringPtr content) {
  size_t done = 0;
  while (done < content.size()) {
    auto n = ::write(fd, content.begin() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += size_t(n);
  }
  return true;
}

kj::StringPtr folderOf(kj::StringPtr path, kj::String& space) {
  KJ_IF_MAYBE (slash, path.findLast('/')) {
    space = kj::str(path.slice(0, *slash == 0 ? 1 : *slash));
    return space;
  }
  return ".";
}

}  // namespace

kj::OneOf<kj::String, FileError> readFile(kj::StringPtr path, size_t maxBytes) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd == nullptr) return fileError(path, "open it", errno);
  struct stat info;
  if (fstat(fd, &info) != 0) return fileError(path, "look at it", errno);
  if (!S_ISREG(info.st_mode)) return FileError{kj::str(printable(path, 200), ": is not a file")};
  auto buffer = kj::heapArray<char>(maxBytes + 1);
  size_t size = 0;
  while (size < buffer.size()) {
    auto n = ::read(fd, buffer.begin() + size, buffer.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fileError(path, "read it", errno);
    if (n == 0) break;
    size += size_t(n);
  }
  if (size > maxBytes) return FileError{kj::str(printable(path, 200), ": is larger than ", maxBytes, " bytes")};
  return kj::heapString(buffer.begin(), size);
}

kj::Maybe<FileError> syncFolderOf(kj::StringPtr path) {
  kj::String space;
  auto folder = folderOf(path, space);
  kj::AutoCloseFd fd(open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd == nullptr) return fileError(folder, "open it", errno);
  // Some file systems have nothing to sync in a folder.
  if (fsync(fd) != 0 && errno != EINVAL) return fileError(folder, "sync it", errno);
  return nullptr;
}

kj::Maybe<FileError> replaceFile(kj::StringPtr path, kj::StringPtr content, mode_t mode, Lasting lasting) {
  bool syncs = lasting == Lasting::THROUGH_CRASHES;
  auto beside = kj::str(path, ".new");
  {
    kj::AutoCloseFd fd(open(beside.cStr(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode));
    if (fd == nullptr) return fileError(beside, "make it", errno);
    if (fchmod(fd, mode) != 0 || !writeAll(fd, content) || (syncs && fsync(fd) != 0)) {
      int error = errno;
      unlink(beside.cStr());
      return fileError(beside, "write it", error);
    }
  }
  if (rename(beside.cStr(), path.cStr()) != 0) {
    int error = errno;
    unlink(beside.cStr());
    return fileError(path, "replace it", error);
  }
  if (!syncs) return nullptr;
  return syncFolderOf(path);
}

kj::Maybe<FileError> removeFile(kj::StringPtr path) {
  if (unlink(path.cStr()) != 0 && errno != ENOENT) return fileError(path, "remove it", errno);
  return syncFolderOf(path);
}

kj::OneOf<kj::Vector<kj::String>, FileError> listFolder(kj::StringPtr path, kj::StringPtr ending) {
  kj::Vector<kj::String> names;
  DIR* folder = opendir(path.cStr());
  if (folder == nullptr) {
    if (errno == ENOENT) return kj::mv(names);
    return fileError(path, "list it", errno);
  }
  KJ_DEFER(closedir(folder));
  errno = 0;
  while (auto* entry = readdir(folder)) {
    kj::StringPtr name = entry->d_name;
    if (!name.startsWith(".") && name.endsWith(ending)) names.add(kj::str(name));
  }
  if (errno != 0) return fileError(path, "list it", errno);
  std::sort(names.begin(), names.end());
  return kj::mv(names);
}

kj::Maybe<FileError> makeFolder(kj::StringPtr path, mode_t mode) {
  kj::String space;
  if (mkdir(path.cStr(), mode) == 0) {
    if (chmod(path.cStr(), mode) != 0) return fileError(path, "set its mode", errno);
    return nullptr;
  }
  if (errno == ENOENT) {
    auto above = folderOf(path, space);
    if (above != path) {
      KJ_IF_MAYBE (error, makeFolder(above, 0755)) return kj::mv(*error);
      return makeFolder(path, mode);
    }
  }
  if (errno != EEXIST) return fileError(path, "make it", errno);
  struct stat info;
  if (stat(path.cStr(), &info) != 0) return fileError(path, "look at it", errno);
  if (!S_ISDIR(info.st_mode)) return FileError{kj::str(printable(path, 200), ": is not a folder")};
  return nullptr;
}

}  // namespace postern::host
