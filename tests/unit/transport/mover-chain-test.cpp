// The whole of a transfer: both openers in threads, both movers on a loop, a session between them.
#include <doctest/doctest.h>

#include "tests/support/random-tree.h"
#include "tests/support/tree-picture.h"
#include "tests/unit/transport/mover-lab.h"
#include "tests/unit/transport/transfer-fixture.h"

namespace postern::transfer {
namespace {

using namespace postern::test;

constexpr size_t MIB = size_t(1) << 20;

struct Chain {
  kj::Vector<SourceTop> tops;
  SourceOptions sourceOptions;
  DestinationOptions destinationOptions;
  MoverOptions moverOptions;
  Listeners sending, making;
  uint64_t travelled = 0;
  size_t settled = 0;

  Chain(kj::StringPtr from, kj::StringPtr name, kj::StringPtr as) {
    tops.add(SourceTop{folderAt(from), kj::str(name), kj::str(as), kj::str(name), nullptr, false});
    sourceOptions.recursive = sourceOptions.archive = destinationOptions.archive = true;
    destinationOptions.keepOwner = geteuid() == 0;
    destinationOptions.into = true;
  }
  Chain& verify() {
    sourceOptions.verify = destinationOptions.verify = moverOptions.verify = true;
    return *this;
  }

  Summary run(kj::StringPtr to) {
    lab::MoverLab lab;
    kj::Maybe<OpenerEnd> sent, made;
    auto left = newSocketEnds();
    auto right = newSocketEnds();
    kj::Thread reads([&]() { sent = runSourceOpener(kj::mv(left.opener), kj::mv(tops), sourceOptions, sending); });
    kj::Thread writes(
        [&]() { made = runDestinationOpener(kj::mv(right.opener), folderAt(to), destinationOptions, making); });
    auto sourceEnd = lab.startSource(kj::mv(left.mover), moverOptions);
    auto destinationEnd = lab.startDestination(kj::mv(right.mover), moverOptions);
    auto sourceHow = lab.await(kj::mv(sourceEnd));
    auto destinationHow = lab.await(kj::mv(destinationEnd));
    if (sourceHow.is<Problem>()) FAIL(sourceHow.get<Problem>().detail.cStr());
    if (destinationHow.is<Problem>()) FAIL(destinationHow.get<Problem>().detail.cStr());
    travelled = lab.source->contentBytes();
    CHECK(lab.destination->contentBytes() == travelled);
    CHECK(lab.sourceGuard.outcomes.size() == lab.destinationGuard.outcomes.size());
    settled = lab.sourceGuard.outcomes.size();
    auto summary = sourceHow.get<Summary>();
    CHECK(summary.sentBytes == travelled);
    return summary;
  }
};

TEST_CASE("a random tree arrives through openers and movers with all that an archive copy promises") {
  for (uint64_t seed : {11, 12}) {
    TemporaryFolder folder;
    KJ_SYSCALL(mkdir(folder.path("to").cStr(), 0755));
    makeRandomTree(folder.path("tree"), {seed, 300, 120, true});
    Chain first(folder.path("."), "tree", "copy");
    if (seed == 12) first.verify();
    auto summary = first.run(folder.path("to"));
    CHECK(summary.failures == 0);
    auto expected = pictureOf(folder.path("tree"), PictureOf::EVERYTHING);
    CHECK(differences(expected, pictureOf(folder.path("to/copy"), PictureOf::EVERYTHING)) == "");
    CHECK(first.settled == expected.size());
    CHECK(leftovers(folder.path("to")).empty());
  }
}

TEST_CASE("a second copy of a large file sends nothing, and of one that was changed only what differs") {
  TemporaryFolder folder;
  KJ_SYSCALL(mkdir(folder.path("to").cStr(), 0755));
  auto content = bytesOf(20 * MIB);
  writeFile(folder.path("file"), text(content));
  CHECK(Chain(folder.path("."), "file", "file").verify().run(folder.path("to")).bytes == content.size());
  CHECK(readFile(folder.path("to/file")) == content);

  Chain again(folder.path("."), "file", "file");
  auto summary = again.verify().run(folder.path("to"));
  CHECK(summary.unchanged == 1);
  CHECK(summary.sentBytes == 0);

  content[12 * MIB] = char(content[12 * MIB] ^ 1);
  writeFile(folder.path("file"), text(content));
  Chain changed(folder.path("."), "file", "file");
  summary = changed.verify().run(folder.path("to"));
  CHECK(summary.unchanged == 0);
  CHECK(summary.sentBytes == CHUNK_BYTES);
  CHECK(readFile(folder.path("to/file")) == content);
}

TEST_CASE("a tree of many small files and some larger ones arrives in order") {
  TemporaryFolder folder;
  KJ_SYSCALL(mkdir(folder.path("to").cStr(), 0755));
  KJ_SYSCALL(mkdir(folder.path("tree").cStr(), 0755));
  for (unsigned i = 0; i < 1500; ++i) {
    size_t size = i % 100 == 0 ? 200000 : i % 5000;
    writeFile(folder.path(kj::str("tree/", i)), text(bytesOf(size, i)));
  }
  auto summary = Chain(folder.path("."), "tree", "tree").run(folder.path("to"));
  CHECK(summary.files == 1500);
  CHECK(differences(pictureOf(folder.path("tree"), PictureOf::EVERYTHING),
                    pictureOf(folder.path("to/tree"), PictureOf::EVERYTHING)) == "");
}

}  // namespace
}  // namespace postern::transfer
