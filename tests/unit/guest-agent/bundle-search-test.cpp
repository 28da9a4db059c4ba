#include "guest-agent/identity/bundle-search.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temporary-folder.h"
#include "tests/support/test-random.h"

using namespace postern;
using namespace postern::guest;

namespace {

// A root with places for bundles; each bundle is told by its VM's name.
struct Places {
  test::TemporaryFolder folder;
  test::TestRandom random{3};
  Paths paths{folder.path("root")};
  kj::String option = folder.path("option");
  kj::String credentials = folder.path("credentials");

  std::string bundle(kj::StringPtr name) {
    Bundle bundle;
    random.fill(kj::arrayPtr(bundle.vm.bytes.data(), bundle.vm.bytes.size()));
    bundle.host = HostKeyPair::generate(random).publicKey();
    bundle.token = EnrolmentToken::generate(random);
    bundle.vmName = kj::str(name);
    return encodeBundle(bundle).get().cStr();
  }
  static void write(kj::StringPtr path, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(path.cStr()).parent_path());
    std::ofstream(path.cStr(), std::ios::binary) << content;
  }
  kj::String smbios(kj::StringPtr entry) { return kj::str(paths.smbiosEntries, "/", entry, "/raw"); }
  static std::string structure(const std::string& string) {
    return std::string("\x0b\x05\x00\x01\x02", 5) + "another vendor's" + std::string(1, '\0') + string +
           std::string(2, '\0');
  }

  BundleSearch search() { return searchBundles(paths, kj::StringPtr(option), kj::StringPtr(credentials)); }
  std::string found() {
    std::string names;
    for (auto& each : search().found) names += std::string(each.bundle->vmName.cStr()) + " ";
    return names;
  }
};

}  // namespace

TEST_CASE("bundles come in the order of their sources") {
  Places places;
  places.write(places.paths.bundle, places.bundle("file") + "\n");
  CHECK(places.found() == "file ");
  places.write(places.paths.fwCfgBundle, places.bundle("fwcfg") + std::string(1, '\0'));
  CHECK(places.found() == "fwcfg file ");
  places.write(places.smbios("11-1"), places.structure(places.bundle("smbios1")));
  places.write(places.smbios("11-0"), places.structure(places.bundle("smbios0")));
  places.write(places.smbios("1-0"), places.structure(places.bundle("system")));
  CHECK(places.found() == "smbios0 smbios1 fwcfg file ");
  places.write(kj::str(places.credentials, "/postern.bundle"), places.bundle("credential"));
  CHECK(places.found() == "credential smbios0 smbios1 fwcfg file ");
  places.write(places.option, places.bundle("option"));
  CHECK(places.found() == "option credential smbios0 smbios1 fwcfg file ");
}

TEST_CASE("nothing anywhere is no problem, but a file that was named must be there") {
  Places places;
  auto result = searchBundles(places.paths, nullptr, nullptr);
  CHECK(result.found.empty());
  CHECK(result.problems.empty());
  auto named = places.search();
  REQUIRE(named.problems.size() == 1);
  CHECK((named.problems[0] == kj::str(places.option, ": there is no such file")));
}

TEST_CASE("a source with something else is told, and does not hide the next one") {
  Places places;
  auto good = places.bundle("good");
  places.write(places.option, good.substr(0, good.size() - 3));
  places.write(kj::str(places.credentials, "/postern.bundle"), "hello");
  places.write(places.smbios("11-0"), places.structure(good.substr(0, 40)));
  places.write(places.paths.fwCfgBundle, std::string(100000, 'x'));
  places.write(places.paths.bundle, good);
  auto result = places.search();
  REQUIRE(result.found.size() == 1);
  CHECK((result.found[0].from == places.paths.bundle));
  REQUIRE(result.problems.size() == 4);
  CHECK(result.problems[0].startsWith(places.option));
  CHECK(result.problems[2].startsWith("SMBIOS type 11 (11-0): the bundle "));
  CHECK(result.problems[3].startsWith(places.paths.fwCfgBundle));
  // Nothing of a bundle's text is in what goes into a log.
  for (auto& problem : result.problems)
    CHECK(std::string(problem.cStr()).find(good.substr(60, 12)) == std::string::npos);
}

TEST_CASE("an emptied file is as none, and a link, a folder or a FIFO in /etc/postern is refused") {
  Places places;
  places.write(places.paths.bundle, "\n");
  CHECK(searchBundles(places.paths, nullptr, nullptr).problems.empty());
  unlink(places.paths.bundle.cStr());
  auto secret = places.folder.path("secret");
  places.write(secret, places.bundle("linked"));
  REQUIRE(symlink(secret.cStr(), places.paths.bundle.cStr()) == 0);
  CHECK(searchBundles(places.paths, nullptr, nullptr).problems.size() == 1);
  unlink(places.paths.bundle.cStr());
  REQUIRE(mkfifo(places.paths.bundle.cStr(), 0600) == 0);
  CHECK(searchBundles(places.paths, nullptr, nullptr).problems.size() == 1);
  unlink(places.paths.bundle.cStr());
  REQUIRE(mkdir(places.paths.bundle.cStr(), 0700) == 0);
  CHECK(searchBundles(places.paths, nullptr, nullptr).problems.size() == 1);
}
