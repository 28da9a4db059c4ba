// GuestCalls.connect and services over a session, with a real broker and real targets.

#include "tests/unit/guest-agent/every-channel.h"
#include "tests/unit/guest-agent/service-stage.h"

namespace postern::guest::test {
namespace {

constexpr kj::StringPtr ALLOWED = R"(
[[allow]]
id = "web"
from = "user:alice"
call = ["service.echo", "service.other"]
[[allow]]
id = "vms"
from = ["web1", "web2"]
call = ["service.echo"]
)"_kj;

kj::String echoAt(const EchoTarget& target) {
  return kj::str("[service.echo]\ntarget = \"", target.address, "\"\n[service.other]\ntarget = \"", target.address,
                 "\"\n[service.secret]\ntarget = \"", target.address, "\"\n");
}

TEST_CASE("a channel to a service carries bytes both ways and ends with both its directions") {
  EchoTarget target;
  ServiceStage stage(ALLOWED, echoAt(target));
  auto calls = stage.callsFor("alice");
  auto channel = stage.reach(calls, "echo");
  stage.send(*channel, "hello");
  CHECK((stage.receive(*channel, 5) == "hello"));
  CHECK(stage.channels.channels() == 1);
  channel->finish();
  CHECK(stage.endOf(*channel) == BulkEnd::FINISHED);
  CHECK(stage.settlesAt(0));
}

TEST_CASE("a target's end and its reset reach the host, and a reset there reaches the target") {
  PlainTarget target;
  ServiceStage stage(ALLOWED, kj::str("[service.echo]\ntarget = \"", target.address, "\"\n"));
  auto calls = stage.callsFor("alice");
  auto channel = stage.reach(calls, "echo");
  auto connection = target.accept();
  REQUIRE(::send(connection, "bye", 3, 0) == 3);
  shutdown(connection, SHUT_WR);
  CHECK((stage.receive(*channel) == "bye"));
  // The other direction goes on.
  stage.send(*channel, "still here");
  CHECK((stage.readFrom(connection, 10) == "still here"));
  channel->reset();
  stage.turn(100 * kj::MILLISECONDS);
  char byte;
  CHECK(recv(connection, &byte, 1, MSG_DONTWAIT) < 0);
  CHECK(errno == ECONNRESET);
  CHECK(stage.settlesAt(0));
}

// T98
TEST_CASE("what the guest's policy does not allow is denied with rule and advice, for users, VMs and nobody") {
  EchoTarget target;
  ServiceStage stage(ALLOWED, echoAt(target));
  CHECK(stage.refusalOf(stage.callsFor("mallory"), "echo").startsWith("denied: "));
  CHECK(stage.refusalOf(stage.callsFor("alice"), "secret").startsWith("denied: "));
  CHECK(stage.refusalOf(stage.callsForVm("web3"), "echo").startsWith("denied: "));
  CHECK(stage.refusalOf(stage.callsForVm("web1"), "other").startsWith("denied: "));
  CHECK(stage.refusalOf(stage.callsForVm("a/b"), "echo").startsWith("denied: "));
  CHECK((stage.refusalOf(stage.callsForVm("web1"), "echo") == ""));
  auto calls = stage.callsFor("mallory");
  auto called = stage.connect(calls, "echo");
  auto response = stage.wait(kj::mv(called.response));
  CHECK(response.getRefusal().getSuggestion().size() > 0);
}

TEST_CASE("a name that is none is invalid, and a service that is not exported unsupported, but only to who may ask") {
  EchoTarget target;
  ServiceStage stage("[[allow]]\nid = \"all\"\nfrom = \"user:alice\"\ncall = [\"service.*\"]\n", echoAt(target));
  for (auto name : {"", "a.b", "-a", "a b", "a/../b", "\xff"}) {
    CHECK(stage.refusalOf(stage.callsFor("alice"), name).startsWith("invalid: "));
  }
  CHECK(stage.refusalOf(stage.callsFor("alice"), "nothing").startsWith("unsupported: "));
  CHECK(stage.refusalOf(stage.callsFor("bob"), "nothing").startsWith("denied: "));
  CHECK(stage.channels.channels() == 0);
}

TEST_CASE("a target that is down is a failure with a reason, and its channel is reset") {
  kj::String address;
  kj::StringPtr user = geteuid() == 0 ? "user = \"root\"\n" : "";
  {
    PlainTarget gone;
    address = kj::str(gone.address);
  }
  ServiceStage stage(ALLOWED, kj::str("[service.echo]\ntarget = \"", address, "\"\n[service.other]\n", user,
                                      "target = \"unix:%/none.sock\"\n"));
  auto calls = stage.callsFor("alice");
  auto called = stage.connect(calls, "echo");
  auto response = stage.wait(kj::mv(called.response));
  CHECK((response.getRefusal().getReason() == schema::Refusal::Reason::FAILED));
  CHECK(response.getRefusal().getDetail().size() > 0);
  CHECK(stage.endOf(*called.channel) == BulkEnd::RESET);
  CHECK(stage.refusalOf(calls, "other").startsWith("failed: "));
  CHECK(stage.channels.channels() == 0);
}

// T98
TEST_CASE("the broker decides again: what the agent would allow and the broker does not is denied") {
  EchoTarget target;
  ServiceStage stage(ALLOWED, echoAt(target));
  kj::String asked;
  stage.planService = [&](kj::StringPtr service, kj::StringPtr caller) {
    asked = kj::str(service, ' ', caller);
    return ServiceRefusal{ServiceRefusal::Kind::DENIED, kj::str("not by me"), kj::str("rule-7")};
  };
  auto calls = stage.callsForVm("web1");
  auto called = stage.connect(calls, "echo");
  auto response = stage.wait(kj::mv(called.response));
  CHECK((response.getRefusal().getReason() == schema::Refusal::Reason::DENIED));
  CHECK((response.getRefusal().getRule() == "rule-7"));
  CHECK((asked == "echo vm:web1"));
  stage.planService = [&](kj::StringPtr, kj::StringPtr) {
    return ServiceRefusal{ServiceRefusal::Kind::NOT_EXPORTED, kj::str("no such service"), kj::String()};
  };
  CHECK((stage.refusalOf(calls, "echo") == "unsupported: no such service"));
  stage.planService = [&](kj::StringPtr, kj::StringPtr) {
    return ServiceRefusal{ServiceRefusal::Kind::BUSY, kj::str("enough"), kj::String()};
  };
  CHECK((stage.refusalOf(calls, "echo") == "busy: enough"));
}

// T98
TEST_CASE("an offer that breaks the rules of bulk channels ends the session, and reaches no target") {
  PlainTarget target;
  for (uint32_t number : {1u, 0u}) {
    ServiceStage stage(ALLOWED, kj::str("[service.echo]\ntarget = \"", target.address, "\"\n"));
    auto calls = stage.callsFor("alice");
    auto request = calls.connectRequest();
    request.setService("echo");
    request.setChannel(number);  // the guest's own are odd
    request.setCredit(65536);
    auto sent = request.send().ignoreResult().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr);
    CHECK((stage.wait(stage.guest->onEnd()).reason == EndReason::PROTOCOL_ERROR));
    stage.wait(kj::mv(sent));
  }
  CHECK_FALSE(target.hasConnection());
}

TEST_CASE("an offer above what the session has room for is busy, and the session goes on") {
  EchoTarget target;
  ServiceStage stage(ALLOWED, echoAt(target));
  auto calls = stage.callsFor("alice");
  auto full = test::openEveryChannel(*stage.guest);
  CHECK(stage.refusalOf(calls, "echo").startsWith("busy: "));
  full.clear();
  CHECK(stage.isOpen(*stage.reach(calls, "echo")));
}

TEST_CASE("services lists what is exported and granted to the caller, sorted, and refuses nobody") {
  EchoTarget target;
  ServiceStage stage(ALLOWED, echoAt(target));
  auto listed = [&](schema::GuestCalls::Client calls) {
    auto response = stage.wait(calls.servicesRequest().send());
    if (response.hasRefusal()) return kj::str(response.getRefusal().getReason());
    return kj::strArray(response.getServices(), " ");
  };
  CHECK((listed(stage.callsFor("alice")) == "echo other"));
  CHECK((listed(stage.callsForVm("web2")) == "echo"));
  CHECK((listed(stage.callsFor("mallory")) == ""));
  CHECK((listed(stage.callsFor("a:b")) == "denied"));
  stage.reload(ALLOWED, "");
  CHECK((listed(stage.callsFor("alice")) == ""));
}

// What the host has sent before it let go of the caller may still be on its way to the target.
TEST_CASE("a caller that goes leaves his open channels to come to their end, and a session takes its own") {
  EchoTarget target;
  ServiceStage stage(ALLOWED, echoAt(target));
  auto vm = stage.callsForVm("web1");
  auto stays = stage.reach(vm, "echo");
  kj::Own<BulkChannel> left;
  {
    auto calls = stage.callsFor("alice");
    left = stage.reach(calls, "echo");
  }
  stage.wait(stage.host->ping().ignoreResult());
  CHECK(stage.isOpen(*left));
  left->finish();
  CHECK(stage.endOf(*left) == BulkEnd::FINISHED);
  CHECK(stage.settlesAt(1));
  CHECK(stage.isOpen(*stays));
  stage.wait(stage.host->close(CloseCode::GOODBYE));
  CHECK(stage.settlesAt(0));
}

// T101
TEST_CASE("a reload resets what is forbidden, gone or leads elsewhere, and nothing else") {
  EchoTarget target, elsewhere;
  auto services = echoAt(target);
  ServiceStage stage(ALLOWED, services);
  auto alice = stage.callsFor("alice");
  auto vm = stage.callsForVm("web1");
  auto echo = stage.reach(alice, "echo");
  auto other = stage.reach(alice, "other");
  auto forVm = stage.reach(vm, "echo");

  // The same once more, with a rule that has nothing to do with them.
  stage.reload(kj::str(ALLOWED, "[[allow]]\nid = \"more\"\nfrom = \"user:bob\"\ncall = [\"service.echo\"]\n"),
               services);
  for (auto* one : {echo.get(), other.get(), forVm.get()}) CHECK(stage.isOpen(*one));

  stage.reload(R"(
[[allow]]
id = "web"
from = "user:alice"
call = ["service.echo", "service.other"]
[[allow]]
id = "vms"
from = "web2"
call = ["service.echo"]
)",
               services);
  CHECK(stage.endOf(*forVm) == BulkEnd::RESET);
  CHECK(stage.isOpen(*echo));
  CHECK(stage.isOpen(*other));

  auto moved = kj::str("[service.echo]\ntarget = \"", target.address, "\"\n[service.other]\ntarget = \"",
                       elsewhere.address, "\"\n");
  stage.reload(ALLOWED, moved);
  CHECK(stage.endOf(*other) == BulkEnd::RESET);
  CHECK(stage.isOpen(*echo));
  auto again = stage.reach(alice, "other");

  // The way to the same target counts, too.
  stage.reload(ALLOWED, kj::str("[service.echo]\nproxy = \"v2\"\ntarget = \"", target.address,
                                "\"\n[service.other]\ntarget = \"", elsewhere.address, "\"\n"));
  CHECK(stage.endOf(*echo) == BulkEnd::RESET);
  CHECK(stage.isOpen(*again));
  stage.reload(ALLOWED, "");
  CHECK(stage.endOf(*again) == BulkEnd::RESET);
  CHECK(stage.settlesAt(0));
}

// T101
TEST_CASE("a reload while the broker connects denies what it forbids") {
  PlainTarget target;
  ServiceStage stage(ALLOWED, kj::str("[service.echo]\ntarget = \"", target.address, "\"\n"));
  auto alice = stage.callsFor("alice");
  auto called = stage.connect(alice, "echo");
  // The agent knows of it as soon as it has asked the broker.
  for (int i = 0; i < 1000 && stage.channels.channels() == 0; ++i) stage.scope.poll();
  CHECK(stage.channels.channels() == 1);
  stage.reload("", "");
  auto response = stage.wait(kj::mv(called.response));
  CHECK((response.getRefusal().getReason() == schema::Refusal::Reason::DENIED));
  CHECK(stage.endOf(*called.channel) == BulkEnd::RESET);
  CHECK(stage.settlesAt(0));
}

// T103
TEST_CASE("a thousand channels are open at once, one caller has at most 1,024 and all have at most 2,048") {
  DescriptorLimit limit;
  if (!limit.set(8192)) return;
  PlainTarget target;  // its queue holds them
  ServiceStage stage("[[allow]]\nid = \"all\"\ncall = [\"service.*\"]\n",
                     kj::str("[service.echo]\ntarget = \"", target.address, "\"\n"));
  kj::Vector<kj::Own<BulkChannel>> open;
  kj::Vector<kj::AutoCloseFd> connections;
  auto openMany = [&](schema::GuestCalls::Client calls, size_t count) {
    kj::Vector<ServiceStage::Called> called;
    for (size_t i = 0; i < count; ++i) called.add(stage.connect(calls, "echo"));
    for (auto& one : called) {
      auto response = stage.wait(kj::mv(one.response));
      REQUIRE(!response.hasRefusal());
      open.add(kj::mv(one.channel));
      connections.add(target.accept());
    }
  };
  auto alice = stage.callsFor("alice");
  openMany(alice, MAX_CALLER_CHANNELS);
  CHECK(stage.refusalOf(alice, "echo").startsWith("busy: "));
  CHECK(stage.refusalOf(stage.callsFor("alice"), "echo").startsWith("busy: "));  // he is one caller
  auto bob = stage.callsFor("bob");
  openMany(bob, MAX_EXPORTED_CHANNELS - MAX_CALLER_CHANNELS);
  CHECK(stage.channels.channels() == MAX_EXPORTED_CHANNELS);
  CHECK(stage.refusalOf(stage.callsFor("carol"), "echo").startsWith("busy: "));
  REQUIRE(::send(connections[700], "x", 1, 0) == 1);
  size_t found = 0;
  for (size_t i = 690; i < 710; ++i) {
    auto reading = open[i]->read().eagerlyEvaluate(nullptr);
    stage.turn(5 * kj::MILLISECONDS);
    found += reading.poll(stage.scope) ? 1 : 0;
  }
  CHECK(found == 1);
  open[5] = nullptr;
  CHECK(stage.settlesAt(MAX_EXPORTED_CHANNELS - 1));
  openMany(stage.callsFor("carol"), 1);
}

}  // namespace
}  // namespace postern::guest::test
