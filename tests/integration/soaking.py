"""A crowd of VMs at random work, and what disturbs them; for the soak (soak-test.py).

Work that fails is excused only by a disturbance of one of those whom it needs, from its beginning on. What hangs is excused
by nothing.
"""
import contextlib
import os
import random
import shutil
import socketserver
import subprocess
import threading
import time

import channels
import copying
import lab as labs
from channels import ME, allow, connect_to

PUTTING_RIGHT_SECONDS = 30
FILES_OF_AGENT = """[[allow]]
id = "files"
call = "file.*"
args = {{ path = "{root}/**" }}
run-as = "{user}"
"""
MOST_CHANNEL_BYTES = 1 << 20
MOST_ENTRIES = 15


class Ledger:
    """Who is disturbed, and how often it was so."""

    def __init__(self):
        self.lock = threading.Lock()
        self.now, self.times = set(), {}

    @contextlib.contextmanager
    def disturbs(self, name):
        with self.lock:
            self.now.add(name)
            self.times[name] = self.times.get(name, 0) + 1
        yield
        with self.lock:
            self.now.discard(name)

    def mark(self, names):
        with self.lock:
            return {name: (name in self.now, self.times.get(name, 0)) for name in names}

    def excuses(self, mark):
        """Whether one of them was disturbed since the mark was made, or is."""
        with self.lock:
            return any(was or self.times.get(name, 0) != times for name, (was, times) in mark.items())


class Echo(socketserver.ThreadingUnixStreamServer):
    """Says what it hears."""

    daemon_threads = True
    request_queue_size = 128

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                while piece := self.request.recv(1 << 16):
                    self.request.sendall(piece)

    def __init__(self, path):
        super().__init__(path, self.Handler)
        os.chmod(path, 0o666)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class SoakLab(channels.ChannelLab, copying.CopyLab):
    """VMs in a ring: each has `cat`, a program, and `echo`, a socket, and reaches both of the next one and the host's echo."""

    def __init__(self, programs):
        super().__init__(programs)
        self.ledger = Ledger()
        self.echo = Echo(os.path.join(self.folder, "echo"))
        self.doors = {}

    def close(self):
        super().close()
        self.echo.shutdown()
        self.echo.server_close()

    def build(self, count):
        names = [f"vm{number:02}" for number in range(count)]
        target = f"unix:{self.folder}/echo"
        self.export("echo", target=target)
        self.rules()
        self.start_posternd()
        for number, name in enumerate(names):
            self.roots[name] = os.path.join(self.folder, "files-" + name)
            os.mkdir(self.roots[name])
            policy = channels.AGENT_POLICY + FILES_OF_AGENT.format(root=self.roots[name], user=ME)
            vm = self.vm_of(name, policy=policy)
            vm.export("cat", target=["/bin/cat"])
            vm.export("echo", target=target)
            following = names[(number + 1) % count]
            self.doors[name] = [(following, vm.consume(following, "cat")), (following, vm.consume(following, "echo")),
                                ("host", vm.consume("host", "echo"))]
            vm.guest = self.enroll(name, grants=None)
            vm.guest.write("etc/postern/agent.toml", vm.settings())
            vm.guest.start()
        self.all_green()
        return names

    def rules(self, blocked=None, more=""):
        files = allow("files", "host", "any", "file.*", f'args = {{ path = "{self.folder}/files-*/**" }}')
        ping = allow("ping", "host", "any", ["ping", "info.*"])
        port = f"[port.{blocked}]\nblocked = true\n" if blocked else ""
        self.policy(*channels.HURRIED_RULES, ping, files, more, port)

    def all_green(self):
        def look():
            states = self.good("status")["vms"]
            return all(state["state"] == "green" for state in states)

        labs.wait_until(look, lambda: [state for state in self.good("status")["vms"] if state["state"] != "green"],
                        PUTTING_RIGHT_SECONDS, 0.2)

    def session_pids(self):
        return {vm["vm"]: vm["sessionPid"] for vm in self.good("vm", "list")["vms"]}


class Actor(threading.Thread):
    """Does one thing after the other until it is told to stop; keeps count of them, and what failed without an excuse."""

    def __init__(self, lab, names, dice):
        super().__init__(daemon=True)
        self.lab, self.names, self.dice = lab, names, dice
        self.over = threading.Event()
        self.did, self.failures = {}, []

    def run(self):
        while not self.over.is_set():
            try:
                self.act()
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(f"{type(error).__name__}: {error}"[:3000])
            self.over.wait(self.dice.random() * self.PAUSE)

    def count(self, what, number=1):
        self.did[what] = self.did.get(what, 0) + number

    def stop(self):
        self.over.set()
        self.join(180)
        assert not self.is_alive(), f"{self} hangs"


class Worker(Actor):
    PAUSE = 0.5

    def __init__(self, lab, names, busy, dice, number):
        super().__init__(lab, names, dice)
        self.busy, self.number, self.turn = busy, number, 0

    def act(self):
        self.turn += 1
        self.dice.choice([self.copy, self.copy, self.copy_between, self.connect, self.connect, self.consume, self.consume])()

    def vm(self, but=None):
        """One of the busy ones every other time."""
        return self.dice.choice([name for name in self.dice.choice([self.busy, self.names]) if name != but])

    def attempt(self, what, parties, do):
        mark = self.lab.ledger.mark(["posternd", *parties, *("port of " + name for name in parties)])
        try:
            do()
            self.count(what)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise
        except (AssertionError, OSError):
            if not self.lab.ledger.excuses(mark):
                raise
            self.count("excused")

    # Copies ---------------------------------------------------------------------------------------------------------

    def cp(self, *arguments):
        result = self.lab.run("cp", "-a", *arguments)
        assert result.status == 0, repr(result)

    def tree(self):
        name = f"t{self.number}-{self.turn}"
        copying.random_tree(self.lab.at(name), self.dice.randrange(1, MOST_ENTRIES), self.dice.random())
        return name, copying.tree_of(self.lab.at(name))

    def tidy(self, name, vms):
        for top in (self.lab.at(name), self.lab.at(name + "-back"), *(self.lab.there(vm, name) for vm in vms)):
            shutil.rmtree(os.fsencode(top), ignore_errors=True)

    def copy(self):
        """In, back out, and removed there."""
        vm = self.vm()
        name, expected = self.tree()

        def there_and_back():
            self.cp(self.lab.at(name), self.lab.remote(vm, name))
            assert copying.tree_of(self.lab.there(vm, name)) == expected, f"{vm}: another tree arrived"
            self.cp(self.lab.remote(vm, name), self.lab.at(name + "-back"))
            assert copying.tree_of(self.lab.at(name + "-back")) == expected, f"{vm}: another tree came back"
            result = self.lab.run("rm", "-r", self.lab.remote(vm, name))
            assert result.status == 0 and not os.path.exists(self.lab.there(vm, name)), repr(result)

        self.attempt("copies", [vm], there_and_back)
        self.tidy(name, [vm])

    def copy_between(self):
        one = self.vm()
        other = self.vm(but=one)
        name, expected = self.tree()

        def across():
            self.cp(self.lab.at(name), self.lab.remote(one, name))
            self.cp(self.lab.remote(one, name), self.lab.remote(other, name))
            assert copying.tree_of(self.lab.there(other, name)) == expected, f"{one} to {other}: another tree arrived"

        self.attempt("copies", [one, other], across)
        self.tidy(name, [one, other])

    # Channels -------------------------------------------------------------------------------------------------------

    def connect(self):
        vm, service = self.vm(), self.dice.choice(["cat", "echo"])
        content = self.dice.randbytes(self.dice.randrange(MOST_CHANNEL_BYTES))

        def echoed():
            command = self.lab.command("connect", vm, service)
            done = subprocess.run(command, input=content, capture_output=True, timeout=60, check=False)
            assert done.returncode == 0, f"{command}: {done.returncode} {done.stderr}"
            assert done.stdout == content, f"{vm}: {len(done.stdout)} of {len(content)} bytes, or others"
            self.count("channel bytes", len(content))

        self.attempt("channels", [vm], echoed)

    def consume(self):
        """A program of a guest's: its end is here."""
        vm = self.vm()
        to, door = self.dice.choice(self.lab.doors[vm])
        size = self.dice.randrange(MOST_CHANNEL_BYTES)

        def echoed():
            with connect_to(door) as near:
                receiving, sending = channels.Receiving(near), channels.Sending(near, size, self.dice.random())
                assert receiving.digest() == sending.digest(), f"{vm} to {to}: other bytes came back"
                self.count("channel bytes", size)

        self.attempt("channels", [vm, to], echoed)


class Disturber(Actor):
    """Kills, reloads and blocks; one at a time, and each is put right before the next."""

    PAUSE = 1.0

    def __init__(self, lab, names, dice, victims, kills_posternd):
        super().__init__(lab, names, dice)
        self.victims, self.kills_posternd = victims, kills_posternd

    def act(self):
        if self.kills_posternd:
            self.kills_posternd = False
            return self.posternd()
        self.dice.choice([self.agent, self.session, self.broker, self.settings, self.rules, self.block])()

    def kill(self, what, pid, name, then=lambda: None):
        """A VM that was hit comes back by a new session."""
        before = self.meeting(name)
        with self.lab.ledger.disturbs(name):
            self.lab.kill_pid(pid)
            then()
            labs.wait_until(lambda: self.meeting(name) not in (before, None), f"{name} comes back", PUTTING_RIGHT_SECONDS, 0.2)
            self.lab.green(name, PUTTING_RIGHT_SECONDS)
        self.count(f"{what} kills")

    def meeting(self, name):
        vm = self.lab.vm(name)
        return (vm["sessionPid"], vm["sessions"]) if vm["connected"] else None

    def agent(self):
        name = self.dice.choice(self.victims)
        self.kill("agent", self.lab.vms[name].guest.agent_pid(), name)

    def session(self):
        name = self.dice.choice(self.victims)
        self.kill("session", self.lab.session_pid(name), name)

    def broker(self):
        name = self.dice.choice(self.victims)
        guest = self.lab.vms[name].guest

        def as_systemd_does():
            guest.program.process.wait(labs.PATIENCE)
            guest.bundle = None
            guest.start()

        self.kill("broker", guest.program.pid, name, as_systemd_does)

    def posternd(self):
        with self.lab.ledger.disturbs("posternd"):
            self.lab.posternd.kill()
            time.sleep(self.dice.random() * 3)
            self.lab.start_posternd()
            self.lab.all_green()
        self.count("posternd kills")

    # Nobody notices these two.

    def settings(self):
        self.lab.vms[self.dice.choice(self.names)].reload()
        self.count("reloads")

    def rules(self):
        more = self.dice.choice(["", allow("idle", "host", self.dice.choice(self.names), "power.suspend")])
        self.lab.rules(more=more)
        self.count("reloads")

    def block(self):
        name = self.dice.choice(self.names)
        with self.lab.ledger.disturbs("port of " + name):
            self.lab.rules(blocked=name)
            result = self.lab.run("connect", name, "echo")
            assert result.status == 3, repr(result)
            self.lab.rules()
        self.count("blocks")


def dice_of(*seed):
    return random.Random("-".join(map(str, seed)))
