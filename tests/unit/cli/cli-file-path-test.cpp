// Words that name files, here and in VMs; and names of any bytes as they are shown.

#include "host/cli/file-name.h"
#include "host/cli/file-path.h"
#include "tests/unit/cli/cli-fixture.h"

using namespace postern;
using namespace postern::cli;
using namespace postern::test;

namespace {

FilePath pathOf(kj::StringPtr word) {
  auto parsed = parseFilePath(word);
  if (parsed.is<kj::String>()) MESSAGE(parsed.get<kj::String>().cStr());
  REQUIRE(parsed.is<FilePath>());
  return kj::mv(parsed.get<FilePath>());
}

kj::String errorOf(kj::StringPtr word) {
  auto parsed = parseFilePath(word);
  return parsed.is<kj::String>() ? kj::mv(parsed.get<kj::String>()) : kj::str("no error");
}

}  // namespace

TEST_CASE("a VM's name before the first colon, and no slash before that, is a path in that VM") {
  auto path = pathOf("web1:/srv/www");
  CHECK_TEXT(path.vm, "web1");
  CHECK_TEXT(path.path, "/srv/www");
  CHECK(!path.slash);
  CHECK(!pathOf("./web1:/srv").isRemote());
  CHECK(!pathOf("/tmp/web1:/srv").isRemote());
  CHECK(!pathOf("file").isRemote());
  CHECK_TEXT(pathOf("web1:/a:b").path, "/a:b");
}

TEST_CASE("a path in a VM is made canonical as text, and a slash at its end is remembered") {
  CHECK_TEXT(pathOf("web1://srv///www/./x").path, "/srv/www/x");
  CHECK(pathOf("web1:/srv/").slash);
  CHECK(pathOf("web1:/srv//").slash);
  CHECK_TEXT(pathOf("web1:/srv//").path, "/srv");
  CHECK_TEXT(pathOf("web1:/").path, "/");
  CHECK_TEXT(pathOf("web1:/.").path, "/");
  auto content = pathOf("web1:/srv/.");
  CHECK(content.content);
  CHECK(content.slash);
  CHECK_TEXT(content.path, "/srv");
  CHECK_TEXT(content.written(), "web1:/srv/.");
  CHECK_TEXT(pathOf("web1:/srv/").written(), "web1:/srv/");
  CHECK_TEXT(pathOf("web1:/...").path, "/...");
  CHECK_TEXT(pathOf("web1:/.git").path, "/.git");
}

TEST_CASE("'..' in a guest's path is refused wherever it stands, and a name may begin with it") {
  for (kj::StringPtr word : {"web1:/..", "web1:/srv/../etc", "web1:/srv/..", "web1:/../etc/", "web1:/srv/.././x"}) {
    CHECK(contains(errorOf(word), "'..' is not followed in a guest's path"));
  }
  CHECK_TEXT(pathOf("web1:/srv/..a").path, "/srv/..a");
}

TEST_CASE("what cannot be a path in a VM is told, with what to write instead") {
  CHECK_TEXT(errorOf("web1:srv/www"),
             "'web1:srv/www' has a relative path, and nobody has a home in a guest: write web1:/PATH; a file here is "
             "./web1:srv/www");
  CHECK_TEXT(errorOf("web1:"), "'web1:' wants a path: write web1:/PATH");
  CHECK(contains(errorOf("a b:/x"), "'a b' is no VM's name"));
  CHECK(contains(errorOf(":/x"), "'' is no VM's name"));
  CHECK(contains(errorOf(""), "no path"));
  CHECK(contains(errorOf(kj::str("web1:/", kj::repeat('x', 256))), "more than 255 bytes"));
  CHECK_TEXT(pathOf(kj::str("web1:/", kj::repeat('x', 255))).path, kj::str("/", kj::repeat('x', 255)));
  kj::Vector<kj::String> many;
  for (int i = 0; i < 2048; ++i) many.add(kj::str("ab"));
  CHECK(contains(errorOf(kj::str("web1:/", kj::strArray(many, "/"))), "at most 4095 bytes"));
  CHECK(contains(errorOf("we\033b:/x"), "'we?b'"));
}

TEST_CASE("a path here is left as it is") {
  CHECK_TEXT(pathOf("a//b/../c/").path, "a//b/../c/");
  CHECK(pathOf("a/").slash);
  CHECK(pathOf(".").content);
  CHECK(pathOf("a/.").content);
  CHECK(!pathOf("a.").content);
  CHECK(pathOf("-").stream);
  CHECK(!pathOf("./-").stream);
  CHECK_TEXT(pathOf("/srv/www/").name(), "www");
  CHECK_TEXT(pathOf("web1:/").name(), "");
}

TEST_CASE("names are shown as ls -b shows them, and letters as letters where the terminal has them") {
  CHECK_TEXT(escapedName("plain-1.txt"_kj, Letters::ASCII), "plain-1.txt");
  CHECK_TEXT(escapedName("a b\\c"_kj, Letters::ASCII), "a\\ b\\\\c");
  CHECK_TEXT(escapedName("\n\t\033\007\x7f"_kj, Letters::UTF8), "\\n\\t\\033\\a\\177");
  CHECK_TEXT(escapedName("gr\303\266\303\237e"_kj, Letters::UTF8), "gr\303\266\303\237e");
  CHECK_TEXT(escapedName("gr\303\266"_kj, Letters::ASCII), "gr\\303\\266");
  CHECK_TEXT(escapedName("\377\303"_kj, Letters::UTF8), "\\377\\303");
  CHECK_TEXT(shownPath("a b"_kj, Letters::ASCII), "a b");
}

TEST_CASE("no name can change how the rest of the line looks") {
  // Controls of eight bits, bidirectional marks, what has no width: as UTF-8.
  for (kj::StringPtr hostile : {"\302\233[2J", "\342\200\256txt", "\342\200\213", "\357\273\277", "\342\201\246"}) {
    for (char c : escapedName(hostile, Letters::UTF8)) CHECK((c >= ' ' && c <= '~'));
  }
}

TEST_CASE("a line that is to be copied to a shell means the same name there") {
  CHECK_TEXT(shellWord("/srv/www-1.2:x", Letters::ASCII), "/srv/www-1.2:x");
  CHECK_TEXT(shellWord("a b$c", Letters::ASCII), "'a b$c'");
  CHECK_TEXT(shellWord("it's", Letters::ASCII), "'it'\\''s'");
  CHECK_TEXT(shellWord("", Letters::ASCII), "''");
  CHECK_TEXT(shellWord("a\n'\\b", Letters::ASCII), "$'a\\n\\'\\134b'");
  CHECK_TEXT(shellWord("gr\303\266", Letters::UTF8), "'gr\303\266'");
  CHECK_TEXT(shellWord("gr\303\266", Letters::ASCII), "$'gr\\303\\266'");
}

TEST_CASE("for programs, a name is its text, or base64 of bytes that are no text") {
  JsonWriter json;
  json.beginObject();
  writeName(json, "name", "gr\303\266");
  writeName(json, "other", "\377x");
  CHECK_TEXT(json.endObject().finish(), "{\"name\":\"gr\\u00f6\",\"otherBase64\":\"/3g=\"}");
}
