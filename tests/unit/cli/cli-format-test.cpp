#include <doctest/doctest.h>
#include <stdlib.h>

#include "host/cli/exit-status.h"
#include "host/cli/failure-text.h"
#include "host/cli/latencies.h"
#include "host/cli/quantity.h"
#include "host/cli/snippets.h"
#include "host/cli/table.h"
#include "host/cli/vm-state.h"
#include "tests/unit/cli/cli-fixture.h"

using namespace postern;
using namespace postern::cli;

namespace {

Endpoint endpoint(kj::StringPtr text) {
  auto parsed = parseEndpoint(text);
  return kj::mv(parsed.get<Endpoint>());
}

client::Failure denial(kj::StringPtr rule, client::Lock lock) {
  return {client::FailureKind::DENIED, kj::str("web1: power.shutdown"), kj::str(rule),
          kj::str("[[allow]]\nid = \"x\"\n\033[2J"), lock};
}

kj::String slurp(kj::StringPtr path) {
  auto* file = fopen(path.cStr(), "r");
  KJ_REQUIRE(file != nullptr);
  char bytes[4096];
  auto size = fread(bytes, 1, sizeof(bytes), file);
  fclose(file);
  return kj::heapString(bytes, size);
}

}  // namespace

TEST_CASE("a table's columns are as wide as their widest cells, and no line ends with spaces") {
  Table table({"VM", "STATE", "REASON"});
  table.add(
      kj::arr(Table::Cell{kj::str("web1")}, Table::Cell{kj::str("green"), Tint::GREEN}, Table::Cell{kj::str("ok")}));
  table.add(kj::arr(Table::Cell{kj::str("database1")}, Table::Cell{kj::str("red"), Tint::RED}, Table::Cell{kj::str()}));
  CHECK((table.format(Colours::OFF) == "VM         STATE  REASON\n"
                                       "web1       green  ok\n"
                                       "database1  red\n"));
  CHECK((table.format(Colours::ON) == "VM         STATE  REASON\n"
                                      "web1       \033[32mgreen\033[0m  ok\n"
                                      "database1  \033[31mred\033[0m\n"));
}

TEST_CASE("durations, latencies and sizes read well at every size") {
  CHECK((describeDuration(400 * kj::MILLISECONDS) == "0.4 s"));
  CHECK((describeDuration(9999 * kj::MILLISECONDS) == "9.9 s"));
  CHECK((describeDuration(42 * kj::SECONDS) == "42 s"));
  CHECK((describeDuration(200 * kj::SECONDS) == "3 min 20 s"));
  CHECK((describeDuration(2 * kj::HOURS) == "2 h"));
  CHECK((describeDuration(99 * kj::HOURS) == "4 d 3 h"));
  CHECK((describeDuration(50 * kj::MILLISECONDS) == "50 ms"));
  CHECK((describeDuration(-5 * kj::SECONDS) == "0 ms"));
  CHECK((describeLatency(81 * kj::MICROSECONDS) == "0.081 ms"));
  CHECK((describeLatency(12345 * kj::MICROSECONDS) == "12.3 ms"));
  CHECK((describeLatency(2100 * kj::MILLISECONDS) == "2.10 s"));
  CHECK((describeBytes(512) == "512 B"));
  CHECK((describeBytes(1536) == "1.5 KiB"));
  CHECK((describeBytes((uint64_t(1) << 30) - 1) == "1.0 GiB"));
  CHECK((describeBytes(UINT64_MAX) == "16.0 EiB"));
}

TEST_CASE("quantiles are of what was measured") {
  Latencies one;
  one.add(7 * kj::MICROSECONDS);
  CHECK((one.summary().p50 == 7 * kj::MICROSECONDS));
  CHECK((one.summary().p99 == 7 * kj::MICROSECONDS));
  Latencies many;
  for (int i = 100; i > 0; --i) many.add(i * kj::MICROSECONDS);
  auto summary = many.summary();
  CHECK(summary.count == 100);
  CHECK((summary.min == 1 * kj::MICROSECONDS));
  CHECK((summary.p50 == 50 * kj::MICROSECONDS));
  CHECK((summary.p99 == 99 * kj::MICROSECONDS));
  CHECK((summary.max == 100 * kj::MICROSECONDS));
}

TEST_CASE("a denial says which rule, whose lock, and what to write") {
  auto host = denial("no-night", client::Lock::HOST);
  CHECK((lineOf(host) == "web1: power.shutdown (denied by rule 'no-night'; the host's policy)"));
  CHECK((errorText(host) == "postern: web1: power.shutdown (denied by rule 'no-night'; the host's policy)\n"
                            "to allow it, in a file of the host's /etc/postern/policy.d:\n"
                            "  [[allow]]\n  id = \"x\"\n  ?[2J\n"));
  host.text = kj::str("web1: power.shutdown: denied by rule 'no-night' (web.toml:3)");
  CHECK((lineOf(host) == "web1: power.shutdown: denied by rule 'no-night' (web.toml:3) (the host's policy)"));
  auto guest = denial("", client::Lock::GUEST);
  CHECK((lineOf(guest) == "web1: power.shutdown (no rule allows it; the guest's policy)"));
  CHECK(test::contains(errorText(guest), "in the guest's /etc/postern/agent.toml"));
}

TEST_CASE("of several VMs' exit statuses the worst counts, in the documented order") {
  const ExitStatus order[] = {ExitStatus::INTERRUPTED, ExitStatus::DENIED,  ExitStatus::NOT_CONNECTED,
                              ExitStatus::TIMED_OUT,   ExitStatus::REFUSED, ExitStatus::FAILED,
                              ExitStatus::USAGE,       ExitStatus::DONE};
  for (size_t a = 0; a < 8; ++a) {
    for (size_t b = 0; b < 8; ++b) CHECK(worst(order[a], order[b]) == order[kj::min(a, b)]);
  }
}

TEST_CASE("each kind of failure has its own exit status") {
  using Kind = client::FailureKind;
  CHECK(int(exitStatusOf(Kind::FAILED)) == 1);
  CHECK(int(exitStatusOf(Kind::INVALID)) == 2);
  CHECK(int(exitStatusOf(Kind::DENIED)) == 3);
  CHECK(int(exitStatusOf(Kind::NOT_CONNECTED)) == 4);
  CHECK(int(exitStatusOf(Kind::TIMED_OUT)) == 5);
  CHECK(int(exitStatusOf(Kind::REFUSED)) == 6);
  CHECK(int(exitStatusOf(Kind::INTERRUPTED)) == 130);
}

TEST_CASE("the snippets of a serial VM") {
  auto text = toText(snippetsFor(endpoint("serial:/run/vm/web1.sock"), "/root/web1.bundle"));
  CHECK((text == "\nQEMU:\n"
                 "  -device virtio-serial-pci -chardev socket,id=postern0,path=/run/vm/web1.sock,server=on,wait=off\n"
                 "  -device virtserialport,chardev=postern0,id=postern0,name=org.postern.agent.0\n"
                 "  -smbios type=11,path=/root/web1.bundle\n"
                 "    or: -fw_cfg name=opt/org.postern/bundle,file=/root/web1.bundle\n"
                 "\nlibvirt:\n"
                 "  <channel type='unix'>  <!-- in <devices> -->\n"
                 "    <source mode='bind' path='/run/vm/web1.sock'/>\n"
                 "    <target type='virtio' name='org.postern.agent.0'/>\n"
                 "  </channel>\n"
                 "  <sysinfo type='fwcfg'>\n"
                 "    <entry name='opt/org.postern/bundle' file='/root/web1.bundle'/>\n"
                 "  </sysinfo>\n"
                 "\ncloud-init: this command writes user-data with the bundle in it, for you alone:\n"
                 "(umask 077; { cat; sed 's/^/      /' /root/web1.bundle; } > user-data) <<'END'\n"
                 "#cloud-config\n"
                 "write_files:\n"
                 "  - path: /etc/postern/bundle\n"
                 "    owner: root:root\n"
                 "    permissions: '0600'\n"
                 "    content: |\n"
                 "END\n"));
}

TEST_CASE("the snippets of the other transports name what they need") {
  auto vsock = snippetsFor(endpoint("vsock:42"), "/b");
  CHECK(test::contains(vsock.qemu, "-device vhost-vsock-pci,guest-cid=42\n"));
  CHECK(test::contains(vsock.libvirt, "<cid auto='no' address='42'/>"));
  CHECK(test::contains(snippetsFor(endpoint("vsock:any"), "/b").libvirt, "<cid auto='yes'/>"));
  auto hybrid = snippetsFor(endpoint("hybrid:/run/fc.sock"), "/b");
  CHECK((hybrid.firecracker == "{\"guest_cid\":3,\"uds_path\":\"/run/fc.sock\"}\n"));
  CHECK((hybrid.qemu == ""));  // Firecracker has neither SMBIOS strings nor fw_cfg
  CHECK((guestEndpointFor(endpoint("serial:/s")) == ""));
  CHECK((guestEndpointFor(endpoint("vsock:42")) == "vsock:host:9700"));
  CHECK((guestEndpointFor(endpoint("hybrid:/f:5000")) == "vsock:host:5000"));
  CHECK((guestEndpointFor(endpoint("unix:/u")) == "unix:/u"));
}

TEST_CASE("paths are escaped as QEMU, shells and XML want it") {
  auto odd = snippetsFor(endpoint("serial:/run/a,b 'c'<&>.sock"), "/tmp/x,y 'z'&.bundle");
  CHECK(test::contains(odd.qemu, "'socket,id=postern0,path=/run/a,,b '\\''c'\\''<&>.sock,server=on,wait=off'"));
  CHECK(test::contains(odd.qemu, "-smbios 'type=11,path=/tmp/x,,y '\\''z'\\''&.bundle'"));
  CHECK(test::contains(odd.libvirt, "path='/run/a,b &apos;c&apos;&lt;&amp;&gt;.sock'"));
  CHECK(test::contains(odd.libvirt, "file='/tmp/x,y &apos;z&apos;&amp;.bundle'"));
}

TEST_CASE("the command for cloud-init runs, and puts the bundle where it belongs") {
  test::TemporaryFolder folder;
  auto bundle = folder.path("a 'b'.bundle");
  auto* file = fopen(bundle.cStr(), "w");
  fputs("postern-bundle-1:abc\n", file);
  fclose(file);
  auto command = kj::str("cd ", folder.path(""), "\n", snippetsFor(endpoint("unix:/u"), bundle).cloudInit);
  REQUIRE(system(command.cStr()) == 0);
  CHECK((slurp(folder.path("user-data")) == "#cloud-config\nwrite_files:\n  - path: /etc/postern/bundle\n"
                                            "    owner: root:root\n    permissions: '0600'\n    content: |\n"
                                            "      postern-bundle-1:abc\n"));
}

TEST_CASE("a VM's state as a line, a row and JSON is safe whatever posternd says") {
  capnp::MallocMessageBuilder message;
  auto status = message.initRoot<host::schema::VmStatus>();
  status.setName("web1\033[2J");
  status.setColour("green\n");
  status.setReason("odd\007reason");
  status.setSinceMilliseconds(UINT64_MAX);
  status.setHeartbeatMilliseconds(INT64_MAX);
  status.setUptimeSeconds(UINT64_MAX);
  status.setAgentVersion(kj::str(kj::repeat('v', 10000)));
  auto state = stateOf(status.asReader());
  for (auto& text : {tableOf(kj::arrayPtr(&state, 1), Colours::OFF), lineOf(state)}) {
    CHECK(text.size() < 600);
    for (char c : text) CHECK(((c >= ' ' && c <= '~') || c == '\n'));
  }
  CHECK((state.since > 0 * kj::SECONDS));
  CHECK((state.uptime > 0 * kj::SECONDS));
}

TEST_CASE("a state's word is explained, and one of a newer posternd is shown as it is") {
  capnp::MallocMessageBuilder message;
  auto status = message.initRoot<host::schema::VmStatus>();
  status.setName("web1");
  status.setColour("red");
  status.setReason("silent");
  CHECK((stateOf(status.asReader()).explanation == host::describe(host::Reason::SILENT)));
  status.setReason("bewitched");
  CHECK((stateOf(status.asReader()).explanation == "bewitched"));
}
