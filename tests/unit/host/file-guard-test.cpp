#include "host/session/file-guard.h"

#include <capnp/message.h>
#include <doctest/doctest.h>
#include <string.h>

#include <string>
#include <vector>

#include "protocol/transfer/limits.h"

namespace postern::host {
namespace {

using transfer::Entry;
using transfer::EntryKind;
using transfer::PathScope;
using transfer::ProblemKind;
using Call = FileGuard::Call;

struct Line {
  std::string call, outcome, path, entry, hash;
  uint64_t bytes, files, directories, failures, leftOut, sent;
};
struct Log final : public OperationLog {
  std::vector<Line> lines;
  size_t takes = SIZE_MAX;

  bool operation(const OperationRecord& record) override {
    if (record.entry.size() > 0) {
      if (takes == 0) return false;
      --takes;
    }
    auto& tally = KJ_REQUIRE_NONNULL(record.files);
    Line line{record.call.cStr(), record.outcome.cStr(), record.path.cStr(), record.entry.cStr(), "",
              record.bytes,       tally.files,           tally.directories,  tally.failures,      tally.leftOut,
              tally.sentBytes};
    KJ_IF_MAYBE (hash, tally.hash) line.hash = std::string(hash->asChars().begin(), hash->size());
    lines.push_back(line);
    return true;
  }
};

struct Rule {
  const char* id;
  bool denies;
  std::vector<const char*> paths;
};

class Lab {
 public:
  kj::EventLoop loop;
  kj::WaitScope waitScope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1000 * kj::SECONDS};
  PortLimits limits{timer};
  TransferLimits transfers{limits};
  capnp::MallocMessageBuilder message;
  schema::Grant::Builder grant = message.initRoot<schema::Grant>();
  Log log;
  PathScope scope;
  kj::Vector<kj::Own<LimitGate>> gates;
  kj::Own<TransferLimits::Use> use;
  kj::Own<FileAudit> audit;
  kj::Own<FileGuard> guard;

  explicit Lab(const std::vector<Rule>& rules) {
    auto file = grant.initFiles(1)[0];
    auto to = file.initScope();
    auto list = to.initRules(static_cast<unsigned>(rules.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      list[i].setId(rules[i].id);
      list[i].setDenies(rules[i].denies);
      auto paths = list[i].initPaths(static_cast<unsigned>(rules[i].paths.size()));
      for (unsigned p = 0; p < paths.size(); ++p) paths.set(p, rules[i].paths[p]);
    }
    auto parsed = PathScope::parse(to.asReader());
    if (parsed.is<kj::String>()) FAIL(parsed.get<kj::String>().cStr());
    scope = kj::mv(parsed.get<PathScope>());
  }
  FileGuard& begin(Call call, kj::StringPtr path, FileAudit::Lines lines = FileAudit::Lines::SUMMARY) {
    guard = nullptr;
    audit = nullptr;
    use = nullptr;
    gates = limits.learn(grant.asReader());
    auto begun = transfers.begin(0);
    use = kj::mv(begun.get<kj::Own<TransferLimits::Use>>());
    audit = kj::heap<FileAudit>(log, 7, "file.put", path, lines);
    guard = kj::heap<FileGuard>(call, path, scope, *use, *audit);
    return *guard;
  }
};

Entry entry(EntryKind kind, uint64_t size = 0, uint16_t mode = 0644) {
  Entry entry;
  entry.kind = kind;
  entry.size = size;
  entry.mode = mode;
  return entry;
}
const Entry FILE_ENTRY = entry(EntryKind::FILE);
const Entry DIRECTORY_ENTRY = entry(EntryKind::DIRECTORY, 0, 0755);

// "ok", or the kind of problem.
std::string admit(FileGuard& guard, kj::StringPtr path, const Entry& what = FILE_ENTRY) {
  KJ_IF_MAYBE (problem, guard.admit(path, what)) return transfer::word(problem->kind).cStr();
  return "ok";
}

const std::vector<Rule> WWW = {{"www", false, {"/srv/www/**"}}, {"zz-no", true, {"/**/*.key"}}};

// T76
TEST_CASE("what is put into a folder is decided under its name there") {
  Lab lab(WWW);
  auto& guard = lab.begin(Call::PUT, "/srv/www");
  guard.ready(/* into */ true);
  CHECK(admit(guard, "a.html") == "ok");
  CHECK(admit(guard, "site", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(guard, "site/index.html") == "ok");
  CHECK(admit(guard, "site/server.key") == "denied");
  auto problem = guard.admit("site/server.key", FILE_ENTRY);
  CHECK((KJ_REQUIRE_NONNULL(problem).rule == "zz-no"));
  CHECK(strstr(KJ_REQUIRE_NONNULL(problem).detail.cStr(), "/srv/www/site/server.key") != nullptr);
  auto& outside = lab.begin(Call::PUT, "/srv");
  outside.ready(true);
  CHECK(admit(outside, "www/a.html") == "ok");
  CHECK(admit(outside, "other") == "denied");
  CHECK(admit(outside, "www", DIRECTORY_ENTRY) == "denied");  // it would be made
}

TEST_CASE("what is put in place of a path is decided under that path, whatever the caller calls it") {
  Lab lab(WWW);
  auto& guard = lab.begin(Call::PUT, "/srv/www/site");
  guard.ready(false);
  CHECK(admit(guard, "anything.key", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(guard, "anything.key/a") == "ok");
  CHECK(admit(guard, "anything.key/a.key") == "denied");
  CHECK(admit(guard, "second") == "protocol");
  auto& key = lab.begin(Call::PUT, "/srv/www/x.key");
  key.ready(false);
  CHECK(admit(key, "harmless") == "denied");
}

TEST_CASE("nothing is put before the guest has said where it goes") {
  Lab lab(WWW);
  CHECK(admit(lab.begin(Call::PUT, "/srv/www"), "a") == "protocol");
}

TEST_CASE("what comes out of a guest is decided under the path it was asked for, whatever the guest calls it") {
  Lab lab(WWW);
  auto& guard = lab.begin(Call::GET, "/srv/www/site");
  guard.ready(true);  // the caller's opener says where it goes on the host: that is not the guest's path
  CHECK(admit(guard, "x", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(guard, "x/a") == "ok");
  CHECK(admit(guard, "x/deep/er/b") == "ok");
  CHECK(admit(guard, "x/b.key") == "denied");
  CHECK(admit(guard, "y") == "protocol");
}

TEST_CASE("a directory that no rule is about passes a get or a list for what lies below it, and a file does not") {
  for (auto call : {Call::GET, Call::LIST}) {
    Lab lab(WWW);
    auto& guard = lab.begin(call, "/srv/www");
    CHECK(admit(guard, "www", DIRECTORY_ENTRY) == "ok");
    CHECK(admit(guard, "www/a") == "ok");
    CHECK(admit(lab.begin(call, "/srv/www"), "www") == "denied");
    auto& above = lab.begin(call, "/srv");
    CHECK(admit(above, "srv", DIRECTORY_ENTRY) == "ok");
    CHECK(admit(above, "srv/www", DIRECTORY_ENTRY) == "denied");
  }
}

TEST_CASE("a directory that is itself denied, or only looked at, does not pass for what lies below it") {
  {
    Lab lab(WWW);
    CHECK(admit(lab.begin(Call::STAT, "/srv/www"), "www", DIRECTORY_ENTRY) == "denied");
  }
  Lab denied({{"all", false, {"/**"}}, {"no", true, {"/srv/www"}}});
  CHECK(admit(denied.begin(Call::GET, "/srv/www"), "www", DIRECTORY_ENTRY) == "denied");
}

TEST_CASE("the root is a path like others") {
  Lab lab({{"all", false, {"/**"}}});
  auto& guard = lab.begin(Call::PUT, "/");
  guard.ready(true);
  CHECK(admit(guard, "etc") == "ok");
  auto& get = lab.begin(Call::GET, "/");
  CHECK(admit(get, "root", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(get, "root/etc") == "ok");
}

TEST_CASE("names that no rule can be about do not pass: paths above the bound, and what is no path") {
  Lab lab({{"all", false, {}}});
  auto& guard = lab.begin(Call::GET, "/srv");
  CHECK(admit(guard, "srv", DIRECTORY_ENTRY) == "ok");
  std::string deep = "srv";
  while (deep.size() < transfer::MAX_PATH_BYTES) deep += "/" + std::string(200, 'x');
  CHECK(admit(guard, deep.c_str()) == "name-too-long");
  // What the mover makes of a longer one: its end.
  CHECK(admit(guard, deep.substr(deep.size() - transfer::MAX_PATH_BYTES).c_str()) == "name-too-long");
  for (auto bad : {"srv/../etc", "srv//x", "srv/.", "srv/"}) CHECK(admit(guard, bad) == "denied");
}

// T77
TEST_CASE("a transfer ends where the policy's quotas do: files, bytes, depth") {
  Lab lab({{"all", false, {"/**"}}});
  lab.scope.maxFiles = 2;
  lab.scope.maxBytes = 100;
  lab.scope.maxDepth = 2;
  auto& files = lab.begin(Call::GET, "/srv");
  CHECK(admit(files, "srv", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(files, "srv/a") == "ok");
  CHECK(admit(files, "srv/b") == "ok");
  CHECK(admit(files, "srv/c") == "quota");
  auto& bytes = lab.begin(Call::GET, "/srv");
  CHECK(admit(bytes, "srv", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(bytes, "srv/a", entry(EntryKind::FILE, 60)) == "ok");
  CHECK(admit(bytes, "srv/b", entry(EntryKind::FILE, 41)) == "quota");
  CHECK(admit(lab.begin(Call::GET, "/srv"), "srv", entry(EntryKind::FILE, UINT64_MAX)) == "quota");
  auto& depth = lab.begin(Call::GET, "/srv");
  CHECK(admit(depth, "srv", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(depth, "srv/1", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(depth, "srv/1/file") == "ok");
  CHECK(admit(depth, "srv/1/2", DIRECTORY_ENTRY) == "quota");
  auto& list = lab.begin(Call::LIST, "/srv");
  CHECK(admit(list, "srv", DIRECTORY_ENTRY) == "ok");
  for (auto path : {"srv/a", "srv/b", "srv/c"}) CHECK(admit(list, path, entry(EntryKind::FILE, 1000)) == "ok");
}

TEST_CASE("a stream whose size nobody knew ends at the quota of bytes") {
  Lab lab({{"all", false, {"/**"}}});
  lab.scope.maxBytes = 100;
  auto& guard = lab.begin(Call::PUT, "/srv/stream");
  guard.ready(false);
  CHECK(admit(guard, "stream") == "ok");
  auto broken = guard.whenBroken();
  CHECK(guard.pace(100).poll(lab.waitScope));
  CHECK_FALSE(broken.poll(lab.waitScope));
  CHECK_FALSE(guard.pace(1).poll(lab.waitScope));
  REQUIRE(broken.poll(lab.waitScope));
  CHECK((broken.wait(lab.waitScope).kind == ProblemKind::QUOTA));
}

// T76
TEST_CASE("a guest's set-id bits, devices and security attributes do not reach the host, unless the policy says so") {
  auto withAttribute = [](kj::StringPtr name) {
    auto what = entry(EntryKind::FILE);
    what.attributes.add(transfer::Attribute{kj::str(name), nullptr});
    return what;
  };
  std::vector<Entry> special;
  for (auto bits : {uint16_t(04755), uint16_t(02755), uint16_t(01755)})
    special.push_back(entry(EntryKind::FILE, 0, bits));
  special.push_back(entry(EntryKind::DIRECTORY, 0, 01777));
  special.push_back(entry(EntryKind::CHARACTER_DEVICE));
  special.push_back(entry(EntryKind::BLOCK_DEVICE));
  special.push_back(withAttribute("security.capability"));
  special.push_back(withAttribute("trusted.overlay.opaque"));
  Lab lab({{"all", false, {"/**"}}});
  for (auto& what : special) {
    lab.scope.special = false;
    CHECK(admit(lab.begin(Call::GET, "/srv"), "srv", what) == "denied");
    CHECK(admit(lab.begin(Call::STAT, "/srv"), "srv", what) == "ok");  // it is shown, not made
    lab.scope.special = true;
    CHECK(admit(lab.begin(Call::GET, "/srv"), "srv", what) == "ok");
  }
  lab.scope.special = false;
  CHECK(admit(lab.begin(Call::GET, "/srv"), "srv", withAttribute("user.comment")) == "ok");
  CHECK(admit(lab.begin(Call::GET, "/srv"), "srv", entry(EntryKind::SYMBOLIC_LINK, 0, 0777)) == "ok");
}

TEST_CASE("entries are paced by the rule that decides them, and a rule's places end a transfer that finds none") {
  Lab lab({{"a", false, {"/srv/a/**"}}, {"b", false, {"/srv/**"}}});
  auto list = lab.grant.getFiles()[0].initLimits(1);
  list[0].setRule("a");
  list[0].setRate(1000);
  list[0].setBurst(1);
  list[0].setOpen(1);
  auto& guard = lab.begin(Call::GET, "/srv");
  CHECK(admit(guard, "srv", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(guard, "srv/x") == "ok");
  CHECK(guard.pace(1000).poll(lab.waitScope));
  CHECK(admit(guard, "srv/a/x") == "ok");
  CHECK_FALSE(guard.pace(1000).poll(lab.waitScope));
  auto other = lab.transfers.begin(0);
  auto& otherUse = *other.get<kj::Own<TransferLimits::Use>>();
  Log log;
  FileAudit audit(log, 8, "file.get", "/srv", FileAudit::Lines::SUMMARY);
  FileGuard second(Call::GET, "/srv", lab.scope, otherUse, audit);
  CHECK(admit(second, "srv", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(second, "srv/a/x") == "busy");
}

TEST_CASE("an order is denied for its own path, but for what lies below it where no rule is about it") {
  Lab lab(WWW);
  auto denied = [&](Call call, kj::StringPtr path) { return findDenial(call, path, lab.scope) != nullptr; };
  for (auto call : {Call::GET, Call::PUT, Call::LIST, Call::STAT, Call::MKDIR, Call::REMOVE}) {
    CHECK_FALSE(denied(call, "/srv/www/a"));
    CHECK(denied(call, "/srv/www/a.key"));
    CHECK(denied(call, "/srv/www/../a"));
    bool goesBelow = call == Call::GET || call == Call::PUT || call == Call::LIST;
    CHECK(denied(call, "/srv/www") == !goesBelow);
  }
  auto why = KJ_REQUIRE_NONNULL(findDenial(Call::GET, "/srv/www/a.key", lab.scope));
  CHECK((why.rule == "zz-no"));
  CHECK((findDenial(Call::GET, "/srv", PathScope()) != nullptr));
}

// FileAudit --------------------------------------------------------------------------------------------------------

TEST_CASE("a copy leaves one line with what came of it, and a single verified file its hash") {
  Lab lab({{"all", false, {"/**"}}});
  auto& guard = lab.begin(Call::PUT, "/srv/a");
  guard.ready(false);
  CHECK(admit(guard, "a", entry(EntryKind::FILE, 12)) == "ok");
  auto hash = "0123456789abcdef0123456789abcdef"_kj;
  guard.settled("a", nullptr, hash.asBytes());
  CHECK(lab.log.lines.empty());
  transfer::Summary summary;
  summary.files = 1;
  summary.bytes = 12;
  summary.sentBytes = 5;
  lab.audit->came(summary);
  REQUIRE(lab.log.lines.size() == 1);
  auto& line = lab.log.lines[0];
  CHECK(line.outcome == "done");
  CHECK(line.path == "/srv/a");
  CHECK(line.entry.empty());
  CHECK(line.bytes == 12);
  CHECK(line.sent == 5);
  CHECK(line.hash == hash.cStr());
}

TEST_CASE("a copy with failures is incomplete, one that ended early says why, and one without an end was given up") {
  Lab lab({{"all", false, {"/**"}}});
  lab.begin(Call::PUT, "/srv");
  transfer::Summary summary;
  summary.failures = 3;
  lab.audit->came(summary);
  CHECK(lab.log.lines.back().outcome == "incomplete");
  CHECK(lab.log.lines.back().failures == 3);
  auto& guard = lab.begin(Call::PUT, "/srv");
  guard.ready(true);
  CHECK(admit(guard, "a", entry(EntryKind::FILE, 10)) == "ok");
  CHECK(admit(guard, "d", DIRECTORY_ENTRY) == "ok");
  guard.settled("a", nullptr, nullptr);
  guard.settled("d", nullptr, nullptr);
  lab.audit->sent(10);
  lab.audit->came(transfer::problem(ProblemKind::NO_SPACE, kj::str("full")));
  CHECK(lab.log.lines.back().outcome == "failed: no-space");
  CHECK(lab.log.lines.back().files == 1);
  CHECK(lab.log.lines.back().directories == 1);
  CHECK(lab.log.lines.back().bytes == 10);
  CHECK(lab.log.lines.back().sent == 10);
  lab.begin(Call::PUT, "/srv");
  lab.guard = nullptr;
  lab.audit = nullptr;
  CHECK(lab.log.lines.back().outcome == "given up");
}

// T80
TEST_CASE("each file has a line where that is wanted, and those that the log does not take are counted") {
  Lab lab({{"all", false, {"/**"}}});
  lab.log.takes = 2;
  auto& guard = lab.begin(Call::PUT, "/srv", FileAudit::Lines::EACH);
  guard.ready(true);
  CHECK(admit(guard, "d", DIRECTORY_ENTRY) == "ok");
  CHECK(admit(guard, "d/a", entry(EntryKind::FILE, 10)) == "ok");
  CHECK(admit(guard, "d/b", entry(EntryKind::FILE, 20)) == "ok");
  CHECK(admit(guard, "d/c", entry(EntryKind::FILE, 30)) == "ok");
  auto full = transfer::problem(ProblemKind::NO_SPACE, kj::str("full"));
  kj::Maybe<const transfer::Problem&> problem = full;
  guard.settled("d/b", problem, nullptr);  // in any order
  guard.settled("d/a", nullptr, nullptr);
  guard.settled("d/c", nullptr, nullptr);
  guard.settled("d", nullptr, nullptr);
  lab.audit->came("done");
  REQUIRE(lab.log.lines.size() == 3);
  CHECK(lab.log.lines[0].entry == "/srv/d/b");
  CHECK(lab.log.lines[0].outcome == "failed: no-space");
  CHECK(lab.log.lines[0].bytes == 20);
  CHECK(lab.log.lines[1].entry == "/srv/d/a");
  CHECK(lab.log.lines[1].outcome == "done");
  CHECK(lab.log.lines[1].bytes == 10);
  CHECK(lab.log.lines[2].entry.empty());
  CHECK(lab.log.lines[2].leftOut == 1);
}

TEST_CASE("entries that never settle are not remembered without end") {
  Lab lab({{"all", false, {"/**"}}});
  auto& guard = lab.begin(Call::PUT, "/srv");
  guard.ready(true);
  for (size_t i = 0; i < 2 * MAX_SIZES_KEPT; ++i) {
    CHECK(admit(guard, kj::str("f", i), entry(EntryKind::FILE, 1)) == "ok");
  }
  guard.settled("f0", nullptr, nullptr);  // forgotten: it counts, its size does not
  guard.settled(kj::str("f", MAX_SIZES_KEPT), nullptr, nullptr);
  lab.audit->came("done");
  CHECK(lab.log.lines.back().files == 2);
  CHECK(lab.log.lines.back().bytes == 1);
}

}  // namespace
}  // namespace postern::host
