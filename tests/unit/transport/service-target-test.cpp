#include "transport/service/service-target.h"

#include <doctest/doctest.h>

#include <string>

namespace postern {
namespace {

struct Reading {
  kj::Vector<ServiceTarget> services;
  kj::Vector<kj::String> problems;
};

Reading read(kj::StringPtr text) {
  auto parsed = policy::parseToml(text);
  KJ_IF_MAYBE (error, parsed.tryGet<policy::TomlError>()) FAIL(error->text.cStr());
  Reading reading;
  for (auto& entry : parsed.get<policy::TomlTable>().entries) {
    if (entry.key == "service") reading.services = readServices(entry, reading.problems);
  }
  return reading;
}

kj::Vector<ServiceTarget> services(kj::StringPtr text) {
  auto reading = read(text);
  for (auto& problem : reading.problems) FAIL(problem.cStr());
  return kj::mv(reading.services);
}

std::string problemOf(kj::StringPtr text) {
  auto reading = read(text);
  REQUIRE(reading.problems.size() == 1);
  return reading.problems[0].cStr();
}

TEST_CASE("services of each kind are read, by name") {
  auto found = services(R"(
[service.web_1]
target = "tcp:[::1]:80"
proxy = "v2"

[service.app]
target = "unix:/run/app.sock"
user = "www-data"

[service]
ssh = { target = ["/usr/sbin/sshd", "-i", ""], user = "root" }
)");
  REQUIRE(found.size() == 3);
  CHECK(found[0].name == "app");
  CHECK(kj::str(found[0].leadsTo.get<LocalAddress>()) == "unix:/run/app.sock");
  CHECK(KJ_REQUIRE_NONNULL(found[0].user) == "www-data");
  CHECK_FALSE(found[0].proxy);
  CHECK(found[1].name == "ssh");
  CHECK(kj::strArray(found[1].leadsTo.get<ServiceProgram>().argv, "|") == "/usr/sbin/sshd|-i|");
  CHECK(found[2].name == "web_1");
  CHECK(found[2].proxy);
  CHECK(found[2].user == nullptr);
}

// T96
TEST_CASE("what is wrong with a service is told with its line, and what to write") {
  struct {
    kj::StringPtr text;
    const char* problem;
  } bad[] = {
      {"service = 1", "1: 'service' is a number; write [service.NAME], a table for each"},
      {"[service]\nhttp = \"tcp:127.0.0.1:80\"", "2: 'service.http' is a text; write it as [service.http]"},
      {"[service.http]\n",
       "1: [service.http] has no target; write target = \"tcp:127.0.0.1:80\", \"unix:/run/app.sock\" "
       "or a program, [\"/path\", \"argument\"]"},
      {"[service.\"a.b\"]\ntarget = \"unix:/x\"",
       "1: 'a.b' is no service's name: 1 to 64 letters, digits, '-' and '_', beginning with a letter or digit"},
      {"[service.http]\ntarget = 80",
       "2: 'target' in [service.http] is a number; write \"tcp:127.0.0.1:80\", "
       "\"unix:/run/app.sock\" or a program, [\"/path\", \"argument\"]"},
      {"[service.http]\ntarget = \"tcp:web:80\"",
       "2: 'target' in [service.http]: 'web' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no "
       "names "
       "are looked up"},
      {"[service.http]\ntarget = \"tcp:127.0.0.1:0\"",
       "2: 'target' in [service.http] has port 0, where nobody listens"},
      {"[service.a]\ntarget = \"unix:/x\"\n[service.http]\ntarget = [\"/bin/x\"]",
       "3: [service.http] does not say as whom its program runs; write user = \"nobody\", or who is right for it; "
       "\"root\" only if it has to be"},
      {"[service.http]\ntarget = []",
       "2: 'target' in [service.http] wants the program's whole path first, as in "
       "[\"/usr/sbin/sshd\", \"-i\"]"},
      {"[service.http]\ntarget = [\"sshd\"]",
       "2: 'target' in [service.http] wants the program's whole path first, as in "
       "[\"/usr/sbin/sshd\", \"-i\"]"},
      {"[service.http]\ntarget = [\"/bin/x\", 1]",
       "2: 'target' in [service.http] has a number among its arguments; write each as a text in quotes"},
      {"[service.http]\ntarget = [\"/bin/x\", \"a\\u0000b\"]", "2: an argument in [service.http] has a NUL"},
      {"[service.http]\ntraget = \"unix:/x\"\ntarget = \"unix:/x\"",
       "2: unknown key 'traget' in [service.http]; did you mean 'target'?"},
      {"[service.http]\ntarget = \"unix:/x\"\nusr = \"x\"",
       "3: unknown key 'usr' in [service.http]; did you mean 'user'?"},
      {"[service.http]\ntarget = \"unix:/x\"\nlisten = \"x\"",
       "3: unknown key 'listen' in [service.http]; there are target, user, proxy"},
      {"[service.http]\ntarget = \"unix:/x\"\nuser = 3",
       "3: 'user' in [service.http] is a number; write a text in "
       "quotes"},
      {"[service.http]\ntarget = \"unix:/x\"\nuser = \"a/b\"",
       "3: 'user' in [service.http] is 'a/b', which is no user's name"},
      {"[service.http]\ntarget = \"tcp:127.0.0.1:1\"\nuser = \"www\"",
       "3: 'user' in [service.http] means nothing to a TCP target, which does not see it; remove it"},
      {"[service.http]\ntarget = \"unix:/x\"\nproxy = \"v1\"",
       "3: 'proxy' in [service.http] is 'v1'; write \"v2\" or leave it out"},
      {"[service.http]\ntarget = \"unix:/x\"\nproxy = true",
       "3: 'proxy' in [service.http] is true or false; write a text in "
       "quotes"},
      {"[service.http]\nuser = \"a\"\ntarget = [\"/x\"]\nproxy = \"v2\"",
       "4: 'proxy' in [service.http] is for sockets; a program finds who connects in POSTERN_PEER"},
  };
  for (auto& one : bad) CHECK(problemOf(one.text) == one.problem);
}

TEST_CASE("several mistakes are told in the order of their lines") {
  auto reading = read("[service.b]\ntarget = 1\nproxy = \"v3\"\n[service.a]\n");
  REQUIRE(reading.problems.size() == 3);
  CHECK(reading.problems[0].startsWith("2: "));
  CHECK(reading.problems[1].startsWith("3: "));
  CHECK(reading.problems[2].startsWith("4: "));
}

// T96
TEST_CASE("there is room for so many services and arguments, and for no more") {
  kj::Vector<kj::String> lines, arguments;
  for (size_t i = 0; i < MAX_SERVICES; ++i) lines.add(kj::str("[service.s", i, "]\ntarget = \"unix:/x\"\n"));
  CHECK(services(kj::strArray(lines, "")).size() == MAX_SERVICES);
  lines.add(kj::str("[service.more]\ntarget = \"unix:/x\"\n"));
  CHECK(problemOf(kj::strArray(lines, "")).find("257 services; there is room for 256") != std::string::npos);

  for (size_t i = 0; i < MAX_SERVICE_ARGUMENTS; ++i) arguments.add(kj::str("\"/x\""));
  CHECK(services(kj::str("[service.x]\nuser = \"a\"\ntarget = [", kj::strArray(arguments, ", "), "]")).size() == 1);
  arguments.add(kj::str("\"/x\""));
  CHECK(problemOf(kj::str("[service.x]\ntarget = [", kj::strArray(arguments, ", "), "]")) ==
        "2: 'target' in [service.x] has 65 arguments; there is room for 64");
}

TEST_CASE("the PROXY header says who connects to what, byte for byte") {
  auto header = proxyHeader("vm:web1", "http");
  const char expected[] =
      "\r\n\r\n\0\r\nQUIT\n"
      "\x21\x00\x00\x11"
      "\xe0\x00\x07vm:web1"
      "\xe1\x00\x04http";
  CHECK((header == kj::arrayPtr(reinterpret_cast<const kj::byte*>(expected), sizeof(expected) - 1)));
}

}  // namespace
}  // namespace postern
