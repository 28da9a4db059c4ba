#include "tests/support/tree-picture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <kj/io.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <set>

namespace postern::test {

namespace {

class Painter {
 public:
  explicit Painter(PictureOf what) : what(what) {}

  TreePicture picture;

  // By handles, since a path may be longer than a call takes.
  void paint(int folder, const char* name, const std::string& path) {
    struct stat status {};
    KJ_SYSCALL(fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW), path);
    picture[path] = describe(folder, name, path, status);
    if (!S_ISDIR(status.st_mode)) return;
    int fd;
    KJ_SYSCALL(fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), path);
    std::set<std::string> names;
    DIR* stream = fdopendir(fd);
    while (const dirent* entry = readdir(stream)) {
      if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) names.insert(entry->d_name);
    }
    for (auto& each : names) paint(fd, each.c_str(), path + "/" + each);
    closedir(stream);
  }

 private:
  PictureOf what;
  std::map<std::pair<dev_t, ino_t>, std::string> inodes;

  std::string describe(int folder, const char* name, const std::string& path, const struct stat& status) {
    kj::String text;
    if (S_ISREG(status.st_mode)) {
      text = kj::str("file ", status.st_size, " ", hashOf(folder, name));
    } else if (S_ISLNK(status.st_mode)) {
      char target[4096];
      ssize_t n = readlinkat(folder, name, target, sizeof(target));
      text = kj::str("link ", kj::encodeHex(kj::arrayPtr(target, size_t(n)).asBytes()));
    } else {
      text = kj::str("kind ", (status.st_mode & S_IFMT) >> 12, " ", S_ISDIR(status.st_mode) ? 0 : status.st_rdev);
    }
    if (what == PictureOf::CONTENT) return text.cStr();
    text = kj::str(text, " mode ", status.st_mode & 07777, " time ", status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec,
                   " owner ", status.st_uid, ":", status.st_gid);
    if (!S_ISDIR(status.st_mode) && !S_ISLNK(status.st_mode)) {
      auto first = inodes.emplace(std::make_pair(status.st_dev, status.st_ino), path).first->second;
      text = kj::str(text, " as ", first.c_str());
    }
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) text = kj::str(text, attributesOf(folder, name));
    return text.cStr();
  }

  static kj::String hashOf(int folder, const char* name) {
    int raw;
    KJ_SYSCALL(raw = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    kj::AutoCloseFd fd(raw);
    crypto_generichash_state state;
    crypto_generichash_init(&state, nullptr, 0, 32);
    static thread_local kj::byte block[65536];
    for (;;) {
      ssize_t n = read(fd, block, sizeof(block));
      if (n <= 0) break;
      crypto_generichash_update(&state, block, size_t(n));
    }
    kj::byte hash[32];
    crypto_generichash_final(&state, hash, 32);
    return kj::encodeHex(hash);
  }

  static kj::String attributesOf(int folder, const char* name) {
    int raw;
    KJ_SYSCALL(raw = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    kj::AutoCloseFd fd(raw);
    char names[65536];
    ssize_t length = flistxattr(fd, names, sizeof(names));
    std::map<std::string, kj::String> sorted;
    for (const char* at = names; length > 0 && at < names + length; at += strlen(at) + 1) {
      kj::byte value[65536];
      ssize_t n = fgetxattr(fd, at, value, sizeof(value));
      if (n >= 0) sorted[at] = kj::encodeHex(kj::arrayPtr(value, size_t(n)));
    }
    kj::String text = kj::str();
    for (auto& each : sorted) text = kj::str(text, " ", each.first.c_str(), "=", each.second);
    return text;
  }
};

std::string shown(const std::string& path) {
  return kj::encodeCEscape(kj::arrayPtr(path.data(), std::min(path.size(), size_t(120))).asBytes()).cStr();
}

}  // namespace

TreePicture pictureOf(kj::StringPtr root, PictureOf what) {
  Painter painter(what);
  painter.paint(AT_FDCWD, root.cStr(), "");
  return kj::mv(painter.picture);
}

std::string differences(const TreePicture& expected, const TreePicture& found) {
  std::string text;
  int count = 0;
  for (auto& each : expected) {
    auto other = found.find(each.first);
    if (other != found.end() && other->second == each.second) continue;
    if (++count > 5) break;
    text += shown(each.first) + ": expected " + each.second.substr(0, 300) + ", found " +
            (other == found.end() ? "nothing" : other->second.substr(0, 300)) + "\n";
  }
  for (auto& each : found) {
    if (expected.count(each.first) == 0 && ++count <= 8) text += shown(each.first) + ": found, and not expected\n";
  }
  return text;
}

}  // namespace postern::test
