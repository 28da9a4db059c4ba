// What a policy says of paths, sizes and kinds, as an opener in a guest keeps to it.
#include <doctest/doctest.h>

#include "tests/unit/transport/scope-fixture.h"
#include "tests/unit/transport/transfer-fixture.h"

using namespace postern;
using namespace postern::transfer;

namespace {

struct Here {
  TempDir dir;
  Here() {
    KJ_SYSCALL(mkdir(dir.file("from").cStr(), 0755));
    KJ_SYSCALL(mkdir(dir.file("from/private").cStr(), 0755));
    KJ_SYSCALL(mkdir(dir.file("to").cStr(), 0755));
    writeFile(dir.file("from/a"), "content");
    writeFile(dir.file("from/private/key"), "secret");
    writeFile(dir.file("from/large"), text(bytesOf(100000)));
  }
  kj::String to(kj::StringPtr name) const { return kj::str(dir.path(), "/to/", name); }
  Copy& prepare(Copy& copy) const {
    copy.from(dir.path(), "from").into(to(""));
    copy.tops[0].scopePath = kj::str("/srv/from");
    copy.destination.scopePath = kj::str("/srv");
    copy.source.recursive = true;
    return copy;
  }
};

}  // namespace

// T87
TEST_CASE("what the guest's policy denies is not read, and told with the rule") {
  Here here;
  auto scope = scopeOf({"/srv/from", "/srv/from/**"}, {"/srv/**/private", "/srv/from/large"});
  Copy copy;
  here.prepare(copy).source.scope = scope;
  copy.run();
  CHECK(copy.summary().failures == 2);
  for (auto& failure : copy.sending.failures) {
    CHECK(failure.kind == ProblemKind::DENIED);
    CHECK(failure.detail.find("deny") != std::string::npos);
  }
  CHECK(readFile(here.to("from/a")) == "content");
  CHECK(!std::filesystem::exists(here.to("from/private").cStr()));
}

TEST_CASE("what the guest's policy denies is not made, small or large, and the rest is") {
  Here here;
  auto scope = scopeOf({"/srv/from", "/srv/from/**"}, {"/srv/**/private", "/srv/from/large"});
  Copy copy;
  here.prepare(copy).destination.scope = scope;
  copy.run();
  CHECK(copy.summary().failures == 3);  // and what is in the directory
  for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::DENIED);
  CHECK(readFile(here.to("from/a")) == "content");
  CHECK(std::distance(std::filesystem::recursive_directory_iterator(here.to("").cStr()), {}) == 2);
}

TEST_CASE("a top that is denied is told before anything is looked at, be it there or not") {
  Here here;
  auto scope = scopeOf({"/srv/other/**"});
  for (auto name : {"from", "missing"}) {
    Copy copy;
    copy.from(here.dir.path(), name).into(here.to(""));
    copy.tops[0].scopePath = kj::str("/srv/", name);
    copy.source.recursive = true;
    copy.source.scope = scope;
    copy.run();
    CHECK(copy.failure().kind == ProblemKind::DENIED);
  }
}

TEST_CASE("the one top's path is decided by the name that it becomes") {
  Here here;
  auto scope = scopeOf({"/srv/allowed"});
  for (auto name : {"allowed", "other"}) {
    Copy copy;
    copy.from(here.dir.file("from"), "a").as(here.to(""), name);
    copy.destination.scopePath = kj::str("/srv");
    copy.destination.scope = scope;
    copy.run();
    CHECK(copy.summary().failures == (kj::StringPtr(name) == "allowed" ? 0 : 1));
  }
}

TEST_CASE("quotas are looked at before anything is made or sent") {
  Here here;
  auto all = []() { return scopeOf({"/srv/**"}); };
  PathScope scopes[] = {all(), all(), all()};
  scopes[0].maxFiles = 4;
  scopes[1].maxBytes = 100000;
  scopes[2].maxDepth = 1;
  for (auto& scope : scopes) {
    CAPTURE(&scope - scopes);
    {
      Copy copy;
      here.prepare(copy).destination.scope = scope;
      copy.run();
      CHECK(copy.refusal() == ProblemKind::QUOTA);
    }
    {
      Copy copy;
      here.prepare(copy).source.scope = scope;
      copy.run();
      auto summary = copy.summary();
      CHECK(summary.failures == 1);
      CHECK(copy.failure().kind == ProblemKind::QUOTA);
      CHECK(summary.files == (scope.maxDepth > 0 ? 2 : 0));
    }
    std::filesystem::remove_all(here.to("from").cStr());
  }
}

TEST_CASE("a transfer that brings more than it announced meets the quota all the same") {
  Here here;
  auto scope = scopeOf({"/srv/**"});
  scope.maxFiles = 5;
  Copy copy;
  here.prepare(copy).destination.scope = scope;
  copy.making.onAnnounced = [&]() {
    for (int i = 0; i < 10; ++i) writeFile(here.dir.file(kj::str("from/private/more", i)), "content");
  };
  copy.run();
  auto summary = copy.summary();
  CHECK(summary.files + summary.directories == 5);
  CHECK(summary.failures == 10);
  for (auto& failure : copy.making.failures) CHECK(failure.kind == ProblemKind::QUOTA);
}

TEST_CASE("set-id bits travel where the scopes of both ends say special") {
  Here here;
  KJ_SYSCALL(chmod(here.dir.file("from/a").cStr(), 06755));
  for (int i = 0; i < 4; ++i) {
    auto sourceScope = scopeOf({"/srv/**"}), destinationScope = scopeOf({"/srv/**"});
    sourceScope.special = i % 2 == 1;
    destinationScope.special = i >= 2;
    Copy copy;
    here.prepare(copy).source.scope = sourceScope;
    copy.destination.scope = destinationScope;
    copy.run();
    CHECK(copy.summary().failures == 0);
    struct stat status {};
    KJ_SYSCALL(stat(here.to("from/a").cStr(), &status));
    CHECK((status.st_mode & 07777) == (i == 3 ? 06755 : 0755));
  }
}
