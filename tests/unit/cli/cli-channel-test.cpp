// postern channel list, stats, block, unblock, close.

#include "host/cli/channel-text.h"
#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;
using Mode = Behaviour::Mode;

namespace {

// Every byte that a terminal could take for a command.
constexpr auto HOSTILE = "a\033]0;x\007\n\302\233[2J\377"_kj;

bool isSafe(kj::StringPtr text) {
  for (char c : text) {
    if ((c < ' ' || c > '~') && c != '\n') return false;
  }
  return true;
}

size_t count(kj::StringPtr text, kj::StringPtr part) {
  size_t found = 0;
  for (auto* at = strstr(text.cStr(), part.cStr()); at != nullptr; at = strstr(at + 1, part.cStr())) ++found;
  return found;
}

void fill(hs::Traffic::Builder traffic, uint64_t there) {
  traffic.setBytesThere(there);
  traffic.setBytesBack(7);
  traffic.setMessagesThere(3);
  traffic.setMessagesBack(2);
  traffic.setThrottledNanoseconds(1'500'000'000);
}

void twoChannels(hs::Control::ChannelsResults::Builder results) {
  auto list = results.initChannels(2);
  list[0].setId(0x0123456789abcdef);
  list[0].setFrom("user:alice");
  list[0].setTo("vm:web1");
  list[0].setService("http");
  list[0].setRule("ops");
  list[0].setOpenForMilliseconds(65'000);
  fill(list[0].initTraffic(), uint64_t(3) << 20);
  list[1].setId(5);
  list[1].setFrom(HOSTILE);
  list[1].setTo(HOSTILE);
  list[1].setService(HOSTILE);
  list[1].setRule(HOSTILE);
  list[1].setOpenForMilliseconds(UINT64_MAX);
}

void onePort(hs::Control::PortsResults::Builder results, uint64_t out) {
  auto port = results.initPorts(1)[0];
  port.setVm("web1");
  port.setOpened(12);
  port.setDenied(3);
  port.setRefused(2);
  port.setActive(1);
  fill(port.initOutOf(), out);
  port.setLastDeniedRule("no-db");
  port.setMirrorDropped(9);
  auto rule = results.initRules(1)[0];
  rule.setRule("ops");
  rule.setVm("web1");
  rule.setOpened(4);
  fill(rule.initTraffic(), 100);
}

}  // namespace

TEST_CASE("an id of a channel is 16 digits, and is read back") {
  using cli::channelIdText;
  using cli::parseChannelId;
  CHECK_TEXT(channelIdText(0), "0000000000000000");
  CHECK_TEXT(channelIdText(UINT64_MAX), "ffffffffffffffff");
  CHECK(KJ_ASSERT_NONNULL(parseChannelId("0123456789abcdef")) == 0x0123456789abcdef);
  CHECK(KJ_ASSERT_NONNULL(parseChannelId("FF")) == 255);
  for (auto text : {"", "g", "0x1", "-1", " 1", "00123456789abcdef"}) CHECK(parseChannelId(text) == nullptr);
}

TEST_CASE("channel list: one line each, whatever it says safe on a terminal") {
  CliWorld world;
  world.control.channels = twoChannels;
  CHECK(world.run({"channel", "list", "web1"}) == ExitStatus::DONE);
  CHECK_TEXT(world.control.askedVm, "web1");
  CHECK(contains(world.output(), "ID                FROM"));
  CHECK(contains(world.output(), "0123456789abcdef  user:alice"));
  CHECK(contains(world.output(), "1 min 5 s"));
  CHECK(contains(world.output(), "3.0 MiB"));
  CHECK(isSafe(world.output()));
  CHECK(count(world.output(), "\n") == 3);
  CHECK(world.run({"channel", "list", "--json"}) == ExitStatus::DONE);
  CHECK_TEXT(world.control.askedVm, "");
  auto document = JsonReader::read(world.output());
  CHECK_TEXT(document["channels"].at(0)["id"].text(), "0123456789abcdef");
  CHECK(document["channels"].at(0)["bytesThere"].number() == 3 << 20);
  CHECK(document["channels"].at(0)["throttledMs"].number() == 1500);
  CHECK(document["channels"].at(0)["openForSeconds"].number() == 65);
}

TEST_CASE("channel list: no channels are said to be none") {
  CliWorld idle;
  CHECK(idle.run({"channel", "list"}) == ExitStatus::DONE);
  CHECK_TEXT(idle.output(), "no channels\n");
}

TEST_CASE("channel stats: a port's counters, and those of each rule") {
  CliWorld world;
  world.control.ports = [](auto results) { onePort(results, 1536); };
  CHECK(world.run({"channel", "stats", "web1"}) == ExitStatus::DONE);
  CHECK_TEXT(world.control.askedVm, "web1");
  CHECK(contains(world.output(), "VM    PORT  OPENED  DENIED  REFUSED  ACTIVE  OUT"));
  CHECK(contains(world.output(), "web1  open  12      3       2        1       1.5 KiB"));
  CHECK(contains(world.output(), "no-db"));
  CHECK(contains(world.output(), "\n\nRULE  VM"));
  CHECK(contains(world.output(), "ops   web1  4"));
  CHECK(world.run({"channel", "stats", "--json"}) == ExitStatus::DONE);
  auto document = JsonReader::read(world.output());
  CHECK(document["ports"].at(0)["bytesOut"].number() == 1536);
  CHECK(document["ports"].at(0)["bytesIn"].number() == 7);
  CHECK(document["ports"].at(0)["messagesOut"].number() == 3);
  CHECK(document["ports"].at(0)["mirrorDropped"].number() == 9);
  CHECK_TEXT(document["ports"].at(0)["lastDeniedRule"].text(), "no-db");
  CHECK(document["rules"].at(0)["bytesThere"].number() == 100);
}

TEST_CASE("channel stats: a blocked port says so, and by whom") {
  CliWorld world;
  bool byHand = false;
  world.control.ports = [&](auto results) {
    auto port = results.initPorts(1)[0];
    port.setVm("web1");
    port.setBlocked(true);
    port.setBlockedByHand(byHand);
  };
  CHECK(world.run({"channel", "stats"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "web1  blocked  "));
  byHand = true;
  CHECK(world.run({"channel", "stats"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "web1  blocked by hand  "));
}

TEST_CASE("channel stats --watch goes on until Ctrl-C, and prints what has changed") {
  CliWorld world;
  unsigned looks = 0;
  world.control.ports = [&](auto results) {
    // The second look is as the first.
    if (++looks == 4) world.interruptNow();
    onePort(results, looks < 3 ? 1024 : 10 << 20);
  };
  CHECK(world.run({"channel", "stats", "--watch", "--json"}) == ExitStatus::INTERRUPTED);
  CHECK(count(world.output(), "\"bytesOut\":1024") == 1);
  CHECK(count(world.output(), "\"bytesOut\":10485760") == 1);
}

TEST_CASE("channel stats --watch draws on a terminal, and says how fast it goes now") {
  CliWorld terminal;
  terminal.terminal = true;
  unsigned drawn = 0;
  terminal.control.ports = [&](auto results) {
    if (++drawn == 3) terminal.interruptNow();
    onePort(results, uint64_t(drawn) << 20);
  };
  CHECK(terminal.run({"channel", "stats", "--watch"}) == ExitStatus::INTERRUPTED);
  CHECK(count(terminal.output(), "\033[2J") == 2);
  CHECK(contains(terminal.output(), "OUT NOW"));
  CHECK(contains(terminal.output(), "iB/s"));
}

TEST_CASE("channel block, unblock and close say what was done") {
  CliWorld world;
  world.control.cut = 3;
  CHECK(world.run({"channel", "block", "web1"}) == ExitStatus::DONE);
  CHECK(KJ_ASSERT_NONNULL(world.control.blocked));
  CHECK_TEXT(world.control.askedVm, "web1");
  CHECK_TEXT(world.output(), "web1: blocked, 3 connections cut\n");
  CHECK(world.run({"channel", "block", "web1", "--json"}) == ExitStatus::DONE);
  CHECK(JsonReader::read(world.output())["cut"].number() == 3);
  CHECK(world.run({"channel", "unblock", "web1"}) == ExitStatus::DONE);
  CHECK(!KJ_ASSERT_NONNULL(world.control.blocked));
  CHECK_TEXT(world.output(), "web1: not blocked by hand any more\n");
  CHECK(world.run({"channel", "close", "0123456789abcdef"}) == ExitStatus::DONE);
  CHECK(KJ_ASSERT_NONNULL(world.control.closed) == 0x0123456789abcdef);
  CHECK_TEXT(world.output(), "0123456789abcdef: closed\n");
}

TEST_CASE("channel commands fail as posternd says") {
  for (auto words : {std::initializer_list<kj::StringPtr>{"channel", "list"},
                     {"channel", "stats"},
                     {"channel", "stats", "--watch"},
                     {"channel", "block", "web1"},
                     {"channel", "unblock", "web1"},
                     {"channel", "close", "7"}}) {
    CliWorld world;
    world.control.behaviour.mode = Mode::FAIL;
    world.control.behaviour.kind = hs::Failure::Kind::DENIED;
    CHECK(world.run(words) == ExitStatus::DENIED);
    CHECK(contains(world.errors(), "it does not work"));
    CHECK_TEXT(world.output(), "");
  }
}
