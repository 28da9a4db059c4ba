#include "host/cli/arguments.h"

#include <doctest/doctest.h>
#include <string.h>

#include <string>

#include "host/cli/quantity.h"

using namespace postern::cli;

namespace {

using Parsed = kj::OneOf<Arguments, HelpText, UsageError>;

Parsed parse(std::initializer_list<kj::StringPtr> words) {
  auto array = kj::heapArray<kj::StringPtr>(words.begin(), words.size());
  return parseArguments(array, "/home/alice");
}

kj::String errorOf(std::initializer_list<kj::StringPtr> words) {
  auto parsed = parse(words);
  return parsed.is<UsageError>() ? kj::mv(parsed.get<UsageError>().text) : kj::str("no error");
}

template <typename T>
T commandOf(std::initializer_list<kj::StringPtr> words) {
  auto parsed = parse(words);
  if (parsed.is<UsageError>()) MESSAGE(std::string(parsed.get<UsageError>().text.cStr()));
  REQUIRE(parsed.is<Arguments>());
  REQUIRE(parsed.get<Arguments>().command.is<T>());
  return kj::mv(parsed.get<Arguments>().command.get<T>());
}

template <typename Group, typename T>
T commandIn(std::initializer_list<kj::StringPtr> words) {
  auto command = commandOf<Group>(words);
  REQUIRE(command.template is<T>());
  return kj::mv(command.template get<T>());
}

bool has(const kj::String& text, const char* part) {
  CAPTURE(text.cStr());
  return strstr(text.cStr(), part) != nullptr;
}

}  // namespace

TEST_CASE("a mistyped command is answered with the nearest one") {
  CHECK((errorOf({"statsu"}) == "unknown command 'statsu'; did you mean 'status'? (see postern --help)"));
  CHECK(has(errorOf({"vm", "lst"}), "unknown command 'lst'; did you mean 'list'? (see postern vm --help)"));
  CHECK(has(errorOf({"policy", "expain"}), "did you mean 'explain'?"));
  CHECK(has(errorOf({"qqqqqqqqq"}), "unknown command 'qqqqqqqqq' (see"));
}

TEST_CASE("a mistyped option is answered with the nearest one, of the command or of the program") {
  CHECK(has(errorOf({"status", "--wach"}),
            "unknown option '--wach'; did you mean '--watch'? (see postern status --help)"));
  CHECK(has(errorOf({"status", "--jsn"}), "did you mean '--json'?"));
  CHECK(has(errorOf({"ping", "web1", "--conut=5"}), "did you mean '--count'?"));
}

TEST_CASE("every kind of bad command line is one line that says what to do") {
  CHECK(has(errorOf({}), "no command given (see postern --help)"));
  CHECK(has(errorOf({"vm"}), "no command given (see postern vm --help)"));
  CHECK(has(errorOf({"ping"}), "VM is required"));
  CHECK(has(errorOf({"ping", "web1", "web2"}), "unexpected word 'web2'"));
  CHECK(has(errorOf({"ping", "../etc"}), "'../etc' is no VM's name"));
  CHECK(has(errorOf({"ping", "a\nb\033[2J"}), "'a?b?[2J' is no VM's name"));
  CHECK(has(errorOf({"status", "host"}), "is no VM's name"));
  CHECK(has(errorOf({"ping", "web1", "-c", "-4"}), "no whole number"));
  CHECK(has(errorOf({"ping", "web1", "-c", "1e3"}), "no whole number"));
  CHECK(has(errorOf({"ping", "web1", "-c", "99999999999999999999"}), "no whole number"));
  CHECK(has(errorOf({"ping", "web1", "-i", "soon"}), "'soon' is no duration"));
  CHECK(has(errorOf({"ping", "web1", "-i"}), "--interval"));
  CHECK(has(errorOf({"--timeout", "-1", "ping", "web1"}), "no duration"));
  CHECK(has(errorOf({"enroll", "web1"}), "--transport is required"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "tcp:1"}), "--transport"));
  CHECK(has(errorOf({"enroll", "web1", "--libvirt", "--transport", "vsock:42"}), "libvirt:DOMAIN"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "serial:rel"}), "relative"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "serial:/x", "--uuid", "7"}), "a UUID has"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "serial:/x", "--lifetime", "8d"}), "at most 7d"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "serial:/x", "--lifetime", "0"}), "at least 1 s"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "serial:/x", "--to", "user:a"}), "--to needs --grant"));
  CHECK(has(errorOf({"enroll", "web1", "--transport", "serial:/x", "--guest-transport", "y"}), "--guest-transport"));
  CHECK(has(errorOf({"vm", "set", "web1"}), "nothing to set"));
  CHECK(has(errorOf({"vm", "rekey", "web1", "--lifetime", "8d"}), "at most 7d"));
  CHECK(has(errorOf({"shutdown"}), "VM is required"));
  CHECK(has(errorOf({"shutdown", "web1", "--delay", "25h"}), "at most 24h"));
  CHECK(has(errorOf({"shutdown", "web1", "--message", kj::str(kj::repeat('x', 513))}), "at most 512 bytes"));
  CHECK(has(errorOf({"suspend", "web1", "--force-after", "3"}), "unknown option '--force-after'"));
  CHECK(has(errorOf({"status", "web1", "--check", "--watch"}), "leave --watch out"));
  CHECK(has(errorOf({"status", "--check"}), "wants the names"));
  CHECK(has(errorOf({"policy", "explain", "--to", "web1"}), "--call is required"));
  CHECK(has(errorOf({"policy", "check", "a.toml", "--folder", "b"}), "not both"));
  CHECK(has(errorOf({"policy", "diff", "a.toml"}), "NEW is required"));
}

TEST_CASE("what is quoted of a command line is printable, and no line is long") {
  auto hostile = kj::str("--", kj::repeat('x', 5000), "\033]0;title\007\n");
  for (auto words : {std::initializer_list<kj::StringPtr>{hostile},
                     {"ping", hostile},
                     {"vm", hostile},
                     {"enroll", "web1", "--transport", hostile},
                     {"ping", "web1", "-i", hostile}}) {
    auto error = errorOf(words);
    CHECK(error.size() < 500);
    for (char c : error) CHECK((c >= ' ' && c <= '~'));
  }
}

TEST_CASE("options of the whole program stand anywhere on the line") {
  auto front = parse({"--json", "--root", "/r", "--timeout", "1.5", "ping", "web1"});
  auto back = parse({"ping", "web1", "--timeout=1500ms", "--root=/r/", "--json"});
  for (auto* parsed : {&front, &back}) {
    REQUIRE(parsed->is<Arguments>());
    auto& options = parsed->get<Arguments>().options;
    CHECK(options.json);
    CHECK((options.root == "/r"));
    CHECK((KJ_ASSERT_NONNULL(options.timeout) == 1500 * kj::MILLISECONDS));
  }
  auto nested = parse({"vm", "list", "--json"});
  CHECK(nested.get<Arguments>().options.json);
}

TEST_CASE("a relative root is taken from the current folder, and no root is the machine itself") {
  CHECK((parse({"--root", "r//", "vm", "list"}).get<Arguments>().options.root == "/home/alice/r"));
  CHECK((parse({"--root", "/", "vm", "list"}).get<Arguments>().options.root == ""));
  CHECK((parse({"vm", "list"}).get<Arguments>().options.root == ""));
}

TEST_CASE("a bad line that asks for JSON is known to") {
  CHECK(parse({"statsu", "--json"}).get<UsageError>().json);
  CHECK(!parse({"statsu"}).get<UsageError>().json);
}

TEST_CASE("help names the command in full and the exit statuses; the version is the project's") {
  auto help = parse({"vm", "set", "--help"});
  REQUIRE(help.is<HelpText>());
  CHECK(has(help.get<HelpText>().text, "Usage: postern vm set"));
  CHECK(has(parse({"--help"}).get<HelpText>().text, "3 denied by policy"));
  CHECK((parse({"--version"}).get<HelpText>().text == "postern " POSTERN_VERSION "\n"));
}

TEST_CASE("every command's arguments arrive") {
  auto enroll = commandOf<EnrollArguments>({"enroll", "web1", "--transport", "serial:/run/vm.sock", "--grant",
                                            "ping,info", "--grant", "power", "--to", "user:alice", "--lifetime", "2h",
                                            "--bundle-file", "b", "--qmp", "/q", "--force"});
  CHECK((enroll.vm == "web1"));
  CHECK(enroll.grants.size() == 3);
  CHECK((enroll.to[0] == "user:alice"));
  CHECK((enroll.bundle.lifetime == 2 * kj::HOURS));
  CHECK((KJ_ASSERT_NONNULL(enroll.bundle.file) == "b"));
  CHECK(enroll.bundle.force);
  CHECK((enroll.qmp == "/q"));
  CHECK(commandOf<EnrollArguments>({"enroll", "web1", "--libvirt"}).libvirt);

  auto restart = commandOf<PowerArguments>(
      {"restart", "a", "b", "--force-after", "30", "--delay", "1m", "--message", "now", "--ignore-inhibitors"});
  CHECK(restart.action == postern::schema::PowerRequest::Action::RESTART);
  CHECK(restart.vms.size() == 2);
  CHECK(restart.wait);  // --force-after implies it
  CHECK(restart.ignoreInhibitors);
  CHECK((restart.delay == 60 * kj::SECONDS));
  CHECK(!commandOf<PowerArguments>({"shutdown", "a"}).wait);

  auto ping = commandIn<MonitorCommand, PingArguments>({"ping", "web1", "-c", "7", "-i", "0"});
  CHECK(ping.count == 7);
  CHECK((ping.interval == 0 * kj::SECONDS));
  auto events = commandIn<MonitorCommand, EventsArguments>({"events", "-f", "web1", "-n", "3"});
  CHECK(events.follow);
  CHECK(events.backlog == 3);
  CHECK((events.vm == "web1"));
  CHECK((commandIn<MonitorCommand, EventsArguments>({"events"}).vm == ""));
  CHECK((commandIn<MonitorCommand, DoctorArguments>({"doctor", "web1"}).vm == "web1"));
  CHECK((commandIn<MonitorCommand, DoctorArguments>({"doctor"}).vm == ""));
  CHECK(commandOf<VmSetArguments>({"vm", "set", "web1", "--tag", "a,b"}).tags.size() == 2);
  CHECK((commandOf<PolicyExplainArguments>({"policy", "explain", "--to", "web1", "--call", "ping"}).call == "ping"));
  CHECK(commandOf<AuditVerifyArguments>({"audit", "verify", "a", "b"}).files.size() == 2);
}

TEST_CASE("a duration is a number with a unit, or seconds") {
  auto is = [](kj::StringPtr text, kj::Duration duration) {
    KJ_IF_MAYBE (parsed, parseDuration(text)) return *parsed == duration;
    return false;
  };
  CHECK(is("2", 2 * kj::SECONDS));
  CHECK(is("0", 0 * kj::SECONDS));
  CHECK(is("0.25", 250 * kj::MILLISECONDS));
  CHECK(is("500ms", 500 * kj::MILLISECONDS));
  CHECK(is("15m", 15 * kj::MINUTES));
  CHECK(is("15min", 15 * kj::MINUTES));
  CHECK(is("2h", 2 * kj::HOURS));
  CHECK(is("7d", 7 * kj::DAYS));
  for (kj::StringPtr bad : {"", "s", "-1", "+1", "1.", ".5", "1.2.3", "1 s", "1e9", "0x10", "nan", "inf", "367d",
                            "99999999999999999999", "1ss", "1S"}) {
    CAPTURE(bad.cStr());
    CHECK((parseDuration(bad) == nullptr));
  }
}

TEST_CASE("cp takes its words as scp does: sources, and where to, last") {
  auto copy =
      commandIn<FileCommand, CopyArguments>({"cp", "-r", "site", "other/", "web1:/srv//www/", "--verify", "--resume",
                                             "--limit", "20 MiB/s", "--sparse", "always", "--no-clobber"});
  CHECK(copy.sources.size() == 2);
  CHECK((copy.sources[1].path == "other/"));
  CHECK((copy.destination.vm == "web1"));
  CHECK((copy.destination.path == "/srv/www"));
  CHECK(copy.destination.slash);
  CHECK((copy.recursive && copy.verify && copy.resume && copy.noClobber && !copy.archive));
  CHECK(copy.bytesPerSecond == uint64_t(20) << 20);
  CHECK(copy.sparse == postern::client::Sparse::ALWAYS);
  CHECK(commandIn<FileCommand, CopyArguments>({"cp", "-a", "web1:/a", "b"}).recursive);
  CHECK(commandIn<FileCommand, CopyArguments>({"cp", "web1:/a", "-"}).destination.stream);
  CHECK(commandIn<FileCommand, CopyArguments>({"cp", "-", "web1:/a"}).sources[0].stream);
  CHECK(commandIn<FileCommand, CopyArguments>({"cp", "web1:/a", "db1:/b"}).destination.isRemote());
}

TEST_CASE("a file may have the name of a command, of an option, or a name that a parser takes for something else") {
  for (kj::StringPtr name :
       {"status", "cp", "vm", "[a,b]", "[", "++", "\001x", "a,b", "%%", "{}", "/x", "'q'", "\"q\""}) {
    CAPTURE(name.cStr());
    CHECK((commandIn<FileCommand, CopyArguments>({"cp", name, "web1:/x"}).sources[0].path == name));
  }
  CHECK((commandIn<FileCommand, CopyArguments>({"cp", "web1:/x", "--", "--json"}).destination.path == "--json"));
  CHECK((commandIn<FileCommand, CopyArguments>({"cp", "--", "-r", "--", "web1:/x"}).sources[1].path == "--"));
  CHECK((commandIn<FileCommand, CopyArguments>({"cp", "web1:/[a]", "x"}).sources[0].path == "/[a]"));
}

TEST_CASE("every kind of bad copy is one line that says what to do") {
  CHECK(has(errorOf({"cp"}), "SRC is required"));
  CHECK(has(errorOf({"cp", "web1:/x"}), "DST is required"));
  CHECK(has(errorOf({"cp", "a", "b"}), "'a' and 'b' are both here: use cp"));
  CHECK(has(errorOf({"cp", "web1:/a", "b", "c"}), "'b' and 'c' are both here"));
  CHECK(has(errorOf({"cp", "a", "web1:b"}), "has a relative path"));
  CHECK(has(errorOf({"cp", "a", "web1:/srv/../etc"}), "'..' is not followed"));
  CHECK(has(errorOf({"cp", "a", "w b:/x"}), "is no VM's name; a file here is ./w b:/x"));
  CHECK(has(errorOf({"cp", "", "web1:/x"}), "an empty word is no path"));
  CHECK(has(errorOf({"cp", "-", "-"}), "one of SRC and DST must be in a VM"));
  CHECK(has(errorOf({"cp", "-", "b", "web1:/x"}), "one SRC and one DST"));
  CHECK(has(errorOf({"cp", "-", "web1:/x/"}), "DST must name a file"));
  CHECK(has(errorOf({"cp", "-r", "web1:/x", "-"}), "leave -r and -a out"));
  CHECK(has(errorOf({"cp", "--resume", "-", "web1:/x"}), "leave --resume out"));
  CHECK(has(errorOf({"cp", "a", "web1:/x", "--limit", "fast"}), "--limit: "));
  CHECK(has(errorOf({"cp", "a", "web1:/x", "--sparse", "maybe"}), "is auto, always or never, and not 'maybe'"));
  CHECK(has(errorOf({"cp", "a", "web1:/x", "--force", "--no-clobber"}), "--no-clobber"));
  CHECK(has(errorOf({"ls", "x"}), "'x' is not in a VM: write VM:/PATH"));
  CHECK(has(errorOf({"rm", "web1:/x", "y"}), "'y' is not in a VM"));
  CHECK(has(errorOf({"mkdir"}), "PATH is required"));
  CHECK(has(errorOf({"stat", "web1:x"}), "relative path"));
}

TEST_CASE("ls, stat, mkdir and rm take paths in VMs") {
  auto list = commandIn<FileCommand, ListFilesArguments>({"ls", "-la", "web1:/srv", "db1:/"});
  CHECK((list.details && list.all && !list.recursive));
  CHECK(list.paths.size() == 2);
  CHECK(commandIn<FileCommand, ListFilesArguments>({"ls", "-R", "web1:/srv"}).recursive);
  CHECK(commandIn<FileCommand, FileStatusArguments>({"stat", "web1:/srv"}).paths.size() == 1);
  CHECK(commandIn<FileCommand, MakeFolderArguments>({"mkdir", "-p", "web1:/a/b"}).parents);
  auto remove = commandIn<FileCommand, RemoveFilesArguments>({"rm", "-rf", "web1:/a"});
  CHECK((remove.recursive && remove.force));
}

TEST_CASE("connect, forward and services take a VM and the name of a service, and say what is wrong with them") {
  auto connect = commandOf<ServiceCommand>({"connect", "web1", "ssh"});
  CHECK((connect.get<ConnectArguments>().vm == "web1"));
  CHECK((connect.get<ConnectArguments>().service == "ssh"));
  CHECK(has(errorOf({"connect", "web1"}), "SERVICE is required"));
  CHECK(has(errorOf({"connect", "web1", "a.b"}), "'a.b' is no service's name: it has 1 to 64 letters, digits"));
  CHECK(has(errorOf({"connect", "web1", "*"}), "is no service's name"));
  CHECK(has(errorOf({"connect", "web1", "a\033b"}), "'a?b' is no service's name"));
  CHECK(has(errorOf({"connect", "we b", "ssh"}), "is no VM's name"));
  CHECK(has(errorOf({"services"}), "VM is required"));
  CHECK(has(errorOf({"conect", "web1", "ssh"}), "did you mean 'connect'?"));
}

TEST_CASE("LOCAL is a port of this machine alone, an address with a port, or a Unix socket, which may be relative") {
  auto local = [](kj::StringPtr word) {
    auto command = commandOf<ServiceCommand>({"forward", "web1", word, "http"});
    return kj::str(command.get<ForwardArguments>().local);
  };
  CHECK((local("8080") == "tcp:127.0.0.1:8080"));
  CHECK((local("0") == "tcp:127.0.0.1:0"));
  CHECK((local("tcp:0.0.0.0:80") == "tcp:0.0.0.0:80"));
  CHECK((local("tcp:[::1]:80") == "tcp:[::1]:80"));
  CHECK((local("unix:/run/x.sock") == "unix:/run/x.sock"));
  CHECK((local("unix:x.sock") == "unix:/home/alice/x.sock"));
  for (auto word : {"http", "70000", "tcp:127.0.0.1", "tcp:example.org:80", "127.0.0.1:80", "unix:", ""}) {
    CHECK(has(errorOf({"forward", "web1", word, "http"}), "LOCAL"));
  }
}

TEST_CASE("channel has commands of its own") {
  CHECK(has(errorOf({"channel"}), "no command given (see postern channel --help)"));
  CHECK(has(errorOf({"channel", "lst"}), "did you mean 'list'?"));
  CHECK(has(errorOf({"channel", "block"}), "VM is required"));
  CHECK(has(errorOf({"channel", "close"}), "ID is required"));
  CHECK(has(errorOf({"channel", "close", "0xz"}), "'0xz' is no channel: write its ID as `postern channel list`"));
  CHECK((commandOf<ServiceCommand>({"channel", "close", "ff"}).get<ChannelCloseArguments>().id == 255));
  CHECK(commandOf<ServiceCommand>({"channel", "block", "web1"}).get<ChannelBlockArguments>().block);
  CHECK(!commandOf<ServiceCommand>({"channel", "unblock", "web1"}).get<ChannelBlockArguments>().block);
  CHECK((commandOf<ServiceCommand>({"channel", "list"}).get<ChannelListArguments>().vm == ""));
  CHECK(commandOf<ServiceCommand>({"channel", "stats", "web1", "--watch"}).get<ChannelStatsArguments>().watch);
}
