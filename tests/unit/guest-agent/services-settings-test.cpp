#include "guest-agent/settings/services-settings.h"

#include <doctest/doctest.h>

#include <string>

#include "guest-agent/agent/guest-policy.h"

using namespace postern;
using namespace postern::guest;

namespace {

ServicesSettings settingsOf(kj::StringPtr text) {
  auto result = parseServicesSettings("agent.toml", text);
  KJ_IF_MAYBE (errors, result.tryGet<ServicesErrors>()) FAIL(errors->lines[0].cStr());
  return kj::mv(result.get<ServicesSettings>());
}

// All lines, or "no error".
std::string errorsOf(kj::StringPtr text) {
  auto result = parseServicesSettings("agent.toml", text);
  KJ_IF_MAYBE (errors, result.tryGet<ServicesErrors>()) return kj::strArray(errors->lines, "\n").cStr();
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// One consumer that is right but for this.
kj::String consumer(kj::StringPtr rest, kj::StringPtr listen = "tcp:127.0.0.1:5432") {
  return kj::str("[[consume]]\nlisten = \"", listen, "\"\nfrom = \"db1\"\nservice = \"postgres\"\n", rest);
}

}  // namespace

TEST_CASE("a file without services and consumers has none") {
  auto settings = settingsOf("policy = 1\n[agent]\nconnect = \"auto\"\n");
  CHECK(settings.services.empty());
  CHECK(settings.consumers.empty());
  CHECK((settings.find("http") == nullptr));
}

TEST_CASE("services and consumers are taken, beside settings and policy") {
  auto settings = settingsOf(R"(policy = 1
[service.http]
target = "tcp:127.0.0.1:80"
[service.shell]
target = ["/bin/sh", "-i"]
user = "nobody"
[[consume]]
listen = "unix:/run/db1.sock"
from = "db1"
service = "postgres"
mode = "0660"
[[consume]]
listen = "tcp:[::1]:8080"
from = "host"
service = "apt-cache"
)");
  CHECK(settings.services.size() == 2);
  CHECK(KJ_ASSERT_NONNULL(settings.find("http")).leadsTo.is<LocalAddress>());
  CHECK((KJ_ASSERT_NONNULL(KJ_ASSERT_NONNULL(settings.find("shell")).user) == "nobody"));
  REQUIRE(settings.consumers.size() == 2);
  CHECK((settings.consumers[0].from == "db1"));
  CHECK((settings.consumers[0].service == "postgres"));
  CHECK(settings.consumers[0].mode == 0660);
  CHECK((settings.consumers[1].from == "host"));
  CHECK((kj::str(settings.consumers[1].listen) == "tcp:[::1]:8080"));
  CHECK(settings.consumers[1].mode == DEFAULT_CONSUMER_MODE);
}

TEST_CASE("the guest's policy takes a file with services and consumers, and still no unknown table") {
  kj::StringPtr tables = "[service.http]\ntarget = \"tcp:127.0.0.1:80\"\n[[consume]]\nlisten = \"tcp:127.0.0.1:1\"\n";
  CHECK(GuestPolicy::parse("agent.toml", kj::str("policy = 1\n", tables)).is<kj::Own<const GuestPolicy>>());
  CHECK(GuestPolicy::parse("agent.toml", "policy = 1\n[services.http]\n").is<PolicyErrors>());
}

TEST_CASE("an unknown key of a consumer is named with its line and the nearest one that exists") {
  CHECK(errorsOf(consumer("servce = \"x\"\n")) ==
        "agent.toml:5: unknown key 'servce' in [[consume]]; did you mean 'service'?");
  CHECK(contains(errorsOf(consumer("zzzzzz = 1\n")), "agent.toml:5: unknown key 'zzzzzz' in [[consume]]"));
}

TEST_CASE("what a consumer lacks, and what is no address, name, service or mode, is told with its line") {
  auto missing = errorsOf("[[consume]]\nmode = \"0600\"\n");
  for (auto* key : {"listen", "from", "service"}) {
    CHECK(contains(missing, std::string("agent.toml:1: [[consume]] has no '") + key + "'"));
  }
  for (auto listen : {"telnet:1", "tcp:localhost", "tcp:example.com:80", "unix:run/x", "unix:", ""}) {
    CHECK(contains(errorsOf(consumer("", listen)), "agent.toml:2: 'listen' is no address: "));
  }
  CHECK(contains(errorsOf(consumer("", "tcp:127.0.0.1:0")), "agent.toml:2: 'listen' has port 0"));
  auto withFrom = [](kj::StringPtr from) {
    return errorsOf(kj::str("[[consume]]\nlisten = \"tcp:127.0.0.1:1\"\nfrom = ", from, "\nservice = \"x\"\n"));
  };
  CHECK(contains(withFrom("\"any\""), "agent.toml:3: 'from' is 'any'; it wants a VM's name, or 'host'"));
  CHECK(contains(withFrom("\"web 1\""), "agent.toml:3: 'from' is 'web 1'"));
  CHECK(contains(withFrom("\"\""), "agent.toml:3: 'from' is ''"));
  CHECK(contains(withFrom("5"), "agent.toml:3: 'from' in [[consume]] is a number"));
  CHECK(contains(errorsOf("[[consume]]\nlisten = \"tcp:127.0.0.1:1\"\nfrom = \"a\"\nservice = \"x.y\"\n"),
                 "agent.toml:4: 'service' is 'x.y'; it wants the name of a service"));
  for (auto* mode : {"0o660", "", "99", "0888", "7777", "06600", "-600"}) {
    CHECK(contains(errorsOf(consumer(kj::str("mode = \"", mode, "\"\n"), "unix:/run/x.sock")),
                   "agent.toml:5: 'mode' is '"));
  }
  CHECK(contains(errorsOf(consumer("mode = 600\n", "unix:/run/x.sock")), "agent.toml:5: 'mode' in [[consume]] is"));
  CHECK(contains(errorsOf(consumer("mode = \"0600\"\n")), "agent.toml:5: 'mode' is of a Unix socket's file"));
  CHECK(contains(errorsOf(consumer("mode = \"0600\"\n", "unix:@abstract")), "'mode' is of a Unix socket's file"));
}

TEST_CASE("two consumers of one address are refused, however the address is written") {
  for (auto second : {"tcp:127.0.0.1:5432", "tcp:localhost:5432"}) {
    auto error = errorsOf(kj::str(consumer(""), consumer("", second)));
    CHECK(contains(error, "agent.toml:6: 'listen' is tcp:127.0.0.1:5432, where the [[consume]] of line 2 listens"));
  }
  CHECK(contains(errorsOf(kj::str(consumer("", "unix:/run/a"), consumer("", "unix:/run/a"))), "of line 2 listens"));
  CHECK(errorsOf(kj::str(consumer(""), consumer("", "tcp:127.0.0.2:5432"), consumer("", "tcp:[::1]:5432"),
                         consumer("", "tcp:127.0.0.1:5433"), consumer("", "unix:/run/a"),
                         consumer("", "unix:@/run/a"))) == "no error");
}

TEST_CASE("there are at most 64 consumers and 256 services") {
  kj::Vector<kj::String> consumers, services;
  for (unsigned i = 1; i <= 65; ++i) consumers.add(consumer("", kj::str("tcp:127.0.0.1:", i)));
  for (unsigned i = 1; i <= 257; ++i) services.add(kj::str("[service.s", i, "]\ntarget = \"tcp:127.0.0.1:80\"\n"));
  CHECK(contains(errorsOf(kj::strArray(consumers, "")), "agent.toml:257: more than 64 of [[consume]]"));
  CHECK(contains(errorsOf(kj::strArray(services, "")), "256"));
  consumers.removeLast();
  services.removeLast();
  auto settings = settingsOf(kj::str(kj::strArray(services, ""), kj::strArray(consumers, "")));
  CHECK(settings.consumers.size() == MAX_CONSUMERS);
  CHECK(settings.services.size() == MAX_SERVICES);
}

TEST_CASE("errors of services and of consumers are all told, with the file's name") {
  auto errors = errorsOf(kj::str("[service.http]\ntarget = \"tcp:x\"\n[service.shell]\ntarge = \"unix:/x\"\n",
                                 consumer("mode = \"9\"\n", "unix:/run/x.sock"), "[[consume]]\n"));
  CHECK(contains(errors, "agent.toml:2: "));
  CHECK(contains(errors, "agent.toml:4: "));
  CHECK(contains(errors, "agent.toml:9: "));
  CHECK(contains(errors, "agent.toml:10: "));
}

TEST_CASE("tables that are something else, and what is not TOML, are told and never thrown") {
  CHECK(contains(errorsOf("consume = 5\n"), "agent.toml:1: 'consume' in agent.toml is a number"));
  CHECK(contains(errorsOf("[consume]\nlisten = \"x\"\n"), "[[consume]]"));
  CHECK(contains(errorsOf("service = 5\n"), "agent.toml:1: "));
  CHECK(contains(errorsOf("[service.\n"), "agent.toml:1: "));
  std::string text = kj::str("[service.http]\ntarget = [\"/bin/x\"]\nuser = \"a\"\n", consumer("")).cStr();
  for (size_t i = 0; i < text.size(); ++i) {
    for (char c : {'\0', '\xff', '[', '"', '=', '1'}) {
      auto spoiled = text;
      spoiled[i] = c;
      parseServicesSettings("agent.toml", kj::arrayPtr(spoiled.data(), spoiled.size()));
      parseServicesSettings("agent.toml", kj::arrayPtr(spoiled.data(), i));
    }
  }
}
