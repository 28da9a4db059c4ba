"""VMs with services and consumers, and the sockets at both ends of a channel; for the tests of channels.

The guests' agents run on this machine, so a service's target is a socket on which the test listens, and a consumer's is one
to which it connects: near and far end of each channel are in the test's hand.
"""
import hashlib
import json
import os
import pwd
import random
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import lab as labs

ME = pwd.getpwuid(os.geteuid()).pw_name
MIB = 1 << 20
# How long a cut may take here, beside other tests on two cores; the product's own bound (100 ms) is kept in the benchmarks.
CUT_SECONDS = 1.0
QUIET_SECONDS = 0.3
COUNTERS = ("blocked", "opened", "denied", "refused", "active", "bytesOut", "bytesIn", "messagesOut", "messagesIn",
            "throttledNs", "mirrorDropped")
AGENT_POLICY = """policy = 1
[[allow]]
id = "host"
call = ["ping", "info.*", "power.*", "service.*"]
[[allow]]
id = "peers"
from = "any"
call = "service.*"
"""


def allow(name, who, to, call, more="", kind="allow"):
    """A rule; the parties and calls are text or lists."""
    parties = {"from": who, "to": to, "call": call}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in parties.items())
    return f'[[{kind}]]\nid = "{name}"\n{lines}{more}\n'


ALL_RULES = (allow("people", "host", "any", "service.*"), allow("uplink", "any", "host", "service.*"),
             allow("between", "any", "any", "service.*"))
# The same for those who begin more channels than a guest may where no rule says how many (docs/POLICY.md).
HURRIED_RULES = ALL_RULES[:1] + tuple(allow(name, "any", to, "service.*", 'limit = { calls = "100000/s" }')
                                      for name, to in (("uplink", "host"), ("between", "any")))


class Service:
    """Where a service leads to: the test accepts, and speaks itself."""

    def __init__(self, folder, name, kind="unix"):
        self.name, self.kind = name, kind
        if kind == "unix":
            self.path = os.path.join(folder, name)
            self.listen(self.path)
            os.chmod(self.path, 0o666)
            self.target = "unix:" + self.path
        else:
            self.listen(("127.0.0.1", 0))
            self.target = f"tcp:127.0.0.1:{self.listener.getsockname()[1]}"

    def listen(self, where, backlog=4096):
        self.listener = socket.socket(socket.AF_UNIX if self.kind == "unix" else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(where)
        if backlog is not None:
            self.listener.listen(backlog)

    def accept(self, seconds=labs.PATIENCE):
        if not is_ready(self.listener, select.POLLIN, seconds):
            raise AssertionError(f"nobody came to {self.name} within {seconds} s")
        connection, _ = self.listener.accept()
        connection.settimeout(labs.PATIENCE)
        return connection

    def turn_away(self):
        """Who has come and was not accepted."""
        while not self.is_quiet(0):
            self.accept().close()

    def is_quiet(self, seconds=QUIET_SECONDS):
        """Nobody comes."""
        return not is_ready(self.listener, select.POLLIN, seconds)

    def close(self):
        self.listener.close()
        if self.kind == "unix" and os.path.exists(self.path):
            os.unlink(self.path)


def is_ready(connection, what, seconds):
    """select() would know no more than 1,024 descriptors."""
    poll = select.poll()
    poll.register(connection, what)
    return bool(poll.poll(int(seconds * 1000)))


def connect_to(address, seconds=labs.PATIENCE):
    """By "unix:PATH" or "tcp:HOST:PORT"; waits until somebody listens."""
    kind, _, where = address.partition(":")

    def attempt():
        made = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        made.settimeout(labs.PATIENCE)
        try:
            made.connect(where if kind == "unix" else (where.rpartition(":")[0], int(where.rpartition(":")[2])))
            return made
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            made.close()  # the last: so many have come that the kernel does not take more
            return None

    return labs.wait_until(attempt, f"nobody listens on {address}", seconds)


class Vm:
    """A VM, its agent's settings, and what its services lead to."""

    def __init__(self, lab, name, policy=AGENT_POLICY):
        self.lab, self.name, self.policy = lab, name, policy
        self.folder = os.path.join(lab.folder, "s-" + name)
        os.mkdir(self.folder)
        self.exports, self.consumers, self.guest = {}, [], None

    def export(self, service, kind="unix", more="", target=None):
        """`target`: something else than a socket of the test's. Gives the Service, or None."""
        made = None if target else Service(self.folder, service, kind)
        user = "" if kind == "tcp" else f'user = "{ME}"\n'
        self.exports[service] = f"target = {json.dumps(target or made.target)}\n{user}{more}"
        if made:
            self.lab.services.append(made)
        return made

    def consume(self, source, service, kind="unix", address=None):
        """Gives the address on which the guest's programs find it."""
        if address is None:
            address = f"unix:{self.folder}/{source}-{service}" if kind == "unix" else f"tcp:127.0.0.1:{free_port()}"
        mode = 'mode = "0666"\n' if address.startswith("unix:") else ""
        self.consumers.append(f'[[consume]]\nlisten = "{address}"\nfrom = "{source}"\nservice = "{service}"\n{mode}')
        return address

    def settings(self):
        services = "".join(f"[service.{name}]\n{text}\n" for name, text in self.exports.items())
        return self.policy + services + "\n".join(self.consumers)

    def start(self, **options):
        self.guest = self.lab.enroll(self.name, **{"grants": "ping", **options})
        self.guest.write("etc/postern/agent.toml", self.settings())
        self.guest.start()
        try:
            self.lab.green(self.name)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.guest.program.said()[-2000:]}") from None
        return self

    def reload(self):
        """The agent reads its settings again; returns when it has."""
        program = self.guest.program
        before = program.said().count('"event":"reload')
        self.guest.write("etc/postern/agent.toml", self.settings())
        program.send(signal.SIGHUP)
        labs.wait_until(lambda: program.said().count('"event":"reload') > before,
                        lambda: f"{self.name} does not reload:\n{program.said()[-2000:]}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ChannelLab(labs.Lab):
    def __init__(self, programs):
        super().__init__(programs)
        self.services, self.vms, self.host_exports = [], {}, {}

    def close(self):
        super().close()
        for service in self.services:
            service.close()

    # Settings -------------------------------------------------------------------------------------------------------

    def policy(self, *rules, vm_to_vm=True):
        text = "policy = 1\n" + ('vm-to-vm = "enabled"\n' if vm_to_vm else "") + "\n".join(rules)
        self.write("etc/postern/policy.d/10-test.toml", text)
        if self.posternd is not None:
            self.good("policy", "reload")

    def export(self, service, kind="unix", more="", target=None):
        """A service of the host."""
        folder = os.path.join(self.folder, "s-host")
        os.makedirs(folder, exist_ok=True)
        made = None if target else Service(folder, service, kind)
        user = f'user = "{ME}"\n' if isinstance(target, list) else ""
        self.host_exports[service] = f"target = {json.dumps(target or made.target)}\n{user}{more}"
        if made:
            self.services.append(made)
        self.write("etc/postern/postern.toml",
                   "".join(f"[service.{name}]\n{text}\n" for name, text in self.host_exports.items()))
        return made

    def vm_of(self, name, **options):
        """A VM that is not started yet."""
        self.vms[name] = Vm(self, name, **options)
        return self.vms[name]

    # Channels -------------------------------------------------------------------------------------------------------

    def begin(self, *arguments, **options):
        """The CLI, going on."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(self.command(*arguments), cwd=self.folder, **pipes)

    def forward(self, vm, service, kind="unix"):
        """`postern forward`, ready: its process and its address."""
        address = f"unix:{self.folder}/f-{vm}-{service}-{free_port()}" if kind == "unix" else f"tcp:127.0.0.1:{free_port()}"
        program = self.start(f"forward-{vm}-{service}", self.command("forward", vm, address, service))
        labs.wait_until(lambda: program.process.poll() is not None or self.listens(address), f"forward on {address}")
        assert program.process.poll() is None, program.said()
        return program, address

    @staticmethod
    def listens(address):
        if address.startswith("unix:"):
            return os.path.exists(address[5:])
        with open("/proc/net/tcp") as table:
            return f":{int(address.rpartition(':')[2]):04X} 00000000:0000 0A" in table.read()

    def live(self, vm=None):
        """The live channels, as `postern channel list` has them."""
        return self.good("channel", "list", *([vm] if vm else []))["channels"]

    def stats(self, vm):
        """The VM's port, as `postern channel stats` has it."""
        return self.good("channel", "stats", vm)["ports"][0]

    def rules(self, vm):
        return {rule["rule"]: rule for rule in self.good("channel", "stats", vm)["rules"]}

    def board(self, vm):
        """The VM's port, as the status board has it (host/board/layout.h)."""
        with open(self.path("run/postern/board"), "rb") as file:
            board = file.read()
        extent = struct.unpack_from("=I", board, 96)[0]
        for slot in (board[4096 + 1024 * i:][:1024] for i in range(extent)):
            if slot[24:88].split(b"\0")[0] == vm.encode() and struct.unpack_from("=I", slot, 8)[0] == 1:
                port = dict(zip(COUNTERS, struct.unpack_from(f"={len(COUNTERS)}Q", slot, 512)))
                port["lastDenied"] = slot[512 + 128:512 + 192].split(b"\0")[0].decode()
                return port
        raise AssertionError(f"{vm} is not on the board")

    def wait_board(self, vm, seconds=5, **wanted):
        """Counters lag by some tenths of a second."""
        labs.wait_until(lambda: wanted.items() <= self.board(vm).items(),
                        lambda: f"{vm}: wanted {wanted}, has {self.board(vm)}", seconds)
        return self.board(vm)

    def audit(self, call=None, outcome=None):
        return [line for line in self.audit_log()
                if call in (None, line.get("call")) and outcome in (None, line.get("outcome"))]


# Bytes --------------------------------------------------------------------------------------------------------------


def read_exactly(connection, size):
    got = bytearray()
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            raise AssertionError(f"it ended after {len(got)} of {size} bytes")
        got += piece
    return bytes(got)


def read_to_end(connection):
    got = bytearray()
    while piece := connection.recv(1 << 16):
        got += piece
    return bytes(got)


def is_over(connection, seconds=CUT_SECONDS):
    """Whether it ends, in order or by a reset, within so many seconds; reads what is still there."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            if not connection.recv(1 << 16):
                return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        finally:
            connection.settimeout(labs.PATIENCE)
    return False


def is_refused(address):
    """A program that connects there is let in and thrown out."""
    with connect_to(address) as connection:
        return is_over(connection, labs.PATIENCE)


def reset(connection):
    """Closes so that the other side is told of an abort: TCP by RST, Unix by unread bytes or, without, by nothing."""
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def fill(connection, most=64 * MIB, pause=0.3):
    """Writes until it takes no more for a while; how much it took."""
    connection.setblocking(False)
    block, sent = bytes(1 << 16), 0
    try:
        while sent < most:
            if not is_ready(connection, select.POLLOUT, pause):
                break
            try:
                sent += connection.send(block)
            except BlockingIOError:
                pass
    finally:
        connection.settimeout(labs.PATIENCE)
    return sent


class Sending(threading.Thread):
    """Sends so many random bytes, in writes of `piece`, and ends its direction; `digest` is theirs."""

    def __init__(self, connection, size, seed=0, piece=MIB):
        super().__init__(daemon=True)
        self.connection, self.size, self.piece, self.error = connection, size, piece, None
        self.dice, self.hash = random.Random(seed), hashlib.blake2b()
        self.start()

    def run(self):
        try:
            left = self.size
            while left:
                block = self.dice.randbytes(min(left, MIB))
                self.hash.update(block)
                for at in range(0, len(block), self.piece):
                    self.connection.sendall(block[at:at + self.piece])
                left -= len(block)
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = error

    def digest(self):
        self.join(120)
        assert not self.is_alive() and self.error is None, f"sending: {self.error or 'hangs'}"
        return self.size, self.hash.hexdigest()


class Receiving(threading.Thread):
    """Reads to the end, at most `rate` bytes a second; `digest` is what came."""

    def __init__(self, connection, rate=None):
        super().__init__(daemon=True)
        self.connection, self.rate, self.error, self.size, self.hash = connection, rate, None, 0, hashlib.blake2b()
        self.start()

    def run(self):
        try:
            while piece := self.connection.recv(1 << 16 if self.rate else MIB):
                self.hash.update(piece)
                self.size += len(piece)
                if self.rate:
                    time.sleep(len(piece) / self.rate)
        except OSError as error:
            self.error = error

    def digest(self):
        self.join(120)
        assert not self.is_alive() and self.error is None, f"receiving: {self.error or 'hangs'} after {self.size}"
        return self.size, self.hash.hexdigest()
