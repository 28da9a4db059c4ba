// Movers that break the rules: an opener ends the transfer, and nothing is made outside its folder.
#include <doctest/doctest.h>
#include <sys/socket.h>

#include "tests/unit/transport/scope-fixture.h"
#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;
using namespace postern::test;

namespace {

struct Victim {
  TempDir dir;
  DestinationOptions options;
  Listeners listener;

  Victim() {
    KJ_SYSCALL(mkdir(dir.file("to").cStr(), 0755));
    writeFile(dir.file("outside"), "precious");
    options.into = true;
  }
  kj::String to(kj::StringPtr name) const { return kj::str(dir.path(), "/to/", name); }

  OpenerEnd destination(std::function<void(OpenerPeer&)> mover) {
    auto ends = newSocketEnds();
    OpenerPeer peer(kj::mv(ends.mover));
    kj::Maybe<OpenerEnd> end;
    {
      kj::Thread opener(
          [&]() { end = runDestinationOpener(kj::mv(ends.opener), folderAt(dir.file("to")), options, listener); });
      mover(peer);
      while (peer.receive() != nullptr) {
        if (!peer.hasUnsent()) shutdown(peer.descriptor(), SHUT_WR);
      }
    }
    CHECK(readFile(dir.file("outside")) == "precious");
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path().cStr()), {}) == 2);
    return kj::mv(KJ_ASSERT_NONNULL(end));
  }
  ProblemKind destinationProblem(std::function<void(OpenerPeer&)> mover) {
    auto end = destination(mover);
    return end.is<Problem>() ? end.get<Problem>().kind : ProblemKind::FAILED;
  }
};

Totals some(uint32_t tops = 10) {
  return {10, 10, 1 << 20, 5, tops, false};
}

Entry fileEntry(kj::StringPtr name, kj::StringPtr content) {
  Entry entry;
  entry.name = kj::str(name);
  entry.mode = 0644;
  entry.size = content.size();
  entry.inlined = true;
  return entry;
}

Entry directoryEntry(kj::StringPtr name) {
  Entry entry;
  entry.kind = EntryKind::DIRECTORY;
  entry.name = kj::str(name);
  entry.mode = 0755;
  return entry;
}

Entry largeEntry(kj::StringPtr name, uint64_t size) {
  Entry entry;
  entry.name = kj::str(name);
  entry.mode = 0644;
  entry.size = size;
  return entry;
}

void sendFile(OpenerPeer& peer, kj::StringPtr name, kj::StringPtr content) {
  peer.send(Forward(fileEntry(name, content)), content.asBytes());
}

// Until the destination has opened entry `number`.
kj::AutoCloseFd awaitOpened(OpenerPeer& peer, uint64_t number) {
  for (;;) {
    auto message = KJ_ASSERT_NONNULL(peer.receive());
    if (!message.message.is<Opened>()) continue;
    CHECK(message.message.get<Opened>().entry == number);
    return kj::mv(message.descriptors[0]);
  }
}

}  // namespace

// T87
TEST_CASE("a stream that grows beyond the quota ends the transfer, and gets no name") {
  for (bool commits : {true, false}) {
    CAPTURE(commits);
    Victim victim;
    victim.options.into = false;
    victim.options.name = kj::str("stream");
    victim.options.scopePath = kj::str("/srv");
    auto scope = scopeOf({"/**"});
    scope.maxBytes = 1000;
    victim.options.scope = scope;
    auto end = victim.destination([&](OpenerPeer& peer) {
      Totals totals;
      totals.files = totals.tops = 1;
      totals.stream = true;
      peer.send(Forward(totals));
      auto entry = largeEntry("stream", 0);
      entry.stream = true;
      peer.send(Forward(kj::mv(entry)));
      auto file = awaitOpened(peer, 0);
      KJ_SYSCALL(ftruncate(file, 1001));
      if (!commits) return;
      peer.send(Commit{0, Whole(), false});
      peer.send(Forward(Done()));
    });
    if (commits) {
      CHECK(end.get<Summary>().failures == 1);
    } else {
      CHECK(end.get<Problem>().kind == ProblemKind::QUOTA);
    }
    CHECK(victim.listener.failures.size() == 1);
    CHECK(std::filesystem::is_empty(victim.to("").cStr()));
  }
}

TEST_CASE("names that are no components end the transfer") {
  for (auto name : {"..", ".", "", "a/b", "/etc/passwd", "../outside"}) {
    CAPTURE(name);
    Victim victim;
    CHECK(victim.destinationProblem([&](OpenerPeer& peer) {
      peer.send(Forward(some()));
      sendFile(peer, name, "overwritten");
    }) == ProblemKind::PROTOCOL);
    CHECK(std::filesystem::is_empty(victim.to("").cStr()));
  }
  Victim victim;
  CHECK(victim.destinationProblem([&](OpenerPeer& peer) {
    peer.send(Forward(some()));
    auto entry = fileEntry("nul", "content");
    entry.name = kj::heapString("a\0b", 3);
    peer.send(Forward(kj::mv(entry)), "content"_kj.asBytes());
  }) == ProblemKind::PROTOCOL);
}

TEST_CASE("messages out of order end the transfer") {
  std::function<void(OpenerPeer&)> movers[] = {
      [](OpenerPeer& peer) { sendFile(peer, "before totals", "x"); },
      [](OpenerPeer& peer) {
        peer.send(Forward(some()));
        peer.send(Forward(some()));
      },
      [](OpenerPeer& peer) {
        peer.send(Forward(some()));
        peer.send(Forward(Leave()));
      },
      [](OpenerPeer& peer) {
        peer.send(Forward(some()));
        peer.send(Forward(directoryEntry("d")));
        peer.send(Forward(Done()));
      },
      [](OpenerPeer& peer) {
        peer.send(Forward(some(1)));
        sendFile(peer, "one", "x");
        sendFile(peer, "two", "x");
      },
      [](OpenerPeer& peer) {
        peer.send(Forward(some()));
        for (int i = 0; i < 6; ++i) peer.send(Forward(directoryEntry("deeper than was announced")));
      },
      [](OpenerPeer& peer) {
        peer.send(Forward(some()));
        peer.send(Commit{0, Outcome(Whole()), false});
      },
      [](OpenerPeer& peer) { peer.send(Backward(Ready{true})); },
      [](OpenerPeer& peer) { peer.sendRaw("not a frame at all, whatever it is"_kj.asBytes()); },
      [](OpenerPeer& peer) { peer.sendRaw(kj::heapArray<kj::byte>(MAX_PACKET_BYTES + 8)); },
      [](OpenerPeer& peer) { peer.sendRaw(kj::arrayPtr(reinterpret_cast<const kj::byte*>("\1\0\0\0"), 4)); },
  };
  for (auto& mover : movers) {
    CAPTURE(&mover - movers);
    Victim victim;
    CHECK(victim.destinationProblem(mover) == ProblemKind::PROTOCOL);
    CHECK(leftovers(victim.to("")).empty());
  }
}

// T83
TEST_CASE("a hard link is made to a file of this transfer alone") {
  Victim victim;
  writeFile(victim.to("foreign"), "not of this transfer");
  auto linkEntry = [](kj::StringPtr name, std::initializer_list<kj::StringPtr> to) {
    Entry entry;
    entry.kind = EntryKind::HARD_LINK;
    entry.name = kj::str(name);
    for (auto each : to) entry.linkTo.add(kj::str(each));
    return entry;
  };
  auto end = victim.destination([&](OpenerPeer& peer) {
    peer.send(Forward(some()));
    peer.send(Forward(linkEntry("one", {"foreign"})));
    sendFile(peer, "unannounced", "has no hasLinks");
    peer.send(Forward(linkEntry("two", {"unannounced"})));
    auto entry = fileEntry("linked", "content");
    entry.hasLinks = true;
    peer.send(Forward(kj::mv(entry)), "content"_kj.asBytes());
    peer.send(Forward(linkEntry("three", {"linked"})));
    peer.send(Forward(linkEntry("four", {"linked", "below"})));
    peer.send(Forward(Done()));
  });
  CHECK(end.get<Summary>().failures == 3);
  CHECK(end.get<Summary>().files == 3);
  CHECK(std::filesystem::hard_link_count(victim.to("three").cStr()) == 2);
  CHECK(std::filesystem::hard_link_count(victim.to("foreign").cStr()) == 1);
}

TEST_CASE("a file of this transfer that somebody replaced is not linked to") {
  Victim victim;
  victim.listener.onMade = [&](kj::StringPtr path) {
    if (path != "linked") return;
    unlink(victim.to("linked").cStr());
    KJ_SYSCALL(link(victim.dir.file("outside").cStr(), victim.to("linked").cStr()));
  };
  auto end = victim.destination([&](OpenerPeer& peer) {
    peer.send(Forward(some()));
    auto entry = fileEntry("linked", "content");
    entry.hasLinks = true;
    peer.send(Forward(kj::mv(entry)), "content"_kj.asBytes());
    for (unsigned i = 0; i < 2; ++i) {
      Entry link;
      link.kind = EntryKind::HARD_LINK;
      link.name = kj::str("link", i);
      link.linkTo.add(kj::str("linked"));
      peer.send(Forward(kj::mv(link)));
    }
    peer.send(Forward(Done()));
  });
  CHECK(end.get<Summary>().failures == 2);
  CHECK(std::filesystem::hard_link_count(victim.dir.file("outside").cStr()) == 2);
}

TEST_CASE("what a mover says of a larger file is held against the file") {
  Victim victim;
  writeFile(victim.to("old"), "old");
  auto end = victim.destination([&](OpenerPeer& peer) {
    peer.send(Forward(some()));
    const char* names[] = {"short", "long", "old", "failed", "kept"};
    for (uint64_t i = 0; i < 5; ++i) {
      auto entry = largeEntry(names[i], 100000);
      peer.send(Forward(kj::mv(entry)));
      auto file = awaitOpened(peer, i);
      KJ_SYSCALL(ftruncate(file, i == 0 ? 5 : i == 1 ? 1 << 20 : 100000));
    }
    peer.send(Commit{0, Outcome(Whole()), true});
    peer.send(Commit{1, Outcome(Whole()), false});
    peer.send(Commit{2, Outcome(Unchanged()), false});  // there is no base that it could be
    peer.send(Commit{3, Outcome(problem(ProblemKind::CHANGED, kj::str("as the source says"))), false});
    peer.send(Commit{4, Outcome(Kept()), false});
    peer.send(Commit{3, Outcome(Whole()), false});  // over
    peer.send(Forward(Done()));
  });
  CHECK(end.get<Summary>().failures == 5);
  CHECK(end.get<Summary>().files == 0);
  CHECK(readFile(victim.to("old")) == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(victim.to("").cStr()), {}) == 1);
}

TEST_CASE("files are not held open without bound, and each gets an answer") {
  Victim victim;
  unsigned opened = 0, failed = 0;
  victim.destination([&](OpenerPeer& peer) {
    peer.send(Forward(Totals{1000, 0, 1000, 0, 1000, false}));
    for (unsigned i = 0; i < 1000; ++i) peer.send(Forward(largeEntry(kj::str("f", i), 1)));
    while (opened + failed < 1000) {
      auto message = KJ_ASSERT_NONNULL(peer.receive());
      if (message.message.is<Opened>()) ++opened;
      if (message.message.is<Backward>() && message.message.get<Backward>().is<DestinationFailed>()) ++failed;
    }
  });
  CHECK(opened >= 1);
  CHECK(opened <= 64);
  CHECK(std::filesystem::is_empty(victim.to("").cStr()));
}

// T84
TEST_CASE("set-id bits, devices and security attributes are not made where nothing says special") {
  Victim victim;
  victim.options.archive = true;
  auto end = victim.destination([&](OpenerPeer& peer) {
    peer.send(Forward(some()));
    auto entry = fileEntry("file", "content");
    entry.mode = 07755;
    entry.attributes.add(Attribute{kj::str("security.capability"), kj::heapArray("\1\0\0\2"_kj.asBytes())});
    peer.send(Forward(kj::mv(entry)), "content"_kj.asBytes());
    auto folder = directoryEntry("folder");
    folder.mode = 07777;
    peer.send(Forward(kj::mv(folder)));
    peer.send(Forward(Leave()));
    Entry device;
    device.kind = EntryKind::CHARACTER_DEVICE;
    device.name = kj::str("device");
    device.deviceMajor = 1;
    device.deviceMinor = 3;
    peer.send(Forward(kj::mv(device)));
    peer.send(Forward(Done()));
  });
  CHECK(end.get<Summary>().failures == 1);
  struct stat status {};
  KJ_SYSCALL(stat(victim.to("file").cStr(), &status));
  CHECK((status.st_mode & 07777) == 0755);
  KJ_SYSCALL(stat(victim.to("folder").cStr(), &status));
  CHECK((status.st_mode & 07777) == 0777);
  CHECK(!std::filesystem::exists(victim.to("device").cStr()));
}

TEST_CASE("an absurd announcement costs nothing, and what follows it is held to it") {
  Victim victim;
  auto kind = victim.destinationProblem([&](OpenerPeer& peer) {
    peer.send(Forward(Totals{1000000000000, 1, uint64_t(1) << 62, 1, 1, false}));
  });
  CHECK(kind == ProblemKind::NO_SPACE);
}

TEST_CASE("every flipped byte of a conversation is survived") {
  FrameBuilder frame;
  kj::Vector<kj::byte> packet;
  auto add = [&](const Forward& message, kj::StringPtr content) {
    write(message, frame.init<schema::ToOpener>().initForward());
    packet.addAll(frame.toArray(content.asBytes()));
  };
  add(Forward(some()), "");
  add(Forward(directoryEntry("folder")), "");
  add(Forward(fileEntry("file", "content")), "content");
  add(Forward(Leave()), "");
  add(Forward(Done()), "");
  for (size_t i = 0; i < packet.size(); ++i) {
    Victim victim;
    auto flipped = kj::heapArray(packet.asPtr());
    flipped[i] = kj::byte(flipped[i] ^ (1u << (i % 8)));
    victim.destination([&](OpenerPeer& peer) { peer.sendRaw(flipped); });
  }
}

TEST_CASE("a source's opener holds its mover to the order as well") {
  std::function<void(OpenerPeer&)> movers[] = {
      [](OpenerPeer& peer) { peer.send(Backward(Summary())); },
      [](OpenerPeer& peer) {
        peer.send(Backward(Progress{1, 1}));
      },
      [](OpenerPeer& peer) {
        peer.send(Commit{0, Outcome(Whole()), false});
      },
      [](OpenerPeer& peer) { peer.send(Forward(Done())); },
      [](OpenerPeer& peer) {
        peer.send(Backward(Ready{true}));
        peer.send(Backward(Ready{true}));
      },
      [](OpenerPeer& peer) {
        peer.send(Backward(Ready{true}));
        peer.send(Backward(DestinationFailed{100, kj::str("x"), problem(ProblemKind::FAILED, kj::str("x"))}));
      },
      [](OpenerPeer& peer) { peer.sendRaw("nonsense"_kj.asBytes()); },
  };
  for (auto& mover : movers) {
    CAPTURE(&mover - movers);
    TempDir dir;
    writeFile(dir.file("file"), "content");
    auto ends = newSocketEnds();
    OpenerPeer peer(kj::mv(ends.mover));
    kj::Maybe<OpenerEnd> end;
    Listeners listener;
    {
      kj::Thread opener([&]() {
        kj::Vector<SourceTop> tops;
        tops.add(SourceTop{folderAt(dir.path()), kj::str("file"), kj::str("file"), kj::str("file"), nullptr, false});
        end = runSourceOpener(kj::mv(ends.opener), kj::mv(tops), {}, listener);
      });
      mover(peer);
      while (peer.receive() != nullptr) {
      }
    }
    auto& problem = KJ_ASSERT_NONNULL(end);
    REQUIRE(problem.is<Problem>());
    CHECK(problem.get<Problem>().kind == ProblemKind::PROTOCOL);
  }
}
