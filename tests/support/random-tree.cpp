#include "tests/support/random-tree.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/test-random.h"

namespace postern::test {

namespace {

class Gardener {
 public:
  explicit Gardener(const RandomTreeOptions& options) : options(options), random(options.seed) {}

  void plant(kj::StringPtr path) {
    KJ_SYSCALL(mkdir(path.cStr(), 0700), path);
    folders.add(opened(AT_FDCWD, path));
    for (unsigned byte = 1; byte < 256; ++byte) {
      char name[] = {'n', char(byte), '\0'};
      if (byte != '/') file(folders[0], name, 1 + below(20));
    }
    for (unsigned i = 0; i < options.entries; ++i) something();
    deep();
    if (options.largeFiles) {
      file(folders[0], "large", (3u << 20) + below(100000));
      file(anyFolder(), "just too large to travel inside", 60 * 1024 + 1);
      file(anyFolder(), "as large as may travel inside", 60 * 1024);
      hole(anyFolder(), "holes");
    }
    finish();
  }

 private:
  struct Described {
    int folder;
    kj::String name;
    bool isDirectory;
  };

  const RandomTreeOptions& options;
  TestRandom random;
  kj::Vector<kj::AutoCloseFd> folders;
  kj::Vector<Described> described;  // a directory before what is in it
  kj::Vector<Described> files;

  uint64_t below(uint64_t n) { return random.next() % n; }
  int anyFolder() { return folders[below(folders.size())]; }

  static kj::AutoCloseFd opened(int folder, kj::StringPtr name) {
    int fd;
    KJ_SYSCALL(fd = openat(folder, name.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return kj::AutoCloseFd(fd);
  }

  kj::String anyName() {
    size_t bytes = below(20) == 0 ? 255 : 1 + below(12);
    auto name = kj::heapString(bytes);
    for (auto& each : name) {
      do {
        each = char(1 + below(255));
      } while (each == '/');
    }
    name[0] = char('a' + below(26));  // neither "." nor ".."
    return name;
  }

  void file(int folder, kj::StringPtr name, size_t bytes) {
    int raw = openat(folder, name.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (raw < 0 && errno == EEXIST) return;
    KJ_ASSERT(raw >= 0, strerror(errno));
    kj::AutoCloseFd fd(raw);
    auto content = kj::heapArray<kj::byte>(bytes);
    random.fill(content);
    KJ_ASSERT(write(fd, content.begin(), bytes) == ssize_t(bytes));
    described.add(Described{folder, kj::str(name), false});
    files.add(Described{folder, kj::str(name), false});
  }

  void hole(int folder, kj::StringPtr name) {
    file(folder, name, 4096);
    kj::AutoCloseFd fd(openat(folder, name.cStr(), O_WRONLY | O_CLOEXEC));
    KJ_ASSERT(pwrite(fd, "in the middle", 13, 1 << 20) == 13);
    KJ_SYSCALL(ftruncate(fd, 2 << 20));
  }

  void directory(int folder) {
    auto name = anyName();
    if (mkdirat(folder, name.cStr(), 0700) != 0) return;
    described.add(Described{folder, kj::str(name), true});
    folders.add(opened(folder, name));
  }

  void something() {
    int folder = anyFolder();
    auto name = anyName();
    switch (below(12)) {
      case 0:
      case 1:
        directory(folder);
        break;
      case 2: {
        const char* targets[] = {"..", "/", "../../../../etc/passwd", "nowhere", "large", "\xff\x01\n"};
        if (symlinkat(targets[below(6)], folder, name.cStr()) == 0) {
          described.add(Described{folder, kj::mv(name), false});
        }
        break;
      }
      case 3: {
        auto& to = files[below(files.size())];
        int failed = linkat(to.folder, to.name.cStr(), folder, name.cStr(), 0);
        KJ_ASSERT(failed == 0 || errno == EEXIST);
        break;
      }
      case 4:
        if (below(4) == 0 && mknodat(folder, name.cStr(), S_IFIFO | 0600, 0) == 0) {
          described.add(Described{folder, kj::mv(name), false});
        }
        break;
      case 5:
        file(folder, name, 0);
        break;
      default:
        file(folder, name, below(below(10) == 0 ? 70000 : 3000));
    }
  }

  void deep() {
    int folder = folders[0];
    for (unsigned i = 1; i < options.depth; ++i) {
      KJ_SYSCALL(mkdirat(folder, "down", 0700));
      described.add(Described{folder, kj::str("down"), true});
      folders.add(opened(folder, "down"));
      folder = folders.back();
    }
    file(folder, "at the bottom", 10);
  }

  // Modes and times last, deepest first, since making things changes the times of what they are in.
  void finish() {
    for (size_t i = described.size(); i > 0; --i) {
      auto& each = described[i - 1];
      struct stat status {};
      KJ_SYSCALL(fstatat(each.folder, each.name.cStr(), &status, AT_SYMLINK_NOFOLLOW));
      if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) attributes(each);
      mode_t least = S_ISDIR(status.st_mode) ? 0700 : 0400;
      if (!S_ISLNK(status.st_mode)) {
        KJ_SYSCALL(fchmodat(each.folder, each.name.cStr(), mode_t(below(512)) | least, 0));
      }
      if (geteuid() == 0 && below(3) == 0) {
        KJ_SYSCALL(
            fchownat(each.folder, each.name.cStr(), uid_t(below(70000)), gid_t(below(70000)), AT_SYMLINK_NOFOLLOW));
      }
      timespec times[] = {{0, UTIME_OMIT}, {long(below(4000000000u)) - 500000000, long(below(1000000000))}};
      KJ_SYSCALL(utimensat(each.folder, each.name.cStr(), times, AT_SYMLINK_NOFOLLOW));
    }
  }

  void attributes(const Described& of) {
    if (below(5) != 0) return;
    kj::AutoCloseFd fd(openat(of.folder, of.name.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    kj::byte value[200];
    random.fill(value);
    fsetxattr(fd, "user.of the test", value, below(sizeof(value)), 0);  // where the file system has them
    if (below(2) == 0) fsetxattr(fd, "user.empty", value, 0, 0);
  }
};

}  // namespace

void makeRandomTree(kj::StringPtr path, const RandomTreeOptions& options) {
  Gardener gardener(options);
  gardener.plant(path);
}

}  // namespace postern::test
