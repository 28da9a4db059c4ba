// Bundles: into a file, and nowhere else.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "protocol/bundle.h"
#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;

namespace {

kj::String bundleText() {
  TestRandom random;
  Bundle bundle;
  random.fill(kj::arrayPtr(bundle.vm.bytes.data(), 16));
  bundle.host = HostKeyPair::generate(random).publicKey();
  bundle.token = EnrolmentToken::generate(random);
  bundle.vmName = kj::str("web1");
  bundle.transport = kj::str("");
  bundle.grants = kj::str("");
  bundle.lifetimeSeconds = 900;
  return kj::str(encodeBundle(bundle).get());
}

kj::String slurp(kj::StringPtr path) {
  auto fd = kj::AutoCloseFd(open(path.cStr(), O_RDONLY));
  KJ_REQUIRE(fd.get() >= 0, path);
  char bytes[8192];
  auto size = read(fd, bytes, sizeof(bytes));
  return kj::heapString(bytes, static_cast<size_t>(size));
}

void write(kj::StringPtr path, kj::StringPtr text) {
  auto fd = kj::AutoCloseFd(open(path.cStr(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
  KJ_REQUIRE(::write(fd, text.begin(), text.size()) == static_cast<ssize_t>(text.size()));
}

mode_t modeOf(kj::StringPtr path) {
  struct stat status {};
  KJ_SYSCALL(lstat(path.cStr(), &status));
  return status.st_mode & 07777;
}

size_t filesIn(kj::StringPtr folder) {
  size_t count = 0;
  for (auto& entry : std::filesystem::directory_iterator(folder.cStr())) {
    (void)entry;
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("enroll registers, keeps the bundle in a file for its owner alone, and prints what delivers it") {
  CliWorld world;
  world.session.bundle = bundleText();
  world.control.added = [](hs::Control::AddVmResults::Builder results) {
    results.setGrantFile("/var/lib/postern/grants.d/web1.toml");
    results.setGrantText("[[allow]]\nid = \"grant-web1\"\n");
    results.setGuestPolicy("policy = 1\n");
  };
  auto before = umask(0);
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42", "--grant", "ping,info", "--lifetime", "1h"}) ==
        ExitStatus::DONE);
  umask(before);
  auto file = world.folder.path("here/web1.bundle");
  CHECK_TEXT(slurp(file), kj::str(bundleText(), '\n'));
  CHECK(modeOf(file) == 0600);
  CHECK(filesIn(world.folder.path("here")) == 1);
  CHECK(world.control.addedGrants.size() == 2);
  CHECK(world.session.lifetimeSeconds == 3600);
  CHECK_TEXT(world.session.bundleTransport, "vsock:host:9700");
  CHECK_TEXT(world.session.bundleGrants, "policy = 1\n");
  CHECK(contains(world.output(), "/var/lib/postern/grants.d/web1.toml"));
  CHECK(contains(world.output(), "  [[allow]]\n  id = \"grant-web1\"\n"));
  CHECK(contains(world.output(), kj::str("bundle            ", file, " (a secret until it is used; good for 1 h)")));
  CHECK(contains(world.output(), "host fingerprint  aa:bb:cc\n"));
  CHECK(contains(world.output(), kj::str("-smbios type=11,path=", file)));
  CHECK(!contains(world.output(), bundleText()));

  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42", "--json", "--force"}) == ExitStatus::DONE);
  CHECK(!contains(world.output(), bundleText()));
  auto document = JsonReader::read(world.output());
  CHECK_TEXT(document["bundleFile"].text(), file);
  CHECK(document["lifetimeSeconds"].number() == 900);
}

TEST_CASE(
    "a bundle's file that is there stays, and nothing is asked of posternd; --force replaces it, not its target") {
  CliWorld world;
  world.session.bundle = bundleText();
  auto file = world.folder.path("here/web1.bundle");
  auto other = world.folder.path("other");
  write(other, "precious");
  KJ_SYSCALL(symlink(other.cStr(), file.cStr()));
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42"}) == ExitStatus::USAGE);
  CHECK(contains(world.errors(), "exists; --force replaces it"));
  CHECK(world.control.calls == 0);
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42", "--force"}) == ExitStatus::DONE);
  CHECK_TEXT(slurp(other), "precious");
  CHECK_TEXT(slurp(file), kj::str(bundleText(), '\n'));
  CHECK(modeOf(file) == 0600);
}

TEST_CASE("an enrolment that fails leaves no file, and says how to go on if the VM is registered") {
  CliWorld world;
  world.session.behaviour.mode = Behaviour::Mode::FAIL;
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), "web1 is registered; `postern vm rekey web1` makes its bundle"));
  CHECK(filesIn(world.folder.path("here")) == 0);
  world.session.behaviour.mode = Behaviour::Mode::ANSWER;
  world.session.bundle = kj::str("postern-bundle-1:truncated");
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), "no whole bundle"));
  CHECK(filesIn(world.folder.path("here")) == 0);
}

TEST_CASE("a bundle's file that cannot be made is said before anything is asked") {
  CliWorld world;
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42", "--bundle-file", "no/such/folder/b"}) ==
        ExitStatus::FAILED);
  CHECK(contains(world.errors(), "cannot write the bundle to"));
  CHECK(world.run({"enroll", "web1", "--transport", "vsock:42", "--bundle-file", "a\nb"}) == ExitStatus::USAGE);
  CHECK(world.control.calls == 0);
}

TEST_CASE("rekey makes a bundle for the transport that the VM has") {
  CliWorld world;
  world.session.bundle = bundleText();
  world.control.vm = [](hs::Vm::Builder vm) { vm.initSettings().setTransport("hybrid:/fc.sock:5000"); };
  CHECK(world.run({"vm", "rekey", "web1", "--bundle-file", "new"}) == ExitStatus::DONE);
  CHECK_TEXT(world.session.bundleTransport, "vsock:host:5000");
  CHECK(modeOf(world.folder.path("here/new")) == 0600);
  CHECK(contains(world.output(), "the old ones are good until the bundle has been used"));
  CHECK_TEXT(world.session.bundleGrants, "");
  CHECK_FALSE(contains(world.output(), "grants"));
  CHECK(world.run({"vm", "rekey", "web1", "--bundle-file", "other", "--guest-transport", "vsock:7:1"}) ==
        ExitStatus::DONE);
  CHECK_TEXT(world.session.bundleTransport, "vsock:7:1");
}

TEST_CASE("rekey puts the VM's grants into the bundle, as enroll did") {
  CliWorld world;
  world.session.bundle = bundleText();
  world.control.vm = [](hs::Vm::Builder vm) { vm.initSettings().setTransport("serial:/x"); };
  world.control.guestPolicy = "policy = 1\n# ping\n"_kj;
  CHECK(world.run({"vm", "rekey", "web1", "--bundle-file", "new"}) == ExitStatus::DONE);
  CHECK_TEXT(world.session.bundleGrants, "policy = 1\n# ping\n");
  CHECK(contains(world.output(), "the bundle has the VM's grants"));
  CHECK(world.run({"vm", "rekey", "web1", "--bundle-file", "other", "--json"}) == ExitStatus::DONE);
  CHECK(contains(world.output(), "\"guestPolicy\":\"policy = 1\\u000a# ping\\u000a\""));
}
