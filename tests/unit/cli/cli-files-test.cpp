// postern ls, stat, mkdir and rm on a guest that is a folder, with real openers at both ends.

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;

namespace {

namespace fs = std::filesystem;

struct Guest {
  CliWorld world;
  Guest() {
    fs::create_directories(world.guest("srv/sub").cStr());
    write("srv/b.txt", "12345");
    write("srv/a b", "");
    write("srv/.hidden", "");
    write("srv/sub/inner", "x");
    fs::create_symlink("b.txt", world.guest("srv/link").cStr());
    chmod(world.guest("srv/b.txt").cStr(), 0640);
  }
  void write(kj::StringPtr name, kj::StringPtr text) { std::ofstream(world.guest(name).cStr()) << text.cStr(); }
  bool exists(kj::StringPtr name) { return fs::exists(fs::symlink_status(world.guest(name).cStr())); }
};

}  // namespace

TEST_CASE("ls prints names, sorted and escaped, and hidden ones with -a alone") {
  Guest guest;
  CHECK(guest.world.run({"ls", "web1:/srv"}) == ExitStatus::DONE);
  CHECK_TEXT(guest.world.output(), "a\\ b\nb.txt\nlink\nsub\n");
  CHECK_TEXT(guest.world.control.opened[0], "web1 file.list /srv");
  CHECK(guest.world.run({"ls", "-a", "web1:/srv/"}) == ExitStatus::DONE);
  CHECK_TEXT(guest.world.output(), ".hidden\na\\ b\nb.txt\nlink\nsub\n");
  CHECK(guest.world.run({"ls", "-R", "web1:/srv"}) == ExitStatus::DONE);
  CHECK_TEXT(guest.world.output(), "a\\ b\nb.txt\nlink\nsub\nsub/inner\n");
}

TEST_CASE("ls of a file is that file, of several paths each under its name") {
  Guest guest;
  CHECK(guest.world.run({"ls", "web1:/srv/b.txt"}) == ExitStatus::DONE);
  CHECK_TEXT(guest.world.output(), "web1:/srv/b.txt\n");
  CHECK(guest.world.run({"ls", "web1:/srv/sub", "db1:/srv/sub"}) == ExitStatus::DONE);
  CHECK_TEXT(guest.world.output(), "web1:/srv/sub:\ninner\n\ndb1:/srv/sub:\ninner\n");
}

TEST_CASE("ls -l has mode, owner, group, size, time and where a link leads") {
  Guest guest;
  CHECK(guest.world.run({"ls", "-l", "web1:/srv"}) == ExitStatus::DONE);
  auto text = guest.world.output();
  CHECK(contains(text, "-rw-r----- "));
  CHECK(contains(text, " b.txt\n"));
  CHECK(contains(text, " link -> b.txt\n"));
  CHECK(contains(text, "drwx"));
  if (geteuid() == 0) CHECK(contains(text, "-rw-r----- root root "));
}

TEST_CASE("ls --json has every name, as text or as base64") {
  Guest guest;
  guest.write("srv/sub/\377", "");
  CHECK(guest.world.run({"ls", "--json", "-a", "web1:/srv", "web1:/srv/sub"}) == ExitStatus::DONE);
  auto document = JsonReader::read(guest.world.output());
  CHECK(document["ok"].flag());
  auto& first = document["entries"].at(1);
  CHECK_TEXT(first["vm"].text(), "web1");
  CHECK_TEXT(first["in"].text(), "/srv");
  CHECK_TEXT(first["name"].text(), "a b");
  CHECK_TEXT(first["kind"].text(), "file");
  CHECK_TEXT(document["entries"].at(2)["mode"].text(), "0640");
  CHECK(document["entries"].at(2)["size"].number() == 5);
  CHECK_TEXT(document["entries"].at(3)["target"].text(), "b.txt");
  CHECK_TEXT(document["entries"].at(6)["nameBase64"].text(), "/w==");
}

TEST_CASE("a list goes on past a path that is not there, and exits with its status") {
  Guest guest;
  CHECK(guest.world.run({"ls", "web1:/no", "web1:/srv/sub"}) == ExitStatus::FAILED);
  CHECK(contains(guest.world.output(), "inner\n"));
  CHECK(guest.world.errors().startsWith("postern: web1:/no: "));
  guest.world.control.denied.add(kj::str("/etc"));
  CHECK(guest.world.run({"ls", "web1:/no", "web1:/etc"}) == ExitStatus::DENIED);
}

TEST_CASE("a long list is taken while it comes, and complete") {
  Guest guest;
  // Links, which are made quickly, with names that make up more than a transfer keeps.
  for (int i = 0; i < 3000; ++i) {
    auto name = kj::str("srv/sub/", i, kj::repeat('x', 200));
    KJ_SYSCALL(link(guest.world.guest("srv/b.txt").cStr(), guest.world.guest(name).cStr()));
  }
  CHECK(guest.world.run({"ls", "web1:/srv/sub"}) == ExitStatus::DONE);
  size_t lines = 0;
  for (char c : guest.world.output()) lines += c == '\n';
  CHECK(lines == 3001);
}

TEST_CASE("stat shows what a guest knows of a file, and of a directory itself") {
  Guest guest;
  CHECK(guest.world.run({"stat", "web1:/srv/b.txt"}) == ExitStatus::DONE);
  auto text = guest.world.output();
  CHECK(text.startsWith("web1:/srv/b.txt\n  type      file\n  size      5\n  mode      0640 -rw-r-----\n"));
  CHECK_TEXT(guest.world.control.opened[0], "web1 file.stat /srv/b.txt");
  CHECK(guest.world.run({"stat", "--json", "web1:/srv", "web1:/srv/link"}) == ExitStatus::DONE);
  auto document = JsonReader::read(guest.world.output());
  CHECK_TEXT(document["entries"].at(0)["kind"].text(), "directory");
  CHECK_TEXT(document["entries"].at(0)["path"].text(), "/srv");
  CHECK_TEXT(document["entries"].at(1)["kind"].text(), "symbolic-link");
  CHECK(guest.world.run({"stat", "web1:/srv/no"}) == ExitStatus::FAILED);
  CHECK(guest.world.errors().startsWith("postern: web1:/srv/no: "));
}

TEST_CASE("mkdir makes a directory, and with -p what lacks above it") {
  Guest guest;
  CHECK(guest.world.run({"mkdir", "web1:/srv/new"}) == ExitStatus::DONE);
  CHECK(guest.exists("srv/new"));
  CHECK_TEXT(guest.world.control.opened[0], "web1 file.mkdir /srv/new");
  CHECK(guest.world.run({"mkdir", "web1:/srv/new"}) == ExitStatus::FAILED);
  CHECK(guest.world.errors().startsWith("postern: web1:/srv/new: "));
  CHECK(guest.world.run({"mkdir", "web1:/a/b", "web1:/srv/other"}) == ExitStatus::FAILED);
  CHECK(guest.exists("srv/other"));
  CHECK(guest.world.run({"mkdir", "-p", "web1:/a/b", "web1:/srv/new"}) == ExitStatus::DONE);
  CHECK(guest.exists("a/b"));
}

TEST_CASE("rm removes files, trees with -r alone, and never the root") {
  Guest guest;
  CHECK(guest.world.run({"rm", "web1:/srv/b.txt", "web1:/srv/link"}) == ExitStatus::DONE);
  CHECK(!guest.exists("srv/b.txt"));
  CHECK_TEXT(guest.world.control.opened[0], "web1 file.remove /srv/b.txt");
  CHECK(guest.world.run({"rm", "web1:/srv"}) == ExitStatus::FAILED);
  CHECK(contains(guest.world.errors(), "directory"));
  CHECK(guest.world.run({"rm", "web1:/srv/"}) == ExitStatus::FAILED);
  CHECK_TEXT(guest.world.errors(), "postern: web1:/srv/: is a directory (use -r)\n");
  CHECK(guest.world.run({"rm", "web1:/no"}) == ExitStatus::FAILED);
  CHECK(guest.world.run({"rm", "-f", "web1:/no"}) == ExitStatus::DONE);
  CHECK(guest.world.run({"rm", "-r", "web1:/srv"}) == ExitStatus::DONE);
  CHECK(!guest.exists("srv"));
  auto asked = guest.world.control.opened.size();
  CHECK(guest.world.run({"rm", "-rf", "web1:/"}) == ExitStatus::DENIED);
  CHECK(guest.world.control.opened.size() == asked);
  CHECK(guest.world.run({"rm", "--json", "web1:/no"}) == ExitStatus::FAILED);
  auto document = JsonReader::read(guest.world.output());
  CHECK_TEXT(document["failures"].at(0)["kind"].text(), "no-such-file");
  CHECK_TEXT(document["error"]["kind"].text(), "failed");
}
