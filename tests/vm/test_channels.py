"""Channels between two real guests over virtio-serial, and from the host into one of them."""

import json
import subprocess
import time
import unittest

from agent_guest import agent_guest, agent_initramfs
from guestlab import GuestPackage
from host_probe import build_folder
from host_side import HostSide, wait_until

SERVER, CLIENT = "web1", "web2"
BOOT_SECONDS = 120
SOON_SECONDS = 30
PAGE = "<p>a page of the other guest</p>\n"
LARGE_MIB = 64
UPLOAD_BYTES = 300_000
WEB, COUNT = "127.0.0.1:8080", "127.0.0.1:7000"

HOST_RULES = {
    "people": ("host", SERVER, '["service.ssh"]', ""),
    "page": (CLIENT, SERVER, '["service.http"]', 'limit = { rate = "2 MiB/s", burst = "256 KiB" }'),
    "count": (CLIENT, SERVER, '["service.count"]', ""),
}
SERVER_SETTINGS = f"""policy = 1
[[allow]]
id = "host"
call = ["ping", "service.ssh"]
[[allow]]
id = "peer"
from = "{CLIENT}"
call = ["service.http", "service.count"]
[service.http]
target = "tcp:127.0.0.1:80"
[service.ssh]
target = "tcp:127.0.0.1:22"
[service.count]
target = ["/bin/sh", "-c", "wc -c"]
user = "root"
"""
CLIENT_SETTINGS = f"""policy = 1
[[allow]]
id = "host"
call = "ping"
[[consume]]
listen = "tcp:{WEB}"
from = "{SERVER}"
service = "http"
[[consume]]
listen = "tcp:{COUNT}"
from = "{SERVER}"
service = "count"
"""
SSHD_SETTINGS = """Port 22
ListenAddress 127.0.0.1
HostKey /etc/ssh/host-key
AuthorizedKeysFile /etc/ssh/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
"""
LOOPBACK = "ifconfig lo 127.0.0.1 up"
# The page that is read while the port is blocked has to last.
SERVE = (
    f"{LOOPBACK} && mkdir -p /run/sshd && echo 'sshd:x:22:22::/run/sshd:/bin/false' >>/etc/passwd && "
    f"dd if=/dev/zero of=/www/large bs=1M count={LARGE_MIB} 2>/dev/null && "
    "httpd -p 127.0.0.1:80 -h /www && /usr/sbin/sshd -f /etc/ssh/sshd_config"
)


def server_initramfs(programs, keys):
    for name in ("host-key", "user-key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    files = {
        "/etc/postern/agent.toml": SERVER_SETTINGS,
        "/etc/ssh/sshd_config": SSHD_SETTINGS,
        "/etc/ssh/authorized": (keys / "user-key.pub").read_text(),
        "/www/index.html": PAGE,
    }
    initramfs = agent_initramfs(programs, files=files, first=SERVE)
    initramfs.add_program(GuestPackage.find("openssh-server").path("/usr/sbin/sshd"), "/usr/sbin/sshd")
    return initramfs.add_file(keys / "host-key", "/etc/ssh/host-key", 0o600)


class ChannelsBetweenGuests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = cls.enterClassContext(HostSide(build_folder()))
        (cls.host.root / "etc/postern/policy.d").mkdir(parents=True)
        cls.write_policy()
        cls.host.start()
        cls.keys = cls.host.folder / "keys"
        cls.keys.mkdir()
        cls.server = cls.boot(SERVER, server_initramfs(cls.host.programs, cls.keys))
        files = {"/etc/postern/agent.toml": CLIENT_SETTINGS}
        cls.client = cls.boot(CLIENT, agent_initramfs(cls.host.programs, files=files, first=LOOPBACK))
        for vm in (SERVER, CLIENT):
            cls.host.wait_for_status(vm, "green", "on-time", BOOT_SECONDS)
        print(f"transport: virtio-serial, two guests under {cls.server.accelerator}")

    @classmethod
    def boot(cls, vm, initramfs):
        socket = cls.host.folder / f"{vm}.serial"
        bundle = cls.host.enroll(vm, f"serial:{socket}", "--grant", "ping")
        return cls.enterClassContext(
            agent_guest(initramfs, socket, memory_mib=384, arguments=["-smbios", f"type=11,path={bundle}"])
        )

    @classmethod
    def write_policy(cls, *rules, vm_to_vm=False):
        lines = ["policy = 1", 'vm-to-vm = "enabled"' if vm_to_vm else ""]
        for rule in rules:
            who, to, call, more = HOST_RULES[rule]
            lines.append(f'[[allow]]\nid = "{rule}"\nfrom = "{who}"\nto = "{to}"\ncall = {call}\n{more}')
        (cls.host.root / "etc/postern/policy.d/10-channels.toml").write_text("\n".join(lines))

    def allow(self, *rules, vm_to_vm=True):
        self.write_policy(*rules, vm_to_vm=vm_to_vm)
        self.host.postern("policy", "reload")

    def setUp(self):
        self.allow(*HOST_RULES)

    def fetch(self, path="", check=True):
        return self.client.run(f"wget -q -O - http://{WEB}/{path}", timeout=SOON_SECONDS, check=check)

    def port(self, vm):
        return json.loads(self.host.postern("channel", "stats", vm, "--json").out)["ports"][0]

    def idle_ports(self):
        """Both VMs' ports, once no channel is left."""

        def idle():
            ports = {vm: self.port(vm) for vm in (SERVER, CLIENT)}
            return ports if all(port["active"] == 0 for port in ports.values()) else None

        wait_until(idle, SOON_SECONDS, "no channel", lambda: "")
        time.sleep(1)  # counters are told some times a second
        return idle()

    def ssh(self, command, status=0):
        connect = " ".join(self.host.postern_command("connect", SERVER, "ssh"))
        options = ["-F", "none", "-i", self.keys / "user-key", "-o", f"ProxyCommand={connect}", "-o", "BatchMode=yes"]
        known = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.keys / 'known'}"]
        words = ["ssh", *options, *known, f"root@{SERVER}", command]
        done = subprocess.run(words, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, status, done.stderr.decode(errors="replace"))
        return done.stdout

    def test_nothing_passes_by_default_nor_while_vm_to_vm_is_off(self):
        for rules in ((), ("page", "count")):
            self.allow(*rules, vm_to_vm=False)
            done = self.fetch(check=False)
            self.assertNotEqual(done.status, 0, done.output)
            self.assertNotIn("page", done.output)
        self.assertIn("the host's policy", self.host.postern("connect", SERVER, "ssh", status=3).err)
        self.assertIn("vm-to-vm", self.host.postern("policy", "explain", "--from", CLIENT, "--to", SERVER, "--call",
                                                    "service.http",
                                                    status=None).out)

    def test_a_web_server_in_one_guest_serves_a_page_to_the_other(self):
        self.assertEqual(self.fetch().output, PAGE)

    def test_ssh_into_a_guest_without_a_network(self):
        self.assertEqual(self.ssh("hostname; id -u"), b"guest\n0\n")
        self.assertEqual(len(self.ssh("head -c 2000000 /dev/zero")), 2_000_000)
        self.ssh("exit 7", status=7)

    def test_a_block_ends_what_is_under_way(self):
        self.client.run(f"(wget -q -O /tmp/large http://{WEB}/large; echo $? >/tmp/status) >/dev/null 2>&1 &")
        size = "stat -c %s /tmp/large 2>/dev/null || echo 0"
        wait_until(lambda: int(self.client.run(size).output) > 100_000, SOON_SECONDS, "some of the page", lambda: "")
        self.host.postern("channel", "block", SERVER)
        try:
            began = time.monotonic()
            self.client.run("until [ -s /tmp/status ]; do sleep 0.05; done", timeout=SOON_SECONDS)
            self.assertLess(time.monotonic() - began, 5)
            self.assertLess(int(self.client.run(size).output), LARGE_MIB << 20)
            self.assertNotEqual(self.fetch(check=False).status, 0)
            self.assertEqual(self.host.status(SERVER)["state"], "green")
        finally:
            self.host.postern("channel", "unblock", SERVER)
        self.assertEqual(self.fetch().output, PAGE)

    def test_counters_equal_what_was_sent(self):
        before = self.idle_ports()
        address = COUNT.replace(":", " ")
        said = self.client.run(f"head -c {UPLOAD_BYTES} /dev/urandom >/tmp/up && nc {address} </tmp/up", timeout=SOON_SECONDS)
        self.assertEqual(said.output.strip(), str(UPLOAD_BYTES))
        answer = len(str(UPLOAD_BYTES)) + 1
        after = self.idle_ports()
        for vm, out, back in ((CLIENT, UPLOAD_BYTES, answer), (SERVER, answer, UPLOAD_BYTES)):
            grown = {key: after[vm][key] - before[vm][key] for key in ("opened", "bytesOut", "bytesIn")}
            self.assertEqual(grown, {"opened": 1, "bytesOut": out, "bytesIn": back}, vm)
        self.host.postern("audit", "verify")


if __name__ == "__main__":
    unittest.main()
