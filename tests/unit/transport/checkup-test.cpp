#include "transport/checkup/checkup.h"

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/support/temporary-folder.h"
#include "transport/checkup/machine.h"

using namespace postern;

namespace {

std::string textOf(const Checkup& checkup) {
  return checkup.toText().cStr();
}

// A folder with that mode, looked at by who says what nobody else should have.
struct Owned {
  test::TemporaryFolder parent;
  kj::String path = parent.path("it's here");

  explicit Owned(mode_t mode) {
    KJ_SYSCALL(mkdir(path.cStr(), 0700));
    KJ_SYSCALL(chmod(path.cStr(), mode));
  }
};

}  // namespace

TEST_CASE("a checkup is lines in columns, with what mends it below, and ends with the worst") {
  Checkup checkup;
  checkup.begin("policy");
  checkup.ok("3 rules");
  CHECK(checkup.grade() == Grade::OK);
  checkup.begin("audit");
  checkup.warning("16 MiB are left", "df -h /var/log\nrm old");
  checkup.begin("folders");
  checkup.ok("most are right");
  checkup.wrong("others may write", "");
  CHECK(textOf(checkup) ==
        "ok       policy   3 rules\n"
        "warning  audit    16 MiB are left\n"
        "                  df -h /var/log\n"
        "                  rm old\n"
        "ok       folders  most are right\n"
        "wrong    folders  others may write\n");
  CHECK(checkup.gradeOf("audit") == Grade::WARNING);
  CHECK(checkup.gradeOf("folders") == Grade::WRONG);
  CHECK(checkup.gradeOf("none of these") == Grade::OK);
  CHECK(checkup.grade() == Grade::WRONG);
}

TEST_CASE("what a checkup says of others' texts is printable and bounded, as text and as JSON") {
  Checkup checkup;
  checkup.begin("link");
  checkup.wrong("a\x1b[2Jb\nwrong    c", kj::str("do\tthis\n", kj::repeat('x', 5000), kj::repeat('\n', 500)));
  REQUIRE(checkup.findings().size() == 1);
  auto& finding = checkup.findings()[0];
  CHECK((finding.text == "a?[2Jb?wrong    c"));
  CHECK(finding.remedy.size() < 1200);
  CHECK((finding.remedy.startsWith("do?this\nxxx")));

  Checkup small;
  small.begin("link");
  small.warning("it says \"no\"", "wait");
  JsonWriter json;
  json.beginObject();
  small.write(json);
  json.endObject();
  CHECK(
      (json.finish() == R"({"checks":[{"check":"link","grade":"warning","text":"it says \"no\"","remedy":"wait"}]})"));
}

TEST_CASE("a path is one word for a shell") {
  CHECK((shellWord("/var/lib/postern-agent") == "/var/lib/postern-agent"));
  CHECK((shellWord("/srv/a b") == "'/srv/a b'"));
  CHECK((shellWord("it's; rm *") == "'it'\\''s; rm *'"));
  CHECK((shellWord("") == "''"));
}

TEST_CASE("what others have rights to, or somebody else owns, is wrong, and the remedy mends it") {
  Owned open(0757);
  Checkup checkup;
  CHECK(lookAtOwner({open.path, geteuid(), 0077}, checkup));
  CHECK(textOf(checkup).find("others than its owner have rights to it") != std::string::npos);
  auto remedy = kj::str(checkup.findings()[0].remedy);
  CHECK((remedy.startsWith("chmod go= '/tmp/")));
  REQUIRE(system(remedy.cStr()) == 0);
  CHECK_FALSE(lookAtOwner({open.path, geteuid(), 0077}, checkup));
  CHECK(checkup.findings().size() == 1);
}

TEST_CASE("what others may read and not write loses the right to write alone") {
  Owned writable(0775);
  Checkup checkup;
  CHECK(lookAtOwner({writable.path, nullptr, 0022}, checkup));
  CHECK((checkup.findings()[0].text.endsWith("others than its owner may write to it")));
  CHECK((checkup.findings()[0].remedy.startsWith("chmod go-w ")));
  KJ_SYSCALL(chmod(writable.path.cStr(), 0755));
  CHECK_FALSE(lookAtOwner({writable.path, nullptr, 0022}, checkup));
  CHECK_FALSE(lookAtOwner({writable.parent.path("not there"), geteuid(), 0077}, checkup));
}

TEST_CASE("a file of another user's is wrong" * doctest::skip(geteuid() != 0)) {
  constexpr uid_t UNNAMED = 54321;
  Owned foreign(0700);
  KJ_SYSCALL(chown(foreign.path.cStr(), UNNAMED, UNNAMED));
  Checkup checkup;
  CHECK(lookAtOwner({foreign.path, 54320, 0077}, checkup));
  CHECK((checkup.findings()[0].text.endsWith(": it belongs to 54321, not to 54320")));
  CHECK((checkup.findings()[0].remedy.startsWith("chown 54320 '")));
  CHECK_FALSE(lookAtOwner({foreign.path, UNNAMED, 0077}, checkup));
  CHECK((userName(0) == "root"));
}

TEST_CASE("room is looked for where the folder is, or will be made") {
  test::TemporaryFolder folder;
  Checkup checkup;
  CHECK_FALSE(lookAtSpace(folder.path("will/be/made"), checkup));
  CHECK(checkup.findings().size() == 0);
  CHECK(lookAtSpace("/proc", checkup));  // a file system without room
  CHECK(checkup.grade() == Grade::WRONG);
  CHECK(textOf(checkup).find("/proc: 0 KiB are left on its disk") != std::string::npos);
}

TEST_CASE("a kernel that has all is said to, and one that lacks something works with less") {
  Checkup checkup;
  checkup.begin("kernel");
  lookAtKernel(checkup);
  CHECK(checkup.findings().size() >= 1);
  CHECK(checkup.grade() != Grade::WRONG);
  for (auto& finding : checkup.findings()) CHECK((finding.grade == Grade::OK) == (finding.remedy.size() == 0));
}
