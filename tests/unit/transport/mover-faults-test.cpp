#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer {
namespace {

using namespace lab;

constexpr size_t MIB = size_t(1) << 20;

// One large file under way, with both openers' parts done.
struct UnderWay {
  MoverLab lab;
  kj::Array<kj::byte> content = lab.bytes(8 * MIB);
  kj::AutoCloseFd from = lab.fileOf("from", content);
  kj::AutoCloseFd to = lab.emptyFile("to");
  kj::Promise<MoverEnd> sourceEnd = nullptr;
  kj::Promise<MoverEnd> destinationEnd = nullptr;

  explicit UnderWay(kj::Function<void(uint64_t)> atSource = [](uint64_t) {}) {
    lab.sourceGuard.onPace = kj::mv(atSource);
    sourceEnd = lab.startSource();
    destinationEnd = lab.startDestination();
    lab.announce();
    lab.sendFile("file", from, content.size());
    lab.openFile(to);
  }
};

TEST_CASE("of a mover that is dropped every entry that went on is told") {
  UnderWay under;
  under.lab.pass();
  under.sourceEnd = nullptr;
  under.lab.source = nullptr;
  auto& outcomes = under.lab.sourceGuard.outcomes;
  REQUIRE(outcomes.size() == 1);
  CHECK(outcomes[0].path == "file");
  CHECK((outcomes[0].problem.orDefault(ProblemKind::BUSY) == ProblemKind::FAILED));
}

TEST_CASE("a file that changes while it is read fails, and the transfer goes on") {
  enum How { SHORTER, LONGER, TOUCHED };
  for (auto how : {SHORTER, LONGER, TOUCHED}) {
    int from = -1;
    bool done = false;
    UnderWay under([&](uint64_t bytes) {
      if (done || bytes < 2 * MIB) return;
      done = true;
      if (how == SHORTER) {
        KJ_SYSCALL(ftruncate(from, off_t(MIB)));
      }
      if (how == LONGER) {
        KJ_SYSCALL(ftruncate(from, off_t(9 * MIB)));
      }
      if (how == TOUCHED) {
        KJ_SYSCALL(pwrite(from, "x", 1, 0));
      }
    });
    from = under.from;
    auto& lab = under.lab;
    auto commit = lab.awaitCommit();
    REQUIRE(commit.outcome.is<Problem>());
    CHECK(commit.outcome.get<Problem>().kind == ProblemKind::CHANGED);
    // The next one is well.
    auto again = lab.fileOf("again", under.content);
    auto to = lab.emptyFile("to-again");
    lab.sendFile("again", again, under.content.size());
    REQUIRE(lab.await(lab.to().next()).forward<Entry>().name == "again");
    int fd = to;
    lab.to().send(Opened{1, false, false}, kj::arrayPtr(&fd, 1));
    CHECK(lab.awaitCommit().outcome.is<Whole>());
    CHECK((lab.contentOf(to) == under.content));
    lab.finish(under.sourceEnd, under.destinationEnd);
    CHECK(KJ_ASSERT_NONNULL(lab.sourceGuard.outcomes[0].problem) == ProblemKind::CHANGED);
  }
}

TEST_CASE("a file whose size is not as announced fails as changed") {
  MoverLab lab;
  auto sourceEnd = lab.startSource();
  auto destinationEnd = lab.startDestination();
  lab.announce();
  auto from = lab.fileOf("from", lab.bytes(1000));
  auto to = lab.emptyFile("to");
  lab.sendFile("file", from, 999);
  lab.openFile(to);
  CHECK(lab.awaitCommit().outcome.get<Problem>().kind == ProblemKind::CHANGED);
  lab.finish(sourceEnd, destinationEnd);
}

TEST_CASE("an old version that changes while it is used fails the file") {
  MoverLab lab;
  auto content = lab.bytes(8 * MIB);
  auto base = lab.fileOf("base", content);
  content[7 * MIB] = kj::byte(content[7 * MIB] ^ 1);
  auto from = lab.fileOf("from", content);
  auto to = lab.emptyFile("to");
  lab.destinationGuard.onPace = [&](uint64_t) { KJ_SYSCALL(pwrite(base, "x", 1, 100)); };
  auto sourceEnd = lab.startSource();
  auto destinationEnd = lab.startDestination();
  lab.announce();
  lab.sendFile("file", from, content.size(), true);
  lab.openFile(to, int(base));
  CHECK(lab.awaitCommit().outcome.get<Problem>().kind == ProblemKind::CHANGED);
  lab.finish(sourceEnd, destinationEnd);
}

TEST_CASE("a file that the destination cannot open is not sent") {
  for (bool wantsBase : {false, true}) {
    MoverLab lab;
    auto sourceEnd = lab.startSource();
    auto destinationEnd = lab.startDestination();
    lab.announce();
    auto content = lab.bytes(32 * MIB);
    auto from = lab.fileOf("from", content);
    lab.sendFile("file", from, content.size(), wantsBase);
    REQUIRE(lab.await(lab.to().next()).forward<Entry>().name == "file");
    lab.to().send(Backward(DestinationFailed{0, kj::str("file"), problem(ProblemKind::PERMISSION, kj::str("no"))}));
    CHECK(lab.await(lab.from().next()).backward<DestinationFailed>().problem.kind == ProblemKind::PERMISSION);
    lab.finish(sourceEnd, destinationEnd);
    CHECK(lab.source->contentBytes() < (wantsBase ? 1 : 16 * MIB));
  }
}

TEST_CASE("a file that cannot be written fails at once and stops its source") {
  UnderWay under;
  auto& lab = under.lab;
  CHECK(lab.awaitCommit().outcome.is<Whole>());
  auto to = lab.emptyFile("limited");
  int readOnly;
  KJ_SYSCALL(readOnly = open(lab.folder.path("limited").cStr(), O_RDONLY | O_CLOEXEC));
  kj::AutoCloseFd limited(readOnly);
  lab.sendFile("again", under.from, under.content.size());
  REQUIRE(lab.await(lab.to().next()).forward<Entry>().name == "again");
  lab.to().send(Opened{1, false, false}, kj::arrayPtr(&readOnly, 1));
  CHECK(lab.awaitCommit().outcome.is<Problem>());
  lab.to().send(Backward(DestinationFailed{1, kj::str("again"), problem(ProblemKind::NO_SPACE, kj::str("full"))}));
  CHECK(lab.await(lab.from().next()).backward<DestinationFailed>().entry == 1);
  lab.finish(under.sourceEnd, under.destinationEnd);
}

// Ends in the middle -------------------------------------------------------------------------------------------------

void expectAllGone(size_t descriptors) {
  // The lab's own go with it.
  CHECK(test::comesTo(threads, size_t(0)));
  CHECK(test::comesTo(openDescriptors, descriptors));
}

template <typename Act>
void inTheMiddle(Act&& act) {
  size_t before = test::settled(openDescriptors);
  {
    auto reached = kj::newPromiseAndFulfiller<void>();
    bool done = false;
    UnderWay under([&](uint64_t bytes) {
      if (done || bytes < 2 * MIB) return;
      done = true;
      reached.fulfiller->fulfill();
    });
    under.lab.await(kj::mv(reached.promise));
    act(under);
  }
  expectAllGone(before);
}

kj::String problemOf(MoverLab& lab, kj::Promise<MoverEnd>& end) {
  auto how = lab.await(kj::mv(end));
  REQUIRE(how.is<Problem>());
  return kj::mv(how.get<Problem>().detail);
}

TEST_CASE("a session that ends in the middle ends both movers, and what there is of the file is kept") {
  inTheMiddle([](UnderWay& under) {
    auto& lab = under.lab;
    lab.host->breakOff(CloseCode::GOODBYE, "test");
    CHECK(problemOf(lab, under.sourceEnd) == "the connection between host and guest was lost");
    CHECK(problemOf(lab, under.destinationEnd) == "the connection between host and guest was lost");
    CHECK(lab.awaitCommit().outcome.is<Kept>());
    CHECK_THROWS(lab.await(lab.from().next()));
  });
}

TEST_CASE("dropping the source's mover in the middle resets the channel") {
  inTheMiddle([](UnderWay& under) {
    auto& lab = under.lab;
    under.sourceEnd = nullptr;
    lab.source = nullptr;
    CHECK(problemOf(lab, under.destinationEnd) == "the other end broke off the transfer");
    CHECK(lab.awaitCommit().outcome.is<Kept>());
    CHECK_THROWS(lab.await(lab.from().next()));
  });
}

TEST_CASE("dropping the destination's mover in the middle resets the channel") {
  inTheMiddle([](UnderWay& under) {
    auto& lab = under.lab;
    under.destinationEnd = nullptr;
    lab.destination = nullptr;
    CHECK(problemOf(lab, under.sourceEnd) == "the other end broke off the transfer");
    CHECK_THROWS(lab.await(lab.to().next()));
    CHECK_THROWS(lab.await(lab.from().next()));
  });
}

TEST_CASE("dropping everything in the middle leaves nothing behind") {
  inTheMiddle([](UnderWay& under) {
    auto& lab = under.lab;
    under.destinationEnd = nullptr;
    under.sourceEnd = nullptr;
    lab.destination = nullptr;
    lab.source = nullptr;
    lab.host = nullptr;
    lab.guest = nullptr;
  });
}

TEST_CASE("an opener that goes in the middle ends the transfer") {
  for (bool atSource : {true, false}) {
    inTheMiddle([atSource](UnderWay& under) {
      auto& lab = under.lab;
      (atSource ? lab.from() : lab.to()).close();
      auto gone = "the program that has the files open has ended"_kj;
      auto broken = "the other end broke off the transfer"_kj;
      CHECK(problemOf(lab, under.sourceEnd) == (atSource ? gone : broken));
      CHECK(problemOf(lab, under.destinationEnd) == (atSource ? broken : gone));
    });
  }
}

}  // namespace
}  // namespace postern::transfer
