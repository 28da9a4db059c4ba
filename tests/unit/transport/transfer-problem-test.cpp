// Each reason why an entry, or all of a transfer, is not carried out: its kind, and that nothing else suffers.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <iostream>

#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;

namespace {

// Runs as a user that has no rights of its own, in a process of its own; whether all was true.
bool asNobody(std::function<bool()> body) {
  std::cout.flush();
  pid_t child = fork();
  if (child == 0) {
    bool good = setgid(65534) == 0 && setuid(65534) == 0 && body();
    _exit(good ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0;
}

struct Here {
  TempDir dir;
  Here() {
    KJ_SYSCALL(mkdir(dir.file("to").cStr(), 0777));
    KJ_SYSCALL(chmod(dir.file("to").cStr(), 0777));
    KJ_SYSCALL(chmod(dir.path().cStr(), 0755));
  }
  kj::String to(kj::StringPtr name) const { return kj::str(dir.path(), "/to/", name); }
};

}  // namespace

TEST_CASE("a source that is not there is told, and the others are copied") {
  Here here;
  writeFile(here.dir.file("there"), "content");
  Copy copy;
  copy.from(here.dir.path(), "missing").from(here.dir.path(), "there").into(here.to("")).run();
  CHECK(copy.failure().kind == ProblemKind::NO_SUCH_FILE);
  CHECK(copy.sending.failures[0].path == kj::str(here.dir.path(), "/missing").cStr());
  CHECK(readFile(here.to("there")) == "content");
}

TEST_CASE("a directory is copied with -r alone") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("folder").cStr(), 0755));
  Copy copy;
  copy.from(here.dir.path(), "folder").into(here.to("")).run();
  CHECK(copy.failure().kind == ProblemKind::IS_DIRECTORY);
  CHECK(copy.failure().detail.find("-r") != std::string::npos);
}

TEST_CASE("a directory at the destination is not replaced by a file, large or small, nor a file by a directory") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("from").cStr(), 0755));
  writeFile(here.dir.file("from/small"), "content");
  writeFile(here.dir.file("from/large"), text(bytesOf(100000)));
  KJ_SYSCALL(mkdir(here.dir.file("from/folder").cStr(), 0755));
  writeFile(here.dir.file("from/folder/inner"), "content");
  writeFile(here.dir.file("from/folder/large"), text(bytesOf(100000)));
  KJ_SYSCALL(mkdir(here.to("from").cStr(), 0755));
  KJ_SYSCALL(mkdir(here.to("from/small").cStr(), 0755));
  KJ_SYSCALL(mkdir(here.to("from/large").cStr(), 0755));
  writeFile(here.to("from/folder"), "a file");
  Copy copy;
  copy.from(here.dir.path(), "from").into(here.to("")).all().run();
  CHECK(copy.summary().failures == 5);
  for (auto& failure : copy.making.failures) {
    bool below = failure.path.find("folder") != std::string::npos;
    CHECK(failure.kind == (below ? ProblemKind::NOT_DIRECTORY : ProblemKind::IS_DIRECTORY));
  }
  CHECK(readFile(here.to("from/folder")) == "a file");
  CHECK(leftovers(here.dir.path()).empty());
}

TEST_CASE("what exists stays with no-clobber: files of all sizes, links, and its hard links") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("from").cStr(), 0755));
  writeFile(here.dir.file("from/small"), "new");
  writeFile(here.dir.file("from/large"), text(bytesOf(3 << 20)));
  writeFile(here.dir.file("from/fresh"), "new");
  KJ_SYSCALL(symlink("new", here.dir.file("from/link").cStr()));
  KJ_SYSCALL(link(here.dir.file("from/fresh").cStr(), here.dir.file("from/zz").cStr()));
  KJ_SYSCALL(mkdir(here.to("from").cStr(), 0755));
  for (auto name : {"small", "large", "zz"}) writeFile(here.to(kj::str("from/", name)), "old");
  KJ_SYSCALL(symlink("old", here.to("from/link").cStr()));
  Copy copy;
  copy.from(here.dir.path(), "from").into(here.to("")).all();
  copy.destination.noClobber = true;
  copy.run();
  CHECK(copy.summary().failures == 4);
  for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::EXISTS);
  for (auto name : {"small", "large", "zz"}) CHECK(readFile(here.to(kj::str("from/", name))) == "old");
  CHECK(readFile(here.to("from/fresh")) == "new");
  CHECK(std::filesystem::read_symlink(here.to("from/link").cStr()) == "old");
  CHECK(leftovers(here.dir.path()).empty());
}

TEST_CASE("what exists is replaced without it, whatever it is but a directory") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("from").cStr(), 0755));
  writeFile(here.dir.file("from/small"), "new");
  writeFile(here.dir.file("from/large"), text(bytesOf(3 << 20)));
  KJ_SYSCALL(symlink("new", here.dir.file("from/link").cStr()));
  KJ_SYSCALL(mkdir(here.to("from").cStr(), 0755));
  writeFile(here.dir.file("elsewhere"), "precious");
  KJ_SYSCALL(symlink(here.dir.file("elsewhere").cStr(), here.to("from/small").cStr()));
  KJ_SYSCALL(symlink(here.dir.file("elsewhere").cStr(), here.to("from/large").cStr()));
  writeFile(here.to("from/link"), "old");
  Copy copy;
  copy.from(here.dir.path(), "from").into(here.to("")).all().run();
  CHECK(copy.summary().failures == 0);
  CHECK(readFile(here.to("from/small")) == "new");
  CHECK(readFile(here.to("from/large")) == bytesOf(3 << 20));
  CHECK(std::filesystem::read_symlink(here.to("from/link").cStr()) == "new");
  CHECK(readFile(here.dir.file("elsewhere")) == "precious");
  CHECK(leftovers(here.dir.path()).empty());
}

TEST_CASE("symbolic links as sources are followed, copied or refused, as was asked") {
  Here here;
  writeFile(here.dir.file("file"), "content");
  KJ_SYSCALL(symlink("file", here.dir.file("link").cStr()));
  {
    Copy copy;
    copy.from(here.dir.path(), "link").into(here.to("")).run();
    CHECK(copy.failure().kind == ProblemKind::SYMBOLIC_LINK);
  }
  {
    Copy copy;
    copy.from(here.dir.path(), "link").into(here.to(""));
    copy.tops[0].follow = true;
    copy.run();
    CHECK(copy.summary().failures == 0);
    CHECK(std::filesystem::is_regular_file(std::filesystem::symlink_status(here.to("link").cStr())));
  }
  {
    Copy copy;
    copy.from(here.dir.path(), "link").into(here.to("")).all().run();
    CHECK(copy.summary().failures == 0);
    CHECK(std::filesystem::is_symlink(std::filesystem::symlink_status(here.to("link").cStr())));
  }
}

TEST_CASE("FIFOs, sockets and devices are problems, and never a wait") {
  Here here;
  KJ_SYSCALL(mkdir(here.dir.file("from").cStr(), 0755));
  KJ_SYSCALL(mkfifo(here.dir.file("from/fifo").cStr(), 0644));
  kj::AutoCloseFd listener(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto path = here.dir.file("from/socket");
  memcpy(address.sun_path, path.begin(), path.size());
  KJ_SYSCALL(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  size_t specials = 2;
  if (geteuid() == 0 && mknod(here.dir.file("from/null").cStr(), S_IFCHR | 0644, makedev(1, 3)) == 0) ++specials;
  {
    Copy copy;
    copy.from(here.dir.path(), "from").into(here.to(""));
    copy.source.recursive = true;
    copy.run();
    CHECK(copy.summary().failures == specials);
    for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::UNSUPPORTED);
  }
  {
    Copy copy;
    copy.from(here.dir.path(), "from").into(here.to("")).all().run();
    CHECK(copy.summary().failures == specials - 1);  // the FIFO is made
    CHECK(std::filesystem::is_fifo(here.to("from/fifo").cStr()));
  }
  {
    Copy copy;
    copy.from(here.dir.path(), "from").into(here.to("")).all();
    copy.destination.special = true;
    copy.run();
    CHECK(copy.summary().failures == 1);  // the socket
  }
}

TEST_CASE("a single source that is a FIFO is a problem at once") {
  Here here;
  KJ_SYSCALL(mkfifo(here.dir.file("fifo").cStr(), 0644));
  Copy copy;
  copy.from(here.dir.path(), "fifo").into(here.to("")).run();
  CHECK(copy.failure().kind == ProblemKind::UNSUPPORTED);
}

TEST_CASE("what the user may not read or write is a problem that names the user") {
  if (geteuid() != 0) {
    MESSAGE("skipped: needs root, to become somebody else");
    return;
  }
  Here here;
  writeFile(here.dir.file("secret"), "content", 0600);
  KJ_SYSCALL(mkdir(here.dir.file("closed").cStr(), 0700));
  KJ_SYSCALL(mkdir(here.dir.file("tree").cStr(), 0755));
  KJ_SYSCALL(mkdir(here.dir.file("tree/hidden").cStr(), 0700));
  writeFile(here.dir.file("tree/open"), "content");
  KJ_SYSCALL(mkdir(here.dir.file("mine").cStr(), 0755));
  CHECK(asNobody([&]() {
    Copy copy;
    copy.from(here.dir.path(), "secret").from(here.dir.path(), "tree").into(here.to(""));
    copy.source.recursive = true;
    copy.run();
    bool good = copy.summary().failures == 2 && readFile(here.to("tree/open")) == "content";
    for (auto& failure : copy.sending.failures) {
      good = good && failure.kind == ProblemKind::PERMISSION && failure.detail.find("nobody") != std::string::npos;
    }
    return good;
  }));
  CHECK(asNobody([&]() {
    Copy copy;
    copy.from(here.dir.file("tree"), "open").into(here.dir.file("mine")).run();
    return copy.failure().kind == ProblemKind::PERMISSION;
  }));
}

TEST_CASE("the longest name fits, new and in place of an old one") {
  Here here;
  writeFile(here.dir.file("file"), "content");
  Copy copy;
  copy.from(here.dir.path(), "file").from(here.dir.path(), "file").into(here.to(""));
  copy.tops[0].as = kj::str(std::string(255, 'n').c_str());
  copy.run();
  CHECK(copy.summary().failures == 0);  // 255 bytes fit, and so does what is temporary
  Copy over;
  over.from(here.dir.path(), "file").into(here.to(""));
  over.tops[0].as = kj::str(std::string(255, 'n').c_str());
  over.run();
  CHECK(over.summary().failures == 0);
}

TEST_CASE("a tree that is too deep is told where it ends, and copied down to there") {
  Here here;
  auto at = folderAt(here.dir.path());
  for (unsigned i = 0; i < MAX_DEPTH + 3; ++i) {
    KJ_SYSCALL(mkdirat(at, "d", 0755));
    int next;
    KJ_SYSCALL(next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    at = kj::AutoCloseFd(next);
  }
  Copy copy;
  copy.from(here.dir.path(), "d").into(here.to("")).all().run();
  CHECK(copy.failure().kind == ProblemKind::TOO_MANY);
  CHECK(copy.summary().directories == MAX_DEPTH);
}

TEST_CASE("several sources do not become one name") {
  Here here;
  writeFile(here.dir.file("one"), "1");
  writeFile(here.dir.file("two"), "2");
  Copy copy;
  copy.from(here.dir.path(), "one").from(here.dir.path(), "two").as(here.to(""), "name").run();
  CHECK(copy.refusal() == ProblemKind::NOT_DIRECTORY);
  CHECK(std::filesystem::is_empty(here.to("").cStr()));
}

TEST_CASE("attributes that this end cannot keep are told, and the file is there") {
  Here here;
  writeFile(here.dir.file("file"), "content");
  auto large = bytesOf(40000);
  if (access("/dev/shm", W_OK) != 0) return;
  kj::String place = kj::str("/dev/shm/postern-test-XXXXXX");
  KJ_ASSERT(mkdtemp(place.begin()) != nullptr);
  KJ_DEFER(std::filesystem::remove_all(place.cStr()));
  auto file = kj::str(place, "/file");
  writeFile(file, "content");
  if (setxattr(file.cStr(), "user.large", large.data(), large.size(), 0) != 0) {
    MESSAGE("skipped: this file system keeps no attributes of this size");
    return;
  }
  Copy copy;
  copy.from(place, "file").into(here.to("")).all().run();
  CHECK(copy.failure().kind == ProblemKind::UNSUPPORTED);
  CHECK(readFile(here.to("file")) == "content");
}
