// What a relay tells its meter, and what it does with what the meter says.
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <string>

#include "tests/unit/transport/relay-lab.h"

namespace postern::test {
namespace {

class Ledger final : public RelayMeter {
 public:
  struct Way {
    size_t admitted = 0, passed = 0, dropped = 0;  // bytes
    size_t pieces = 0, passedPieces = 0, droppedPieces = 0;
    bool isOpen = false;  // a piece between admission and its fate
    std::string content;
  };
  Way ways[2];
  bool keepsContent = true;
  // What a piece waits for; null: nothing.
  kj::Maybe<kj::Function<kj::Promise<void>()>> gate;

  Way& out() { return ways[size_t(RelayWay::OUT)]; }
  Way& in() { return ways[size_t(RelayWay::IN)]; }

  kj::Maybe<kj::Promise<void>> admit(RelayWay which, size_t bytes) override {
    auto& way = ways[size_t(which)];
    REQUIRE_FALSE(way.isOpen);  // one at a time
    REQUIRE(bytes > 0);
    way.isOpen = true;
    way.admitted += bytes;
    ++way.pieces;
    KJ_IF_MAYBE (function, gate) return (*function)();
    return nullptr;
  }
  void passed(RelayWay which, kj::ArrayPtr<const kj::byte> bytes) override {
    auto& way = ways[size_t(which)];
    REQUIRE(way.isOpen);
    way.isOpen = false;
    way.passed += bytes.size();
    ++way.passedPieces;
    if (keepsContent) way.content.append(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  }
  void dropped(RelayWay which, size_t bytes) override {
    auto& way = ways[size_t(which)];
    REQUIRE(way.isOpen);
    way.isOpen = false;
    way.dropped += bytes;
    ++way.droppedPieces;
  }

  void checkBalance() {
    for (auto& way : ways) {
      CHECK_FALSE(way.isOpen);
      CHECK(way.admitted == way.passed + way.dropped);
      CHECK(way.pieces == way.passedPieces + way.droppedPieces);
    }
  }
};

bool equals(const std::string& text, kj::ArrayPtr<const kj::byte> bytes) {
  return text.size() == bytes.size() && memcmp(text.data(), bytes.begin(), bytes.size()) == 0;
}

TEST_CASE("a meter sees every byte of both ways once and in order, and nothing is dropped of what ends well") {
  RelayLab lab;
  for (auto kind : SOCKET_KINDS) {
    for (bool delays : {false, true}) {
      Ledger host, guest;
      if (delays) {
        for (auto* meter : {&host, &guest})
          meter->gate = [&lab]() -> kj::Promise<void> {
            return lab.io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS);
          };
      }
      auto there = lab.bytes(1000003), back = lab.bytes(500009);
      auto line = lab.connect(kind, host, guest);
      lab.exchange(line, there, back);
      lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
      for (auto* meter : {&host, &guest}) {
        meter->checkBalance();
        CHECK(meter->out().dropped + meter->in().dropped == 0);
      }
      CHECK(equals(host.out().content, there));
      CHECK(equals(guest.in().content, there));
      CHECK(equals(guest.out().content, back));
      CHECK(equals(host.in().content, back));
      // A record is a piece, at both ends the same.
      CHECK(guest.in().pieces == host.out().pieces);
    }
  }
}

TEST_CASE("a piece that the meter lets wait is held back, and no other is asked for meanwhile") {
  RelayLab lab;
  Ledger host;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> waiting;
  host.gate = [&waiting]() -> kj::Promise<void> {
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiting.add(kj::mv(paf.fulfiller));
    return kj::mv(paf.promise);
  };
  auto line = lab.connect(SocketKind::UNIX, host);
  auto content = lab.bytes(200000);
  auto writing =
      line.hostProgram->write(content).then([&line] { line.hostProgram->finish(); }).eagerlyEvaluate(nullptr);
  kj::byte buffer[100000];
  auto reading = line.guestProgram->readSome(kj::arrayPtr(buffer, sizeof(buffer))).eagerlyEvaluate(nullptr);
  lab.pass(100 * kj::MILLISECONDS);
  REQUIRE(waiting.size() == 1);
  CHECK(host.out().passed == 0);
  CHECK_FALSE(reading.poll(lab.waitScope));
  waiting[0]->fulfill();
  CHECK(lab.await(kj::mv(reading)) > 0);
  host.gate = nullptr;
  for (size_t i = 1; i < waiting.size(); ++i) waiting[i]->fulfill();
  CHECK(KJ_REQUIRE_NONNULL(lab.await(line.guestProgram->readAll())).size() > 0);
  CHECK(equals(host.out().content, content));
}

enum class By { HOST_PROGRAM, GUEST_PROGRAM, RELAY, SESSION };

void end(RelayLab& lab, Line& line, By by) {
  switch (by) {
    case By::HOST_PROGRAM:
      return line.hostProgram->reset();
    case By::GUEST_PROGRAM:
      return line.guestProgram->reset();
    case By::RELAY:
      line.hostOutcome = kj::Promise<RelayOutcome>(nullptr);
      line.hostRelay = nullptr;
      return;
    case By::SESSION:
      lab.host = nullptr;
      return;
  }
}

TEST_CASE("a reset drops the piece that waits for the meter, and the one that waits for the program, once") {
  for (auto by : {By::HOST_PROGRAM, By::GUEST_PROGRAM, By::RELAY, By::SESSION}) {
    for (bool gated : {true, false}) {
      CAPTURE(int(by));
      CAPTURE(gated);
      Ledger host, guest;
      if (gated) host.gate = []() -> kj::Promise<void> { return kj::NEVER_DONE; };
      RelayLab lab;
      auto line = lab.connect(SocketKind::TCP, host, guest);
      auto content = lab.bytes(65536);
      for (auto* program : {line.hostProgram.get(), line.guestProgram.get()}) {
        for (int quiet = 0; quiet < 3; ++quiet) {
          while (send(program->descriptor(), content.begin(), content.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            quiet = 0;
          lab.pass(10 * kj::MILLISECONDS);
        }
      }
      CHECK(host.in().isOpen);
      CHECK(guest.in().isOpen == !gated);
      end(lab, line, by);
      lab.pass(200 * kj::MILLISECONDS);
      line.hostRelay = nullptr;
      line.guestRelay = nullptr;
      host.checkBalance();
      guest.checkBalance();
      CHECK(host.in().droppedPieces == 1);
      CHECK(host.out().droppedPieces == (gated ? 1 : 0));
      CHECK(host.out().passed == (gated ? 0 : host.out().admitted));
    }
  }
}

}  // namespace
}  // namespace postern::test
