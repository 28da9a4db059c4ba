"""One large file, from memory to a new file in memory, over a Unix socket between processes of this machine."""

import contextlib
import threading
import time

from .data import MIB, DataFolder, check_file
from .native_postern import NativePostern
from .processes import cpu_seconds, timed
from .qemu_agent import running_qemu_agent
from .report import Sample
from .rounds import fastest, interleave, speed
from .setting import SFTP_SERVER
from .ssh_server import CIPHERS, SshServer

BARE = "bare loop"
SCP = "scp, host to guest"
SCP_BACK = "scp, guest to host"
SCP_DIRECT = "scp, host to guest, no socat"
WRITE = "qemu-ga, write"
READ = "qemu-ga, read"
PUT = "postern cp, host to guest"
GET = "postern cp, guest to host"
AGAIN = "postern cp again, unchanged"
AGAIN_SENT = "postern cp again, content sent"
BESIDE = "postern cp, while it is pinged"
PING = "postern ping beside postern cp, p99"
PINGED_SECONDS = 2


class NativeLarge:
    """Each method makes one copy and gives its Sample."""

    def __init__(self, setting, data):
        self._bare = setting.built("tests/bench/bare-copy")
        self._data = data
        self._size = setting.amount(1024 * MIB, 2 * MIB)
        self._source = data.fill("source", self._size)
        # qemu-ga would need half a minute for all of it.
        self._small_size = setting.amount(64 * MIB, 2 * MIB)
        self._small = data.fill("small", self._small_size)
        self._seen = set()

    @property
    def megabytes(self):
        return self._size // MIB

    def bare(self):
        copy = self._data.remove("copy")
        took = timed([self._bare, "file", self._source, copy])
        self._check(BARE, copy)
        cpu = took.json()
        return speed(self._size, took.seconds, cpu["senderCpu"], cpu["receiverCpu"])

    def scp(self, server, cipher, host="guest", back=False):
        copy = self._data.remove("copy")
        ends = [f"{host}:{self._source}", copy] if back else [self._source, f"{host}:{copy}"]
        took = timed(["scp", "-q", "-F", server.config, "-o", f"Ciphers={cipher}", *ends])
        self._check(f"scp {cipher} {host} {back}", copy)
        return speed(self._size, took.seconds, took.cpu, server.take_cpu())

    def write_by_qemu_agent(self, client, pid):
        copy = self._data.remove("copy")
        before = cpu_seconds(pid)
        seconds = client.put(self._small, copy)
        self._check(WRITE, copy, self._small)
        return speed(self._small_size, seconds, None, cpu_seconds(pid) - before)

    def read_by_qemu_agent(self, client, pid):
        copy = self._data.remove("copy")
        before = cpu_seconds(pid)
        seconds = client.get(self._small, copy)
        self._check(READ, copy, self._small)
        return speed(self._small_size, seconds, None, cpu_seconds(pid) - before)

    def put(self, postern):
        took, host, guest = postern.put(self._source, self._data.remove("copy"))
        self._check(PUT, self._data.path / "copy")
        return speed(self._size, took.seconds, host, guest)

    def get(self, postern):
        took, host, guest = postern.get(self._source, self._data.remove("copy"))
        self._check(GET, self._data.path / "copy")
        return speed(self._size, took.seconds, host, guest)

    def put_again(self, postern, section):
        """The same file onto an equal one, of which next to nothing may travel. Adds a row of its own."""
        copy = self._data.remove("again")
        postern.put(self._source, copy)
        took, host, guest = postern.put(self._source, copy)
        section.add(AGAIN_SENT, "%", Sample(took.json()["summary"]["sentBytes"] / self._size * 100))
        self._check(AGAIN, copy)
        self._data.remove("again")
        return speed(self._size, took.seconds, host, guest)

    def put_beside_pings(self, postern, section):
        """Copies one after the other for as long as pings go to the same VM. Adds a row of its own."""
        p99 = []
        pings = threading.Thread(target=lambda: p99.append(postern.ping_p99(PINGED_SECONDS)))
        pings.start()
        copies = 0
        began = time.monotonic()
        while pings.is_alive() or copies == 0:
            postern.put(self._source, self._data.remove("copy"))
            copies += 1
        seconds = time.monotonic() - began
        pings.join()
        section.add(PING, "ms", Sample(p99[0]))
        return speed(self._size * copies, seconds, None, None)

    def _check(self, who, copy, source=None):
        """The first copy of everyone is compared; of the others the size."""
        source = source or self._source
        if who not in self._seen:
            check_file(source, copy)
            self._seen.add(who)
        assert copy.stat().st_size == source.stat().st_size, f"{who}: {copy} has another size"


def measure(setting, section):
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(DataFolder())
        # Source, copy, again, and its successor while that is made.
        data.touch(setting.amount(4096 * MIB, MIB))
        copies = NativeLarge(setting, data)
        section.title = f"{copies.megabytes} MiB of random bytes, tmpfs to a new file in tmpfs, over a Unix socket"
        contenders = {BARE: copies.bare}
        _add_scp(setting, section, stack, copies, contenders, data)
        _add_qemu_agent(setting, section, stack, copies, contenders, data)
        if setting.postern:
            postern = stack.enter_context(NativePostern(setting, data.path))
            contenders[PUT] = lambda: copies.put(postern)
            contenders[GET] = lambda: copies.get(postern)
            contenders[AGAIN] = lambda: copies.put_again(postern, section)
            contenders[BESIDE] = lambda: copies.put_beside_pings(postern, section)
        interleave(setting, section, "MB/s", contenders)
    _judge(section)


def _add_scp(setting, section, stack, copies, contenders, data):
    absent = setting.without("ssh", "scp", "sshd", SFTP_SERVER, "socat", root=True)
    if absent:
        section.notes.append(f"scp is left out: {absent}")
        return
    server = stack.enter_context(SshServer(data.path / "ssh"))
    cipher = fastest({cipher: copies.scp(server, cipher) for cipher in CIPHERS}, section)
    contenders[SCP] = lambda: copies.scp(server, cipher)
    contenders[SCP_BACK] = lambda: copies.scp(server, cipher, back=True)
    contenders[SCP_DIRECT] = lambda: copies.scp(server, cipher, host="direct")


def _add_qemu_agent(setting, section, stack, copies, contenders, data):
    absent = setting.without("qemu-ga")
    if absent:
        section.notes.append(f"qemu-ga is left out: {absent}")
        return
    client, pid = stack.enter_context(running_qemu_agent(data.path / "qemu-ga"))
    contenders[WRITE] = lambda: copies.write_by_qemu_agent(client, pid)
    contenders[READ] = lambda: copies.read_by_qemu_agent(client, pid)


def _judge(section):
    section.compare(PUT, BARE, at_least=0.80)
    section.compare(GET, BARE, at_least=0.80)
    section.compare(PUT, SCP, at_least=1.3)
    section.compare(GET, SCP_BACK, at_least=1.3)
    section.compare(PUT, SCP_DIRECT)
    section.compare(PUT, WRITE, at_least=15)
    section.compare(GET, READ, at_least=5)
    section.bound(AGAIN_SENT, at_most=1)
    section.bound(PING, at_most=5)
