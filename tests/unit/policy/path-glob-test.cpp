#include "protocol/policy/path-glob.h"

#include <doctest/doctest.h>
#include <time.h>

#include <string>

namespace postern::policy {
namespace {

bool matches(const std::string& glob, const std::string& path) {
  auto parsed = PathGlob::parse(glob.c_str());
  KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) FAIL(wrong->cStr());
  return isCanonicalPath(kj::arrayPtr(path.data(), path.size())) && parsed.get<PathGlob>().matches(path.c_str());
}

std::string refused(const std::string& glob) {
  auto parsed = PathGlob::parse(kj::StringPtr(glob.c_str(), glob.size()));
  KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) return wrong->cStr();
  return "";
}

TEST_CASE("a star stays within its component, and two stars cross components") {
  CHECK(matches("/srv/*.html", "/srv/a.html"));
  CHECK(matches("/srv/*.html", "/srv/.html"));
  CHECK_FALSE(matches("/srv/*.html", "/srv/a/b.html"));
  CHECK_FALSE(matches("/srv/*.html", "/srv/a.htm"));
  CHECK(matches("/*", "/a"));
  CHECK_FALSE(matches("/*", "/a/b"));
  CHECK_FALSE(matches("/*", "/"));
  CHECK(matches("/srv/*a*b*", "/srv/xxaxxbxx"));
  CHECK_FALSE(matches("/srv/*a*b*", "/srv/xxbxxaxx"));
  CHECK(matches("/srv/*", "/srv/.hidden"));
  CHECK(matches("/srv/**", "/srv/a"));
  CHECK(matches("/srv/**", "/srv/a/b/c"));
  CHECK_FALSE(matches("/srv/**", "/srvx/a"));
  CHECK(matches("/**", "/a/b"));
  CHECK_FALSE(matches("/**", "/"));
  CHECK(matches("/home/**/public/*", "/home/public/x"));
  CHECK(matches("/home/**/public/*", "/home/a/b/public/x"));
  CHECK_FALSE(matches("/home/**/public/*", "/home/a/b/public"));
  CHECK_FALSE(matches("/home/**/public/*", "/home/a/b/public/x/y"));
  CHECK(matches("/a/**/**/z", "/a/z"));
  CHECK(matches("/**/b/**/d", "/b/b/c/b/d"));
}

TEST_CASE("what lies below a folder does not include the folder") {
  CHECK_FALSE(matches("/srv/**", "/srv"));
  CHECK(matches("/srv", "/srv"));
  CHECK(matches("/", "/"));
  CHECK_FALSE(matches("/", "/a"));
}

TEST_CASE("a question mark is one character, also of several bytes") {
  CHECK(matches("/disk?", "/disk1"));
  CHECK(matches("/disk?", "/disk\xc3\xa9"));
  CHECK(matches("/caf?/x", "/caf\xf0\x9f\x98\x80/x"));
  CHECK_FALSE(matches("/disk?", "/disk"));
  CHECK_FALSE(matches("/disk?", "/disk12"));
  CHECK_FALSE(matches("/a?b", "/a/b"));
  CHECK(matches("/disk?", "/disk\xff"));
  CHECK(matches("/disk??", "/disk\xff\xfe"));
}

// T49
TEST_CASE("no spelling of a path but the canonical one is a path") {
  for (auto good : {"/", "/a", "/a/b", "/...", "/.a", "/a..", "/..a/b", "/a b", "/a\nb", "/\xff"}) {
    CHECK(isCanonicalPath(kj::StringPtr(good)));
  }
  for (auto bad :
       {"", "a", "a/b", "./a", "//", "//a", "/a//b", "/a/", "/.", "/..", "/a/.", "/a/..", "/../a", "/a/../b", "/./a"}) {
    INFO(bad);
    CHECK_FALSE(isCanonicalPath(kj::StringPtr(bad)));
    CHECK_FALSE(matches("/**", bad));
  }
  CHECK_FALSE(isCanonicalPath(kj::StringPtr("/a\0b", 4)));
  CHECK(isCanonicalPath(kj::StringPtr(("/" + std::string(255, 'a')).c_str())));
  CHECK_FALSE(isCanonicalPath(kj::StringPtr(("/" + std::string(256, 'a')).c_str())));
  std::string longest;
  while (longest.size() < 4095) longest += "/abcd";
  CHECK(longest.size() == 4095);
  CHECK(isCanonicalPath(kj::StringPtr(longest.c_str())));
  CHECK_FALSE(isCanonicalPath(kj::StringPtr((longest + "e").c_str())));
}

TEST_CASE("a bad pattern says what to write instead") {
  auto says = [](const std::string& glob, const std::string& part) {
    INFO(refused(glob));
    return refused(glob).find(part) != std::string::npos;
  };
  CHECK(says("", "is relative"));
  CHECK(says("srv/**", "is relative"));
  CHECK(says("*", "is relative"));
  CHECK(says("/srv/", "'/**' for what lies below"));
  CHECK(says("/srv//a", "has '//'"));
  CHECK(says("//", "ends with '/'"));
  CHECK(says("/srv/../a", "has '..'"));
  CHECK(says("/srv/./a", "has '.'"));
  CHECK(says("/srv/**.html", "'**' stands alone"));
  CHECK(says("/srv/a**", "'**' stands alone"));
  CHECK(says("/srv/***", "'**' stands alone"));
  CHECK(says("/srv/[ab]", "has '['"));
  CHECK(says("/srv/{a,b}", "has '{'"));
  CHECK(says("/srv/\\*", "has '\\'"));
  CHECK(says("/srv/\n", "control character"));
  CHECK(says(std::string("/srv\0x", 6), "control character"));
  CHECK(says("/" + std::string(512, 'a'), "over 512 bytes"));
  CHECK(refused("/" + std::string(511, 'a')) == "");
}

TEST_CASE("the worst pattern and the worst path are done with quickly") {
  std::string stars, every;
  while (stars.size() < 500) stars += "/*a*a*a*a*b";
  while (every.size() < 500) every += "/**/a";
  std::string path;
  while (path.size() < 4000) path += "/" + std::string(250, 'a');
  std::string shallow;
  while (shallow.size() < 4000) shallow += "/a";
  timespec begin, end;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  CHECK_FALSE(matches(stars, path));
  CHECK_FALSE(matches(every + "/x", shallow));
  CHECK(matches(every, shallow));
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  CHECK(end.tv_sec - begin.tv_sec <= 1);
}

}  // namespace
}  // namespace postern::policy
