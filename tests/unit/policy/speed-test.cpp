// That a verdict costs about the same with a thousand rules as with ten. The figure itself is postern-bench's.
#include <time.h>

#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

double microsecondsEach(const Policy& policy, const Request& asked, int times) {
  timespec begin, end;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  size_t allowed = 0;
  for (int i = 0; i < times; ++i) allowed += policy.decide(asked).isAllowed();
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  CHECK(allowed == size_t(times));
  return (double(end.tv_sec - begin.tv_sec) * 1e9 + double(end.tv_nsec - begin.tv_nsec)) / 1e3 / times;
}

void check(const std::string& what, const std::string& rules, const Request& asked) {
  auto policy = hostPolicy(rules);
  double each = microsecondsEach(*policy, asked, 2000);
  MESSAGE(what, ": ", each, " us a verdict");
  CHECK(each < 500);
}

TEST_CASE("a verdict among a thousand rules is quick, whether they are alike or not") {
  auto alice = Who::user("alice", {"users", "ops", "dev"}), vm = Who::vm("vm999", {"prod", "web"});
  std::string each, same, paths, groups = "[groups]\n";
  for (int i = 0; i < 1000; ++i) {
    auto n = std::to_string(i);
    each +=
        "[[allow]]\nid = \"r" + n + "\"\nfrom = \"user:alice\"\nto = \"vm" + n + "\"\ncall = [\"ping\", \"power.*\"]\n";
    same += "[[allow]]\nid = \"r" + n + "\"\nfrom = \"@ops\"\nto = \"any\"\ncall = \"*\"\n";
    paths += "[[allow]]\nid = \"r" + n +
             "\"\nfrom = \"@ops\"\nto = \"any\"\ncall = \"file.*\"\nargs = { path = \"/srv/site" + n + "/**\" }\n";
    groups += "g" + n + " = [\"@g" + std::to_string(i + 1) + "\"]\n";
  }
  std::string ops = "[groups]\nops = [\"group:ops\"]\n";
  check("a rule for each VM", each, request(alice.caller(), vm.asVm(), "power.restart"));
  check("a thousand rules that all match", ops + same, request(alice.caller(), vm.asVm(), "ping"));
  check("a thousand globs on one call", ops + paths,
        request(alice.caller(), vm.asVm(), "file.get", "/srv/site999/a/b/c"_kj));
  check("a thousand groups in each other",
        groups + "g1000 = [\"user:alice\"]\n[[allow]]\nid = \"r\"\nfrom = \"@g0\"\nto = \"any\"\ncall = \"ping\"\n",
        request(alice.caller(), vm.asVm(), "ping"));
}

}  // namespace
}  // namespace postern::policy
