// Channels: what is listed, what is cut, and what is written down of it.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/host/channel-desk-fixture.h"

namespace postern::host {
namespace {

using test::adopt;
using test::ChannelDeskLab;
using test::claimed;
using test::DescriptorLimit;
using test::isConnected;
using test::isOver;
using test::PAIR;
using test::PairLab;
using test::says;

// Cutting ----------------------------------------------------------------------------------------------------------

// T114
TEST_CASE("a reload cuts exactly what it forbids, for both ends, and says why") {
  PairLab lab;
  auto stays = lab.ask(lab.web, 1, "host", "cache");
  auto stayingService = lab.acceptCache();
  auto goes = lab.ask(lab.web, 2, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  REQUIRE(goes.isAllowed());
  auto began = lab.port.getTimer().now();
  std::string less = PAIR;
  less.replace(less.find("\"enabled\""), 9, "\"disabled\"");
  lab.policy(less);
  CHECK(lab.channels->recheck() == 1);
  CHECK(lab.channels->recheck() == 0);  // it is being cut
  CHECK((lab.web.cuts.size() == 1 && lab.web.cuts[0] == 2));
  CHECK((lab.db.cuts.size() == 1 && lab.db.cuts[0] == 2));
  CHECK(lab.soon([&]() { return isOver(hop) && isOver(goes.socket); }));
  CHECK(kj::systemPreciseMonotonicClock().now() - began < 2 * kj::SECONDS);
  lab.close(lab.db, 2, "cut", 5, 6);
  lab.close(lab.web, 2, "cut", 5, 6);
  CHECK(lab.linesWith("channel.close") == 1);
  CHECK(says(lab.auditText(), R"("channel":"0000000000000002","to":"vm:db1","why":"policy","bytes-there":5)"));
  CHECK(isConnected(stays.socket, stayingService));
  CHECK(lab.channels->living().size() == 1);
}

// T112, T114
TEST_CASE("a port that is blocked by hand cuts what passes it, on either end, and nothing else") {
  PairLab lab;
  auto& other = lab.add("web2");
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  auto own = lab.ask(lab.db, 2, "host", "cache");
  auto stays = lab.ask(other, 3, "host", "cache");
  REQUIRE(stays.isAllowed());
  lab.decisions.setBlocked("db1", true);
  CHECK(lab.channels->recheck() == 2);
  CHECK(lab.soon([&]() { return isOver(hop) && isOver(own.socket) && isOver(asked.socket); }));
  CHECK_FALSE(isOver(stays.socket));
  CHECK_FALSE(lab.ask(lab.db, 4, "host", "cache").isAllowed());
  CHECK_FALSE(lab.ask(lab.web, 5, "db1", "postgres").isAllowed());
  lab.close(lab.db, 2, "cut");
  CHECK(says(lab.auditText(), R"("why":"blocked")"));
  lab.decisions.setBlocked("db1", false);
  CHECK(lab.ask(lab.db, 6, "host", "cache").isAllowed());
}

// T114
TEST_CASE("a session that answers nothing, and says nothing, does not keep a channel alive, nor its entry") {
  PairLab lab;
  lab.web.answersCuts = false;
  lab.db.answersCuts = false;
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  REQUIRE(asked.isAllowed());
  lab.channels->cutAllOf("db1", "removed");
  CHECK(lab.soon([&]() { return isOver(asked.socket) && isOver(lab.db.hop); }));
  CHECK(lab.soon([&]() { return lab.channels->living().size() == 0; }));
  CHECK(says(lab.auditText(), R"("outcome":"channel.close",)"));
  CHECK(says(lab.auditText(), R"("why":"removed")"));
  CHECK(lab.web.restarts.size() == 0);  // what had been handed out is dead
}

TEST_CASE("a channel that is closed by hand says so, and by whom") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 0xabc, "host", "cache");
  lab.channels->cutByHand("user:alice", 0xabc);
  lab.close(lab.web, 0xabc, "cut");
  CHECK(says(lab.auditText(),
             R"("who":"user:alice","call":"channel.cut","outcome":"done","channel":"0000000000000abc")"));
  CHECK(says(lab.auditText(), R"("why":"closed by hand")"));
  lab.channels->cutByHand("user:alice", 0xdef);  // there is none
  CHECK(lab.linesWith("channel.cut") == 1);
}

TEST_CASE("a TCP service of a channel that is cut sees a reset, and not an end") {
  ChannelDeskLab lab;
  auto& web = lab.add("web1");
  kj::AutoCloseFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_in address {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<struct sockaddr*>(&address);
  KJ_SYSCALL(bind(listener, generic, size));
  KJ_SYSCALL(::listen(listener, 1));
  KJ_SYSCALL(getsockname(listener, generic, &size));
  TcpAddress tcp{};
  tcp.address[0] = 127;
  tcp.address[3] = 1;
  tcp.port = ntohs(address.sin_port);
  kj::Vector<HostService> services;
  services.add(HostService{ServiceTarget{kj::str("cache"), LocalAddress(tcp), nullptr, false}, nullptr});
  lab.channels->hostServices().set(kj::mv(services));
  lab.policy(PAIR);
  auto asked = lab.ask(web, 1, "host", "cache");
  REQUIRE(asked.isAllowed());
  kj::AutoCloseFd service(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  lab.channels->cutAllOf("web1", "removed");
  char byte;
  CHECK(lab.soon([&]() { return recv(service, &byte, 1, 0) < 0 && errno == ECONNRESET; }));
  CHECK(isOver(asked.socket));
}

TEST_CASE("a service of the host that is another one after a reload is cut; one that is the same is not") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 1, "host", "cache");
  lab.serveUnix("cache", "cache.sock");
  CHECK(lab.channels->recheck() == 0);
  lab.serveUnix("cache", "other.sock");
  CHECK(lab.channels->recheck() == 1);
  lab.close(lab.web, 1, "cut");
  CHECK(says(lab.auditText(), R"("why":"service-changed")"));
}

// T114
TEST_CASE("a channel whose rule has another mirror than it was opened with is cut; one whose rule has moved is not") {
  PairLab lab;
  auto rule = [](kj::StringPtr id, kj::StringPtr mirror) {
    return std::string(
        kj::str("[[allow]]\nid = \"", id, "\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.cache\"\n", mirror)
            .cStr());
  };
  constexpr auto META = "mirror = { to = \"unix:/run/ids\", copy = \"meta\" }\n"_kj;
  constexpr auto FULL = "mirror = { to = \"unix:/run/ids\", copy = \"full\" }\n"_kj;
  uint64_t id = 0;
  for (auto& change : {std::pair(""_kj, META), std::pair(META, FULL), std::pair(META, ""_kj)}) {
    lab.policy(rule("a", change.first));
    REQUIRE(lab.ask(lab.web, ++id, "host", "cache").isAllowed());
    lab.policy("vm-to-vm = \"enabled\"\n" + rule("a", change.first));
    CHECK(lab.channels->recheck() == 0);
    lab.policy(rule("b", change.first));  // it lives on by another rule
    CHECK(lab.channels->recheck() == 0);
    lab.policy(rule("a", change.second));
    CHECK(lab.channels->recheck() == 1);
    lab.close(lab.web, id, "cut");
  }
  CHECK(lab.linesWith(R"("why":"policy")") == 3);
  // Also of an earlier posternd: its session knows.
  lab.policy(rule("a", META));
  auto mirrored = claimed(10, "", "cache");
  mirrored.mirror = kj::str("unix:/run/ids meta");
  adopt(lab, lab.web, kj::mv(mirrored));
  adopt(lab, lab.web, claimed(11, "", "cache"));
  CHECK((lab.web.cuts.size() == 4 && lab.web.cuts.back() == 11));
}

TEST_CASE("a rule that expires cuts what it allowed") {
  PairLab lab;
  lab.policy("[[allow]]\nid = \"cache\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.cache\"\n");
  auto asked = lab.ask(lab.web, 1, "host", "cache");
  REQUIRE(asked.isAllowed());
  lab.policy(
      "[[allow]]\nid = \"cache\"\nfrom = \"any\"\nto = \"host\"\ncall = \"service.cache\"\n"
      "expires = 2001-01-01T00:00:00Z\n");
  CHECK(lab.channels->recheck() == 1);
}

TEST_CASE("tags that change, a quarantine and a VM that goes cut what they were good for") {
  PairLab lab;
  auto& tagged = lab.add("t1");
  tagged.vm.tags.add(kj::str("front"));
  lab.policy(std::string(PAIR) +
             "[[allow]]\nid = \"tag\"\nfrom = \"tag:front\"\nto = \"db1\"\ncall = \"service.postgres\"\n");
  auto byTag = lab.ask(tagged, 1, "db1", "postgres");
  REQUIRE(byTag.isAllowed());
  CHECK(lab.channels->recheck() == 0);
  tagged.vm.tags.clear();
  CHECK(lab.channels->recheck() == 1);
  auto asked = lab.ask(lab.web, 2, "db1", "postgres");
  REQUIRE(asked.isAllowed());
  lab.db.quarantined = true;
  CHECK(lab.channels->recheck() == 1);
  lab.db.quarantined = false;
  auto again = lab.ask(lab.web, 3, "db1", "postgres");
  REQUIRE(again.isAllowed());
  lab.vms.erase("db1");
  CHECK(lab.channels->recheck() == 1);
  lab.close(lab.web, 3, "cut");
  CHECK(says(lab.auditText(), R"("why":"removed")"));
}

// Sessions ---------------------------------------------------------------------------------------------------------

TEST_CASE("a session closes channels of its own VM, and no others") {
  PairLab lab;
  auto& stranger = lab.add("web2");
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  lab.close(stranger, 1, "finished");
  CHECK(lab.channels->living().size() == 1);
  CHECK_FALSE(isOver(asked.socket));
  lab.close(lab.db, 1, "reset");
  CHECK(lab.channels->living().size() == 0);
  // For the other end, too: nothing passes a channel that is not listed.
  CHECK(isOver(asked.socket));
}

// T114
TEST_CASE("a channel between VMs that has finished at one lives, and can be cut, until the other says so too") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  lab.close(lab.web, 1, "finished", 3, 4);
  CHECK(lab.channels->living().size() == 1);
  CHECK(isConnected(asked.socket, hop));
  lab.close(lab.db, 1, "finished", 1, 2);
  CHECK(lab.channels->living().size() == 0);
  CHECK(isOver(hop));
  CHECK(says(lab.auditText(), R"("why":"finished","bytes-there":3,"bytes-back":4)"));
  asked = lab.ask(lab.web, 2, "db1", "postgres");
  hop = kj::mv(lab.db.hop);
  lab.close(lab.db, 2, "finished");
  lab.policy("");
  CHECK(lab.channels->recheck() == 1);
  CHECK(lab.soon([&]() { return isOver(hop) && lab.channels->living().size() == 0; }));
}

TEST_CASE("a session process that goes when its half of a channel has finished costs the other VM nothing of it") {
  PairLab lab;
  auto asked = lab.ask(lab.web, 1, "db1", "postgres");
  lab.close(lab.web, 1, "finished");
  lab.channels->sessionGone(lab.web);
  CHECK(lab.db.cuts.size() == 0);
  CHECK(isConnected(asked.socket, lab.db.hop));
  lab.close(lab.db, 1, "finished");
  CHECK(lab.channels->living().size() == 0);
  CHECK(says(lab.auditText(), R"("why":"finished")"));
}

TEST_CASE("a session process that goes ends its channels; what another VM's session tells of them is written down") {
  PairLab lab;
  auto own = lab.ask(lab.web, 1, "host", "cache");
  auto between = lab.ask(lab.web, 2, "db1", "postgres");
  auto hop = kj::mv(lab.db.hop);
  lab.channels->sessionGone(lab.web);
  CHECK(isOver(own.socket));
  CHECK(lab.channels->living().size() == 1);
  CHECK(lab.soon([&]() { return isOver(hop); }));
  lab.close(lab.db, 2, "reset", 77, 0);
  CHECK(lab.channels->living().size() == 0);
  CHECK(says(lab.auditText(), R"("why":"session-ended","bytes-there":77)"));
  CHECK(lab.linesWith("channel.close") == 2);
}

// Programs of the host ---------------------------------------------------------------------------------------------

struct CallerLab : PairLab {
  kj::AutoCloseFd socket;
  uint64_t grant = 0;

  CallerLab() {
    policy(
        "[[allow]]\nid = \"ssh\"\nfrom = \"user:alice\"\nto = \"web1\"\ncall = [\"service.ssh\", \"service.web\"]\n"
        "mirror = { to = \"unix:/run/ids\", copy = \"full\" }\n");
    grant = add(kj::str("alice"));
  }
  using ChannelDeskLab::add;
  uint64_t add(kj::String user) {
    auto caller = kj::atomicRefcounted<LocalCaller>();
    caller->uid = 1000;
    caller->user = kj::mv(user);
    GrantEntry entry{grants.nextId(), kj::str("web1"), {{}, kj::str("ssh"), nullptr, nullptr, {}}, kj::mv(caller)};
    auto id = entry.id;
    entry.granted.services.add(GrantedService{kj::str("ssh"), kj::str("ssh"), kj::str("unix:/run/ids full")});
    auto pair = newSocketPair(SOCK_STREAM);
    socket = kj::mv(pair.first);
    grants.add(kj::mv(entry), pair.second);
    return id;
  }
};

TEST_CASE("a channel of a program of the host is listed and written down under its caller, and cut with his rights") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "ssh");
  CHECK(says(lab.auditText(), R"("who":"user:alice","vm":"web1","call":"service.ssh","rule":"ssh",)"
                              R"("outcome":"channel.open","channel":"0000000000000005","to":"vm:web1",)"
                              R"("mirror":"unix:/run/ids full")"));
  CHECK(lab.channels->recheck() == 0);
  lab.policy("");
  CHECK(lab.channels->recheck() == 1);
  CHECK(lab.web.cuts.size() == 1);
  lab.close(lab.web, 5, "cut");
  CHECK(says(lab.auditText(), R"("why":"policy")"));
}

TEST_CASE("a session cannot list what was not granted: such a channel is cut") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "web");      // of another service
  lab.channels->opened(lab.web, 6, lab.grant + 1, "ssh");  // of no grant
  lab.channels->opened(lab.db, 7, lab.grant, "ssh");       // of another VM's grant
  CHECK(lab.channels->living().size() == 0);
  CHECK(lab.web.cuts.size() == 2);
  CHECK(lab.linesWith("channel.open") == 0);
  // One that was granted, and is no longer allowed by the time it opens.
  lab.policy("");
  lab.channels->opened(lab.web, 8, lab.grant, "ssh");
  CHECK(lab.web.cuts.size() == 3);
}

TEST_CASE("a program's channel for which posternd has no room is cut, and counted and written down as refused") {
  CallerLab lab;
  {
    DescriptorLimit few(64);
    lab.channels = lab.makeChannels();
  }
  uint64_t id = 0;
  while (lab.channels->living().hasRoomFor("web1")) lab.channels->opened(lab.web, ++id, lab.grant, "ssh");
  CHECK(id == 16);
  CHECK(lab.web.cuts.size() == 0);
  lab.channels->opened(lab.web, ++id, lab.grant, "ssh");
  CHECK((lab.web.cuts.size() == 1 && lab.web.cuts[0] == id));
  CHECK(lab.web.counters.forBoard().refused == 1);
  CHECK(
      says(lab.auditText(), R"("who":"user:alice","vm":"web1","call":"service.ssh","rule":"ssh","outcome":"refused")"));
}

TEST_CASE("a session that does not end what it was asked to end is ended itself") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "ssh");
  lab.channels->cutByHand("user:root", 5);
  CHECK(lab.soon([&]() { return lab.web.restarts.size() == 1; }));
  CHECK(says(lab.web.restarts[0], "0000000000000005"));
  CHECK(lab.channels->living().size() == 0);
  CHECK(lab.db.restarts.size() == 0);
}

TEST_CASE("a session that ended a channel while posternd stood still has done what it was asked") {
  CallerLab lab;
  lab.channels->opened(lab.web, 5, lab.grant, "ssh");
  lab.channels->cutByHand("user:root", 5);
  lab.io.waitScope.poll();
  usleep(unsigned((CLOSING_PATIENCE + 200 * kj::MILLISECONDS) / kj::MICROSECONDS));
  lab.io.waitScope.poll();  // which hears of the time before it hears of the end
  lab.close(lab.web, 5, "cut", 3, 4);
  lab.io.waitScope.poll();
  CHECK(lab.web.restarts.size() == 0);
  CHECK(says(lab.auditText(), R"("why":"closed by hand","bytes-there":3)"));
}

TEST_CASE("what a session refused a program of the host is written down, damped, with the grant's rule") {
  CallerLab lab;
  for (int i = 0; i < 1000; ++i) {
    lab.channels->refused(lab.web, ChannelRefusal{lab.grant, kj::str("ssh"), kj::str("not reached"), 1});
  }
  CHECK(lab.linesWith("not reached") == 60);
  CHECK(says(lab.auditText(),
             R"("who":"user:alice","vm":"web1","call":"service.ssh","rule":"ssh","outcome":"not reached")"));
  lab.channels->refused(lab.db, ChannelRefusal{lab.grant, kj::str("ssh"), kj::str("of another VM"), 1});
  CHECK(lab.linesWith("of another VM") == 0);
  // Questions of a guest that its session did not let through.
  lab.channels->refused(lab.web, ChannelRefusal{0, kj::String(), kj::String(), 900});
  CHECK(says(lab.auditText(), R"("who":"vm:web1","call":"service.*","outcome":"failed","reason":"too-many")"));
  lab.channels->tick(lab.port.getTimer().now() + 6 * kj::SECONDS);
  CHECK(says(lab.auditText(), R"x("outcome":"failed (899 more)")x"));
}

}  // namespace
}  // namespace postern::host
