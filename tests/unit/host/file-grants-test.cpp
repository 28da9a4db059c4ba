#include "host/daemon/file-grants.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "host/daemon/operation-report.h"
#include "protocol/policy/load.h"
#include "protocol/transfer/path-scope.h"

namespace postern::host {
namespace {

constexpr const char* RULES = R"(policy = 1
[[allow]]
id = "www"
from = "user:alice"
to = "web1"
call = ["file.put", "file.list"]
args = { path = "/srv/www/**" }
limit = { rate = "1 MiB/s", burst = "64 KiB", open = 2 }
[[allow]]
id = "logs"
from = "user:alice"
to = "web1"
call = "file.get"
args = { path = ["/var/log", "/var/log/**"] }
[[deny]]
id = "keys"
from = "host"
to = "any"
call = "file.*"
args = { path = ["/**/*.key", "/srv/www/secret"] }
)";

kj::Own<const policy::Policy> load(const std::string& text, int64_t now = 0) {
  policy::SourceText source{"p.toml", kj::arrayPtr(text.data(), text.size())};
  auto result = policy::load(kj::arrayPtr(&source, 1), {policy::Side::HOST, kj::UNIX_EPOCH + now * kj::SECONDS});
  KJ_IF_MAYBE (problems, result.tryGet<kj::Array<policy::Problem>>())
    FAIL(std::string((*problems)[0].toString().cStr()));
  return kj::mv(result.get<policy::Loaded>().policy);
}

policy::Request request(kj::StringPtr call, kj::StringPtr path, kj::StringPtr user = "alice", kj::StringPtr vm = "web1",
                        int64_t now = 0) {
  return {policy::HostCaller{user, nullptr}, policy::Vm{vm, nullptr}, call, path, kj::UNIX_EPOCH + now * kj::SECONDS};
}

kj::Array<const capnp::word> grants(const policy::Policy& policy, std::vector<const char*> calls, kj::StringPtr path,
                                    int64_t now = 0) {
  kj::Vector<kj::String> asked;
  for (auto call : calls) asked.add(kj::str(call));
  return fileGrants(policy, request("", path, "alice", "web1", now), asked);
}

TEST_CASE("a path that a rule allows is granted, and one that a rule denies or none is about is not") {
  auto policy = load(RULES);
  auto decided = decideFile(*policy, request("file.put", "/srv/www/a"));
  CHECK(decided.isGranted());
  CHECK_FALSE(decided.below);
  CHECK((decided.decision.ruleId() == "www"));
  for (auto path : {"/srv/www/a.key", "/srv/www/secret", "/etc/passwd"}) {
    CHECK_FALSE(decideFile(*policy, request("file.put", path)).isGranted());
  }
  CHECK_FALSE(decideFile(*policy, request("file.put", "/srv/www/a", "eve")).isGranted());
  CHECK_FALSE(decideFile(*policy, request("file.put", "/srv/www/a", "alice", "web2")).isGranted());
}

// T79
TEST_CASE("put, get and list are granted for what lies below a path that no rule is about") {
  auto policy = load(RULES);
  for (auto path : {"/srv/www", "/srv", "/"}) {
    CHECK(decideFile(*policy, request("file.put", path)).below);
    CHECK(decideFile(*policy, request("file.list", path)).below);
    CHECK_FALSE(decideFile(*policy, request("file.stat", path)).isGranted());
    CHECK_FALSE(decideFile(*policy, request("file.mkdir", path)).isGranted());
    CHECK_FALSE(decideFile(*policy, request("file.remove", path)).isGranted());
  }
  CHECK_FALSE(decideFile(*policy, request("file.get", "/srv")).isGranted());
  CHECK(decideFile(*policy, request("file.get", "/var")).below);
  // A deny of the path itself is one, whatever lies below it.
  CHECK_FALSE(decideFile(*policy, request("file.put", "/srv/www/secret")).isGranted());
  auto blocked = load(std::string(RULES) + "[port.web1]\nblocked = true\n");
  CHECK_FALSE(decideFile(*blocked, request("file.put", "/srv")).isGranted());
}

TEST_CASE("other calls are decided as ever") {
  auto policy = load(std::string(RULES) + R"(
[[allow]]
id = "ping"
from = "user:alice"
to = "web1"
call = "ping"
)");
  policy::Request ping = request("ping", "");
  ping.path = nullptr;
  CHECK(decideFile(*policy, ping).isGranted());
  CHECK(isFileCall("file.get"));
  CHECK_FALSE(isFileCall("file.*"));
  CHECK_FALSE(isFileCall("file.other"));
  CHECK_FALSE(isFileCall("ping"));
}

TEST_CASE("a session gets, for each file call, the scope of its rules and their limits") {
  auto policy = load(RULES);
  auto files = grants(*policy, {"file.put", "ping", "file.get"}, "/srv/www/a");
  capnp::MallocMessageBuilder message;
  auto grant = message.initRoot<schema::Grant>();
  setFileGrants(grant, files, *policy);
  REQUIRE(grant.getFiles().size() == 2);
  auto put = grant.getFiles()[0], get = grant.getFiles()[1];
  CHECK((put.getCall() == "file.put"));
  REQUIRE(put.getLimits().size() == 1);
  CHECK((put.getLimits()[0].getRule() == "www"));
  CHECK(put.getLimits()[0].getRate() == 1 << 20);
  CHECK(put.getLimits()[0].getBurst() == 64 << 10);
  CHECK(put.getLimits()[0].getOpen() == 2);
  CHECK(get.getLimits().size() == 0);
  kj::Vector<kj::String> rules;
  forEachRule(files, [&](kj::StringPtr rule) { rules.add(kj::str(rule)); });
  CHECK((kj::strArray(rules, " ") == "www logs"));
  auto parsed = transfer::PathScope::parse(put.getScope().asReader());
  auto& scope = parsed.get<transfer::PathScope>();
  CHECK(scope.decide("/srv/www/b"_kj.asArray()).allowed);
  CHECK_FALSE(scope.decide("/srv/www/b.key"_kj.asArray()).allowed);
  CHECK_FALSE(scope.decide("/var/log/x"_kj.asArray()).allowed);
  CHECK(grants(*policy, {"ping"}, "/x").size() == 0);
  CHECK_FALSE(allowsSpecial(files, "file.get"));
  auto special = grants(*load(R"(policy = 1
[[allow]]
id = "s"
from = "user:alice"
to = "web1"
call = "file.get"
args = { path = "/srv/**", special = true }
)"),
                        {"file.get"}, "/srv/a");
  CHECK(allowsSpecial(special, "file.get"));
  CHECK_FALSE(allowsSpecial(special, "file.put"));
  CHECK_FALSE(allowsSpecial(nullptr, "file.get"));
}

// T79
TEST_CASE("what a session decides by is the same bytes as long as the rules for it are, and others when they are not") {
  auto before = grants(*load(RULES), {"file.put"}, "/srv/www");
  auto same = [&](const std::string& text, int64_t now = 0) {
    auto after = grants(*load(text, now), {"file.put"}, "/srv/www", now);
    return before.asBytes() == after.asBytes();
  };
  auto changed = [](const std::string& from, const std::string& to) {
    std::string text = RULES;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  CHECK(same(RULES));
  CHECK(same(std::string("# a comment\n") + RULES));
  // About another caller, VM or call.
  CHECK(same(std::string(RULES) + "[[allow]]\nid = \"x\"\nfrom = \"user:eve\"\nto = \"web1\"\ncall = \"file.put\"\n"));
  CHECK(same(std::string(RULES) + "[[deny]]\nid = \"x\"\nfrom = \"user:alice\"\nto = \"web2\"\ncall = \"file.put\"\n"));
  CHECK(same(changed("/var/log/**", "/var/**")));
  CHECK_FALSE(same(changed("/srv/www/**", "/srv/ww?/**")));
  CHECK_FALSE(same(changed("/srv/www/secret", "/srv/www/secrets")));
  // Numbers follow a reload, and cut nothing.
  CHECK(same(changed("1 MiB/s", "2 MiB/s")));
  CHECK(same(changed("open = 2", "open = 3")));
  CHECK(same(std::string(RULES) + "[port.web1]\nopen = 5\n"));
  CHECK_FALSE(same(std::string(RULES) + "[port.web1]\nblocked = true\n"));
  CHECK_FALSE(
      same(std::string(RULES) +
           "[[deny]]\nid = \"x\"\nfrom = \"host\"\nto = \"any\"\ncall = \"file.*\"\nargs = { path = \"/x\" }\n"));
}

TEST_CASE("a rule that expires is no longer part of what a session decides by") {
  auto text = std::string(RULES) + R"([[allow]]
id = "x"
from = "user:alice"
to = "web1"
call = "file.put"
args = { path = "/x/**" }
expires = 1970-01-01T00:01:40Z
)";
  auto policy = load(text);
  auto at0 = grants(*policy, {"file.put"}, "/srv/www", 0), at99 = grants(*policy, {"file.put"}, "/srv/www", 99),
       at100 = grants(*policy, {"file.put"}, "/srv/www", 100);
  CHECK(at0.asBytes() == at99.asBytes());
  CHECK_FALSE(at0.asBytes() == at100.asBytes());
}

// OperationReport --------------------------------------------------------------------------------------------------

using Params = schema::SessionObserver::OperationParams;

std::string lineOf(const OperationReport& report) {
  AuditFields fields(report);
  auto event = fields.event();
  event.who = "user:alice";
  return formatLine(event, LinePlace()).cStr();
}
bool says(const std::string& text, const std::string& part) {
  bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

TEST_CASE("a copy's line says its path, what came of it, how many files, and what travelled") {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Params>();
  params.setCall("file.put");
  params.setOutcome("incomplete");
  params.setMicroseconds(5000);
  params.setBytes(300);
  auto files = params.initFiles();
  files.setPath("/srv/w\"w\n"_kj.asBytes());
  files.setFiles(12);
  files.setDirectories(3);
  files.setSentBytes(200);
  files.setFailures(1);
  files.setLeftOut(4);
  auto line = lineOf(parseOperationReport(params.asReader()));
  CHECK(says(line, R"("call":"file.put","outcome":"incomplete","bytes":300,"duration-us":5000)"));
  CHECK(says(line, R"("path":"/srv/w\"w\u000a","files":12,"directories":3,"sent-bytes":200,"failures":1)"));
  CHECK(says(line, R"("lines-left-out":4)"));
  CHECK_FALSE(line.find("\"hash\"") != std::string::npos);
  CHECK((parseLine(kj::arrayPtr(line.data(), line.size() - 1)) != nullptr));
}

TEST_CASE("a single file's line says its path, its size and its hash, and not what the whole copy came to") {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Params>();
  params.setCall("file.get");
  params.setOutcome("done");
  params.setBytes(7);
  auto files = params.initFiles();
  files.setPath("/srv"_kj.asBytes());
  files.setEntry("/srv/a"_kj.asBytes());
  kj::byte hash[32] = {0xab};
  files.setHash(kj::arrayPtr(hash, 32));
  auto line = lineOf(parseOperationReport(params.asReader()));
  CHECK(says(line, R"("outcome":"done","bytes":7,"path":"/srv","entry":"/srv/a","hash":"ab0000)"));
  CHECK_FALSE(line.find("duration") != std::string::npos);
  CHECK_FALSE(line.find("\"files\"") != std::string::npos);
}

// T52
TEST_CASE("whatever a session claims of an operation, its line stays within the bounds of a line") {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<Params>();
  params.setCall(std::string(10'000, 'c').c_str());
  params.setOutcome("\x1b[31m\n\"");
  params.setMicroseconds(UINT64_MAX);
  params.setBytes(UINT64_MAX);
  auto files = params.initFiles();
  auto path = kj::heapArray<kj::byte>(100'000);
  for (size_t i = 0; i < path.size(); ++i) path[i] = static_cast<kj::byte>(i);
  files.setPath(path);
  files.setEntry(path);
  files.setFiles(UINT64_MAX);
  files.setHash(path);
  auto report = parseOperationReport(params.asReader());
  auto line = lineOf(report);
  CHECK(line.size() <= MAX_LINE_BYTES);
  for (char c : line.substr(0, line.size() - 1)) CHECK((c >= ' ' && c <= '~'));
  CHECK_FALSE(line.find("\"hash\"") != std::string::npos);
  CHECK((parseLine(kj::arrayPtr(line.data(), line.size() - 1)) != nullptr));
  params.initFiles().setFailures(UINT64_MAX);
  line = lineOf(parseOperationReport(params.asReader()));
  CHECK(says(line, "\"failures\":4611686018427387904"));
}

}  // namespace
}  // namespace postern::host
