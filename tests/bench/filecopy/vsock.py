"""A guest that plays the host and a guest inside it, joined by the kernel's vhost-vsock. No vsock is opened outside."""

import contextlib
import json
import pathlib
import tempfile

from agent_guest import agent_initramfs
from guestlab import INNER_CONSOLE, INNER_LINE, INNER_READY, nested_vsock_guest
from host_side import wait_until

from .data import MIB
from .native_postern import policy
from .rounds import fastest, interleave, speed
from .setting import SFTP_SERVER, find
from .ssh_server import CIPHERS, PRIVILEGE_FOLDER, client_settings, make_keys, server_settings

VM = "web1"
CID = 42
SSH_PORT = 22
RAW_PORT = 5001
PATIENTLY = "retry=100,interval=0.1"  # the inner guest begins to listen while it starts
FOLDER = "/srv"
SSH_FOLDER = "/etc/compared"
BUNDLE = "/run/web1.bundle"
BOOT_SECONDS = 240
COPY_SECONDS = 300
SOCAT = "socat, no cipher, host to guest"
SCP = "scp, host to guest"
SCP_BACK = "scp, guest to host"
PUT = "postern cp, host to guest"
GET = "postern cp, guest to host"

INNER_SCRIPT = f"""\
mkdir -p {FOLDER} {PRIVILEGE_FOLDER}
echo 'sshd:x:102:65534::{PRIVILEGE_FOLDER}:/bin/false' >>/etc/passwd
echo 'exec {find("sshd")} -i -f {SSH_FOLDER}/sshd_config -E /tmp/sshd.log' >/run/serve
socat VSOCK-LISTEN:{SSH_PORT},fork 'EXEC:sh /run/serve' >/tmp/socat 2>&1 </dev/null &
socat -u -b 65536 VSOCK-LISTEN:{RAW_PORT},fork CREATE:{FOLDER}/copy >/tmp/socat-raw 2>&1 </dev/null &
"""
OUTER_HOSTS = f"""\
Host guest
ProxyCommand socat -b 65536 - VSOCK-CONNECT:{CID}:{SSH_PORT},{PATIENTLY}
"""


class NestedGuests:
    """Both are up. Each method makes one copy of the outer one's `source`, timed there, and gives its Sample."""

    def __init__(self, setting, outer):
        self._outer = outer
        self._size = setting.amount(32 * MIB, MIB)
        outer.run(f"head -c {self._size} /dev/urandom >{FOLDER}/source", timeout=COPY_SECONDS)
        self._sum = self._hash_in_outer("source")
        self._seen = set()

    def socat(self):
        self._clear()
        sample = self._timed(f"socat -u -b 65536 {FOLDER}/source VSOCK-CONNECT:{CID}:{RAW_PORT},{PATIENTLY}")
        self._check(SOCAT)
        return sample

    def scp(self, cipher, back=False):
        self._clear()
        ends = f"guest:{FOLDER}/kept copy" if back else f"source guest:{FOLDER}/copy"
        sample = self._timed(f"cd {FOLDER} && scp -q -S /bin/ssh -F {SSH_FOLDER}/ssh_config -o Ciphers={cipher} {ends}")
        self._check(f"scp {back}", back)
        return sample

    def put(self):
        self._clear()
        sample = self._timed(f"postern cp {FOLDER}/source {VM}:{FOLDER}/copy")
        self._check(PUT)
        return sample

    def get(self):
        self._clear()
        sample = self._timed(f"postern cp {VM}:{FOLDER}/kept {FOLDER}/copy")
        self._check(GET, back=True)
        return sample

    def keep(self):
        """Leaves `kept` in the inner guest, the source of copies in the other direction."""
        self.socat()
        self.in_inner(f"mv {FOLDER}/copy {FOLDER}/kept")

    def in_inner(self, command):
        """Types a command in the inner guest, waits until it has run, and gives what it printed."""
        begin = self._outer.console.position
        self._outer.run(f"echo '{command}; echo typed-$((40 + 2))' >{INNER_CONSOLE}")
        self._outer.wait_for(f"{INNER_LINE}typed-42", COPY_SECONDS, since=begin)
        lines = self._outer.console.text_since(begin).splitlines()
        return "\n".join(line.removeprefix(INNER_LINE) for line in lines if line.startswith(INNER_LINE))

    def _timed(self, command):
        text = f"a=$(cut -d ' ' -f 1 /proc/uptime); {command} || exit; echo took $a $(cut -d ' ' -f 1 /proc/uptime)"
        words = self._outer.run(text, timeout=COPY_SECONDS).output.split()
        began, ended = words[words.index("took") + 1 :][:2]
        return speed(self._size, max(float(ended) - float(began), 0.01))

    def _clear(self):
        self._outer.run(f"rm -f {FOLDER}/copy")
        self.in_inner(f"rm -f {FOLDER}/copy")

    def _check(self, who, back=False):
        """The first copy of everyone has the source's hash."""
        if who in self._seen:
            return
        self._seen.add(who)
        found = self._hash_in_outer("copy") if back else self.in_inner(f"sha256sum {FOLDER}/copy")
        assert self._sum in found, f"{who}: the copy is not what was copied: {found}"

    def _hash_in_outer(self, name):
        return self._outer.run(f"sha256sum {FOLDER}/{name}", timeout=COPY_SECONDS).output.split()[0]


def measure(setting, section):
    absent = setting.without("ssh", "scp", "sshd", SFTP_SERVER, "socat")
    if absent:
        section.notes.append(f"left out: {absent}")
        return
    with contextlib.ExitStack() as stack:
        keys = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postern-copy-")))
        outer = stack.enter_context(_boot(setting, keys))
        section.title = "vhost-vsock between an emulated guest and a guest inside it, memory to memory"
        copies = NestedGuests(setting, outer)
        copies.keep()
        cipher = fastest({cipher: copies.scp(cipher) for cipher in CIPHERS}, section)
        contenders = {SOCAT: copies.socat, SCP: lambda: copies.scp(cipher), SCP_BACK: lambda: copies.scp(cipher, back=True)}
        if setting.postern:
            _wait_green(outer)
            contenders[PUT], contenders[GET] = copies.put, copies.get
        interleave(setting, section, "MB/s", contenders)
    section.compare(PUT, SCP)
    section.compare(GET, SCP_BACK)
    section.compare(PUT, SOCAT)


@contextlib.contextmanager
def _boot(setting, folder):
    """The outer guest with posternd, and the inner one with agent, sshd and socat as servers; both are up."""
    make_keys(folder)
    hosts = [setting.built(name) for name in ("host/posternd", "host/postern-session", "host/postern")]
    with nested_vsock_guest(
        outer_programs=[*hosts, *(find(name) for name in ("socat", "ssh", "scp"))],
        inner_initramfs=_inner_initramfs(setting, folder),
        inner_script=INNER_SCRIPT,
        inner_cid=CID,
        inner_memory_mib=512,
        inner_arguments=f"-fw_cfg name=opt/org.postern/bundle,file={BUNDLE}",
        memory_mib=2048,
    ) as outer:
        settings = client_settings(SSH_FOLDER, "root") + OUTER_HOSTS
        outer.run(f"mkdir -p {FOLDER} {SSH_FOLDER}; cat >{SSH_FOLDER}/ssh_config <<'END'\n{settings}END")
        key = (folder / "user-key").read_text()
        outer.run(f"umask 077; cat >{SSH_FOLDER}/user-key <<'END'\n{key}END")
        outer.run("posternd >/tmp/posternd.log 2>&1 &")
        outer.run("until grep -q '\"event\":\"ready\"' /tmp/posternd.log; do sleep 0.1; done")
        grants = f"--grant ping,file:{FOLDER}/** --to user:root"
        outer.run(f"postern enroll {VM} --transport vsock:{CID} --bundle-file {BUNDLE} {grants}")
        outer.run("start-inner")
        outer.wait_for(INNER_READY, BOOT_SECONDS)
        yield outer


def _inner_initramfs(setting, folder):
    initramfs = agent_initramfs(setting.build, files={"/etc/postern/agent.toml": policy(FOLDER, "root")})
    initramfs.add_program(find("socat"), "/bin/socat")
    for program in find("sshd"), SFTP_SERVER:
        initramfs.add_program(program, program)
    initramfs.add_text(f"{SSH_FOLDER}/sshd_config", server_settings(SSH_FOLDER))
    initramfs.add_file(folder / "user-key.pub", f"{SSH_FOLDER}/user-key.pub")
    return initramfs.add_file(folder / "host-key", f"{SSH_FOLDER}/host-key", mode=0o600)


def _wait_green(outer):
    def green():
        return json.loads(outer.run(f"postern status {VM} --json").output)["vms"][0]["state"] == "green"

    wait_until(green, BOOT_SECONDS, f"{VM} to be green", lambda: outer.run("tail -n 30 /tmp/posternd.log").output)
