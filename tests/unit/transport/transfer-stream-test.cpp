// Standard input and output in place of trees, and lists.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;
using namespace postern::test;

namespace {

struct Pipe {
  kj::AutoCloseFd read, write;
  Pipe() {
    int ends[2];
    KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
    read = kj::AutoCloseFd(ends[0]);
    write = kj::AutoCloseFd(ends[1]);
  }
};

void writeAll(int to, const std::string& content) {
  for (size_t at = 0; at < content.size();) {
    ssize_t n = ::write(to, content.data() + at, content.size() - at);
    if (n <= 0) return;
    at += size_t(n);
  }
}

std::string readAll(int from) {
  std::string content;
  char block[4096];
  for (ssize_t n; (n = ::read(from, block, sizeof(block))) > 0;) content.append(block, size_t(n));
  return content;
}

// Both openers and the relay between them.
void relayed(std::function<void(kj::AutoCloseFd)> source, std::function<void(kj::AutoCloseFd)> destination) {
  auto left = newSocketEnds();
  auto right = newSocketEnds();
  TransferRelay relay(kj::mv(left.mover), kj::mv(right.mover));
  kj::Thread reads([&]() { source(kj::mv(left.opener)); });
  kj::Thread writes([&]() { destination(kj::mv(right.opener)); });
  relay.run();
}

class Lines final : public ListingListener {
 public:
  std::vector<std::string> lines;
  std::vector<Failure> failures;
  void entry(kj::StringPtr path, const Entry& entry) override {
    const char kinds[] = "fdlhpcbs";
    lines.push_back(kj::str(path, " ", kj::str(kinds[int(entry.kind)]), " ", entry.size).cStr());
  }
  void failed(kj::StringPtr path, const Problem& problem) override {
    failures.push_back({path.cStr(), problem.kind, problem.detail.cStr()});
  }
};

}  // namespace

TEST_CASE("standard input becomes a file, whatever its length, and a file becomes standard output") {
  for (size_t bytes : {size_t(0), size_t(1), INLINE_BYTES, INLINE_BYTES + 1, size_t(3) << 20}) {
    for (bool verify : {false, true}) {
      CAPTURE(bytes);
      TempDir dir;
      auto content = bytesOf(bytes);
      Listeners listener;
      SourceOptions source;
      source.verify = verify;
      DestinationOptions options;
      options.into = true;
      options.verify = verify;
      Pipe in;
      kj::Thread writer([&]() {
        writeAll(in.write, content);
        in.write = nullptr;
      });
      relayed(
          [&](kj::AutoCloseFd mover) {
            auto end = runSourceStream(kj::mv(mover), {kj::mv(in.read), kj::str("name")}, source, listener);
            CHECK(end.is<Summary>());
          },
          [&](kj::AutoCloseFd mover) {
            auto end = runDestinationOpener(kj::mv(mover), folderAt(dir.path()), options, listener);
            CHECK(end.get<Summary>().bytes == bytes);
          });
      CHECK(readFile(dir.file("name")) == content);

      Pipe out;
      std::string found;
      {
        kj::Thread reader([&]() { found = readAll(out.read); });
        relayed(
            [&](kj::AutoCloseFd mover) {
              kj::Vector<SourceTop> tops;
              tops.add(
                  SourceTop{folderAt(dir.path()), kj::str("name"), kj::str("name"), kj::str("name"), nullptr, false});
              CHECK(runSourceOpener(kj::mv(mover), kj::mv(tops), source, listener).is<Summary>());
            },
            [&](kj::AutoCloseFd mover) {
              auto end = runDestinationStream(kj::mv(mover), kj::mv(out.write), listener);
              CHECK(end.get<Summary>().bytes == bytes);
            });
      }
      CHECK(found == content);
      CHECK(listener.failures.empty());
    }
  }
}

TEST_CASE("standard input that is a file already is sent as it is") {
  TempDir dir;
  writeFile(dir.file("file"), text(bytesOf(200000)));
  Listeners listener;
  DestinationOptions options;
  options.name = kj::str("copy");
  relayed(
      [&](kj::AutoCloseFd mover) {
        kj::AutoCloseFd file(open(dir.file("file").cStr(), O_RDONLY | O_CLOEXEC));
        runSourceStream(kj::mv(mover), {kj::mv(file), kj::str("stdin")}, {}, listener);
      },
      [&](kj::AutoCloseFd mover) { runDestinationOpener(kj::mv(mover), folderAt(dir.path()), options, listener); });
  CHECK(readFile(dir.file("copy")) == bytesOf(200000));
}

TEST_CASE("a directory is not written to standard output") {
  TempDir dir;
  Listeners listener;
  Pipe out;
  relayed(
      [&](kj::AutoCloseFd mover) {
        kj::Vector<SourceTop> tops;
        tops.add(SourceTop{folderAt(dir.path()), kj::str(), kj::str("name"), kj::str("name"), nullptr, false});
        SourceOptions options;
        options.recursive = true;
        auto end = runSourceOpener(kj::mv(mover), kj::mv(tops), options, listener);
        CHECK(end.get<Problem>().kind == ProblemKind::IS_DIRECTORY);
      },
      [&](kj::AutoCloseFd mover) {
        auto end = runDestinationStream(kj::mv(mover), kj::mv(out.write), listener);
        CHECK(end.get<Problem>().kind == ProblemKind::IS_DIRECTORY);
      });
}

TEST_CASE("a file that is not there, or that standard output does not take, fails for both ends") {
  struct {
    size_t bytes;
    kj::StringPtr name;
    ProblemKind kind;
  } cases[] = {{10, "name", ProblemKind::NO_SPACE},
               {INLINE_BYTES + 1, "name", ProblemKind::NO_SPACE},
               {10, "missing", ProblemKind::NO_SUCH_FILE}};
  for (auto& each : cases) {
    CAPTURE(each.bytes);
    TempDir dir;
    writeFile(dir.file("name"), text(bytesOf(each.bytes)));
    Listeners sending, making;
    relayed(
        [&](kj::AutoCloseFd mover) {
          kj::Vector<SourceTop> tops;
          tops.add(SourceTop{folderAt(dir.path()), kj::str(each.name), kj::str(each.name), kj::str(each.name), nullptr,
                             false});
          CHECK(runSourceOpener(kj::mv(mover), kj::mv(tops), {}, sending).get<Summary>().failures == 1);
        },
        [&](kj::AutoCloseFd mover) {
          kj::AutoCloseFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
          auto end = runDestinationStream(kj::mv(mover), kj::mv(full), making);
          CHECK(end.get<Summary>().failures == 1);
          CHECK(end.get<Summary>().files == 0);
        });
    REQUIRE(making.failures.size() == 1);
    CHECK(making.failures[0].kind == each.kind);
    REQUIRE(sending.failures.size() == 1);
    CHECK(sending.failures[0].kind == each.kind);
  }
}

TEST_CASE("entries are listed down to the depth that was asked for, without their content") {
  TempDir dir;
  KJ_SYSCALL(mkdir(dir.file("tree").cStr(), 0755));
  KJ_SYSCALL(mkdir(dir.file("tree/folder").cStr(), 0755));
  writeFile(dir.file("tree/folder/inner"), "content");
  writeFile(dir.file("tree/file"), text(bytesOf(100000)));
  KJ_SYSCALL(symlink("nowhere", dir.file("tree/link").cStr()));
  KJ_SYSCALL(mkfifo(dir.file("tree/fifo").cStr(), 0644));
  std::vector<std::string> expected[] = {
      {"tree d 0"},
      {"tree d 0", "tree/fifo p 0", "tree/file f 100000", "tree/folder d 0", "tree/link l 0"},
      {"tree d 0", "tree/fifo p 0", "tree/file f 100000", "tree/folder d 0", "tree/folder/inner f 7", "tree/link l 0"},
  };
  for (uint32_t depth = 0; depth < 3; ++depth) {
    Lines lines;
    Listeners listener;
    relayed(
        [&](kj::AutoCloseFd mover) {
          kj::Vector<SourceTop> tops;
          for (auto name : {"tree", "missing"}) {
            tops.add(SourceTop{folderAt(dir.path()), kj::str(name), kj::str(name), kj::str(name), nullptr, false});
          }
          SourceOptions options;
          options.listing = true;
          options.listDepth = depth;
          CHECK(runSourceOpener(kj::mv(mover), kj::mv(tops), options, listener).get<Summary>().failures == 1);
        },
        [&](kj::AutoCloseFd mover) { CHECK(runListing(kj::mv(mover), lines).is<Summary>()); });
    std::sort(lines.lines.begin(), lines.lines.end());
    CHECK(lines.lines == expected[depth]);
    REQUIRE(lines.failures.size() == 1);
    CHECK(lines.failures[0].path == "missing");
    CHECK(lines.failures[0].kind == ProblemKind::NO_SUCH_FILE);
  }
}
