#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer {
namespace {

using namespace lab;

Entry inlinedEntry(kj::StringPtr name, uint64_t size) {
  auto entry = fileEntry(name, size);
  entry.inlined = true;
  return entry;
}

TEST_CASE("directories, small files and what could not be read pass as they came") {
  MoverLab lab;
  auto sourceEnd = lab.startSource();
  auto destinationEnd = lab.startDestination();
  lab.announce();
  auto small = lab.bytes(1234), empty = lab.bytes(0), full = lab.bytes(INLINE_BYTES);
  lab.from().send(Forward(directoryEntry("dir")));
  lab.from().send(Forward(inlinedEntry("small", small.size())), small);
  lab.from().send(Forward(inlinedEntry("full", full.size())), full);
  lab.from().send(Forward(EntryFailed{kj::str("secret"), problem(ProblemKind::PERMISSION, kj::str("no"))}));
  lab.from().send(Forward(Leave()));
  lab.from().send(Forward(inlinedEntry("empty", 0)), empty);
  CHECK(lab.await(lab.to().next()).forward<Entry>().kind == EntryKind::DIRECTORY);
  auto heard = lab.await(lab.to().next());
  CHECK(heard.forward<Entry>().name == "small");
  CHECK((heard.content == small));
  heard = lab.await(lab.to().next());
  CHECK(heard.forward<Entry>().name == "full");
  CHECK((heard.content == full));
  CHECK(lab.await(lab.to().next()).forward<EntryFailed>().problem.kind == ProblemKind::PERMISSION);
  CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Leave>());
  CHECK(lab.await(lab.to().next()).forward<Entry>().name == "empty");
  lab.to().send(Backward(DestinationFailed{2, kj::str("dir/full"), problem(ProblemKind::NO_SPACE, kj::str("full"))}));
  CHECK(lab.await(lab.from().next()).backward<DestinationFailed>().entry == 2);
  lab.finish(sourceEnd, destinationEnd);

  CHECK(lab.source->contentBytes() == small.size() + full.size());
  for (auto guard : {&lab.sourceGuard, &lab.destinationGuard}) {
    REQUIRE(guard->admitted.size() == 4);
    CHECK(guard->admitted[0] == "dir");
    CHECK(guard->admitted[1] == "dir/small");
    CHECK(guard->admitted[3] == "empty");
    CHECK(KJ_ASSERT_NONNULL(guard->saidInto));
    REQUIRE(guard->outcomes.size() == 5);
    CHECK(guard->outcomes[0].path == "dir/secret");
    CHECK(KJ_ASSERT_NONNULL(guard->outcomes[0].problem) == ProblemKind::PERMISSION);
    CHECK(guard->outcomes[1].path == "dir/full");
    CHECK(KJ_ASSERT_NONNULL(guard->outcomes[1].problem) == ProblemKind::NO_SPACE);
    for (size_t i = 2; i < 5; ++i) CHECK(guard->outcomes[i].problem == nullptr);
  }
  CHECK(postern::test::comesTo(threads, size_t(0)));  // none for small files
}

// T93
TEST_CASE("thousands of small files in full packets arrive in order, with a destination that is slow to read") {
  MoverLab lab;
  auto sourceEnd = lab.startSource();
  auto destinationEnd = lab.startDestination();
  lab.announce({20000, 0, uint64_t(1) << 30, 0, 20000});
  constexpr unsigned FILES = 3000;
  auto content = lab.bytes(4096);
  kj::Vector<kj::byte> packet;
  FrameBuilder builder;
  for (unsigned i = 0; i < FILES; ++i) {
    write(Forward(inlinedEntry(kj::str("file-", i), content.size())), builder.init<schema::ToMover>().initForward());
    auto frame = builder.toArray(content);
    if (packet.size() + frame.size() > MAX_PACKET_BYTES) {
      lab.from().send(packet.releaseAsArray());
      packet = kj::Vector<kj::byte>();
    }
    packet.addAll(frame);
  }
  lab.from().send(packet.releaseAsArray());
  lab.pass();
  // All that lies between is bounded: sockets, windows, and what movers hold.
  CHECK(lab.source->contentBytes() < 4u << 20);
  for (unsigned i = 0; i < FILES; ++i) {
    auto heard = lab.await(lab.to().next());
    REQUIRE(heard.forward<Entry>().name == kj::str("file-", i));
    REQUIRE((heard.content == content));
  }
  lab.finish(sourceEnd, destinationEnd);
  CHECK(lab.source->contentBytes() == FILES * content.size());
}

TEST_CASE("a listing passes entries of all kinds without content") {
  MoverLab lab;
  MoverOptions options;
  options.listing = true;
  auto sourceEnd = lab.startSource(options);
  auto destinationEnd = lab.startDestination(options);
  lab.announce();
  lab.from().send(Forward(fileEntry("file", 123456789)));
  Entry socket;
  socket.kind = EntryKind::SOCKET;
  socket.name = kj::str("socket");
  lab.from().send(Forward(kj::mv(socket)));
  CHECK(lab.await(lab.to().next()).forward<Entry>().size == 123456789);
  CHECK(lab.await(lab.to().next()).forward<Entry>().kind == EntryKind::SOCKET);
  lab.finish(sourceEnd, destinationEnd);
}

TEST_CASE("a stream's bytes come from its opener, and go to a file or to an opener that takes no descriptor") {
  for (bool toFile : {true, false}) {
    MoverLab lab;
    auto sourceEnd = lab.startSource();
    auto destinationEnd = lab.startDestination();
    Totals totals{1, 0, 0, 0, 1};
    totals.stream = true;
    lab.announce(totals);
    auto content = lab.bytes(3 * DATA_BYTES);
    auto entry = fileEntry("standard-input", 0);
    entry.stream = true;
    lab.from().send(Forward(kj::mv(entry)));
    for (unsigned i = 0; i < 3; ++i) {
      lab.from().send(Forward(Data{i * DATA_BYTES}), content.slice(i * DATA_BYTES, (i + 1) * DATA_BYTES));
    }
    lab.from().send(Forward(FileEnd()));
    if (toFile) {
      auto to = lab.emptyFile("to");
      lab.openFile(to);
      CHECK(lab.awaitCommit().outcome.is<Whole>());
      CHECK((lab.contentOf(to) == content));
    } else {
      CHECK(lab.await(lab.to().next()).forward<Entry>().stream);
      lab.to().send(Opened{0, false, false}, nullptr);
      for (unsigned i = 0; i < 3; ++i) {
        auto heard = lab.await(lab.to().next());
        CHECK(heard.forward<Data>().offset == i * DATA_BYTES);
        CHECK((heard.content.asPtr() == content.slice(i * DATA_BYTES, (i + 1) * DATA_BYTES)));
      }
      CHECK(lab.await(lab.to().next()).message.get<Forward>().is<FileEnd>());
    }
    lab.finish(sourceEnd, destinationEnd);
  }
}

TEST_CASE("a destination that refuses ends the transfer on both sides with its reason") {
  MoverLab lab;
  auto sourceEnd = lab.startSource();
  auto destinationEnd = lab.startDestination();
  lab.from().send(Forward(Totals{1, 0, 1, 0, 1}));
  CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
  lab.to().send(Backward(Refused{problem(ProblemKind::NO_SPACE, kj::str("the disk is too small"))}));
  auto heard = lab.await(lab.from().next());
  CHECK(heard.backward<Refused>().problem.detail == "the disk is too small");
  for (auto end : {&sourceEnd, &destinationEnd}) {
    auto how = lab.await(kj::mv(*end));
    CHECK(how.get<Problem>().kind == ProblemKind::NO_SPACE);
  }
}

TEST_CASE("what a guard does not admit does not travel, and ends the transfer") {
  for (bool atSource : {true, false}) {
    MoverLab lab;
    (atSource ? lab.sourceGuard : lab.destinationGuard).denies = kj::str("dir/secret");
    auto sourceEnd = lab.startSource();
    auto destinationEnd = lab.startDestination();
    lab.announce();
    lab.from().send(Forward(directoryEntry("dir")));
    CHECK(lab.await(lab.to().next()).forward<Entry>().name == "dir");
    lab.from().send(Forward(inlinedEntry("secret", 3)), kj::StringPtr("abc").asBytes());
    auto end = lab.await(kj::mv(atSource ? sourceEnd : destinationEnd));
    CHECK(end.get<Problem>().kind == ProblemKind::DENIED);
    auto other = lab.await(kj::mv(atSource ? destinationEnd : sourceEnd));
    CHECK(other.is<Problem>());
    CHECK_THROWS(lab.await(lab.to().next()));
    CHECK_THROWS(lab.await(lab.from().next()));
  }
}

}  // namespace
}  // namespace postern::transfer
