#include "protocol/policy/below.h"

#include <algorithm>

#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

bool matchesBelow(kj::StringPtr pattern, kj::StringPtr path) {
  return PathGlob::parse(pattern).get<PathGlob>().matchesBelow(path);
}

TEST_CASE("a pattern matches below a path if any path that lies there matches it") {
  CHECK(matchesBelow("/srv/www/**", "/srv/www"));
  CHECK(matchesBelow("/srv/www/**", "/srv"));
  CHECK(matchesBelow("/srv/www/**", "/"));
  CHECK(matchesBelow("/srv/www/**", "/srv/www/a/b"));
  CHECK_FALSE(matchesBelow("/srv/www/**", "/srv/w"));
  CHECK_FALSE(matchesBelow("/srv/www/**", "/etc"));
  CHECK(matchesBelow("/srv/*/log", "/srv/a"));
  CHECK_FALSE(matchesBelow("/srv/*/log", "/srv/a/log"));
  CHECK_FALSE(matchesBelow("/srv/*/log", "/srv/a/b"));
  CHECK(matchesBelow("/**/*.key", "/any/where"));
  CHECK(matchesBelow("/home/**/public", "/home/a/b/public"));
  CHECK_FALSE(matchesBelow("/etc/hosts", "/etc/hosts"));
  CHECK(matchesBelow("/etc/hosts", "/etc"));
  CHECK_FALSE(matchesBelow("/", "/"));
}

// By trying all there is.
TEST_CASE("what matches below a path is what matches one of the paths that lie there") {
  const char* names[] = {"a", "ab", "b"};
  std::vector<std::string> paths = {"/"};
  for (auto x : names) {
    paths.push_back(std::string("/") + x);
    for (auto y : names) {
      paths.push_back(std::string("/") + x + "/" + y);
      for (auto z : names) paths.push_back(std::string("/") + x + "/" + y + "/" + z);
    }
  }
  for (auto pattern : {"/a", "/a/**", "/*/b", "/?/ab", "/a/*", "/**", "/**/b", "/a*/**/b", "/b/ab/a", "/ab/b"}) {
    auto parsed = PathGlob::parse(pattern);
    auto& glob = parsed.get<PathGlob>();
    for (auto& path : paths) {
      if (std::count(path.begin(), path.end(), '/') > 2) continue;  // below it there is none here
      bool expected = false;
      auto folder = path == "/" ? path : path + "/";
      for (auto& other : paths) {
        expected |= other.size() > folder.size() && other.rfind(folder, 0) == 0 && glob.matches(other.c_str());
      }
      CHECK_MESSAGE(glob.matchesBelow(path.c_str()) == expected, pattern, " below ", path);
    }
  }
}

bool below(const Policy& policy, const Who& from, const Who& to, kj::StringPtr call, kj::StringPtr path,
           int64_t now = 0) {
  Request request{from.caller(), to.asVm(), call, path, kj::UNIX_EPOCH + now * kj::SECONDS};
  return allowsBelow(policy, request);
}

TEST_CASE("a policy allows below a path what a rule for this caller, VM and call reaches there") {
  auto policy = hostPolicy(R"([[allow]]
id = "www"
from = "user:alice"
to = "web1"
call = ["file.put", "file.list"]
args = { path = "/srv/www/**" }
[[allow]]
id = "past"
from = "user:alice"
to = "web1"
call = "file.put"
args = { path = "/old/**" }
expires = 1970-01-01T00:01:40Z
[[allow]]
id = "everywhere"
from = "user:root"
to = "web1"
call = "file.get"
[[deny]]
id = "no"
from = "host"
to = "any"
call = "file.*"
args = { path = "/denied/**" }
)");
  auto alice = Who::user("alice"), root = Who::user("root"), web1 = Who::vm("web1"), web2 = Who::vm("web2");
  CHECK(below(*policy, alice, web1, "file.put", "/srv"));
  CHECK(below(*policy, alice, web1, "file.list", "/srv/www"));
  CHECK_FALSE(below(*policy, alice, web1, "file.get", "/srv"));
  CHECK_FALSE(below(*policy, alice, web2, "file.put", "/srv"));
  CHECK_FALSE(below(*policy, root, web1, "file.put", "/srv"));
  CHECK_FALSE(below(*policy, alice, web1, "file.put", "/etc"));
  CHECK_FALSE(below(*policy, alice, web1, "file.put", "/denied"));
  CHECK(below(*policy, root, web1, "file.get", "/anything"));
  CHECK(below(*policy, alice, web1, "file.put", "/old", 99));
  CHECK_FALSE(below(*policy, alice, web1, "file.put", "/old", 100));
}

}  // namespace
}  // namespace postern::policy
