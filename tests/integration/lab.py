"""Postern's programs as processes below a temporary folder, for tests.

A Lab is a host: its root folder, posternd, and the guests' agents, each with a root of its own. What programs say goes
into files in the folder. Whatever a Lab has started, and what that has started, is gone after close(), found by pid:
the test's process adopts orphans, so that a session process that outlives its posternd is still ours to end.
"""
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PATIENCE = 20
GREEN_WITHIN = 10
PR_SET_CHILD_SUBREAPER = 36

ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Programs:
    """Where the programs are: the build tree's, by the arguments of a test."""

    def __init__(self, host_folder, agent, hostile, caller):
        self.posternd = os.path.join(host_folder, "posternd")
        self.postern = os.path.join(host_folder, "postern")
        self.agent = agent
        self.hostile = hostile
        self.caller = caller


def wait_until(condition, what, seconds=PATIENCE, interval=0.02):
    """The first true value of condition(); fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(interval)


def state_of(pid):
    """The letter of /proc/PID/stat; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    return state_of(pid) not in (None, "Z", "X")


def children_of(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def children_with(pid, option):
    """The children of `pid` that were started with this option."""
    found = []
    for child in children_of(pid):
        try:
            with open(f"/proc/{child}/cmdline", "rb") as file:
                if option.encode() in file.read().split(b"\0"):
                    found.append(child)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child] + descendants_of(child)
    return found


def memory_kib(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise AssertionError(f"{pid} has no {field}")


def descriptors_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Result:
    """How a command ended."""

    def __init__(self, command, status, out, err):
        self.command, self.status, self.out, self.err = command, status, out, err

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"{' '.join(self.command)}\nexit status {self.status}\n{self.out}{self.err}"


class Program:
    """One process, with what it says on stdout and stderr in a file."""

    def __init__(self, lab, name, command, **options):
        self.name = name
        self.log = os.path.join(lab.folder, name + ".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=lab.folder, **options)
        self.pid = self.process.pid

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def wait_for(self, text, seconds=PATIENCE):
        wait_until(lambda: text in self.said(), lambda: f"{self.name}: no '{text}' in\n{self.said()[-3000:]}", seconds)

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM, seconds=PATIENCE):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self):
        return self.end(signal.SIGKILL)


class Guest:
    """A guest's agent: its root folder, its bundle, its process."""

    def __init__(self, lab, name, connect, bundle):
        self.lab, self.name, self.connect, self.bundle = lab, name, connect, bundle
        number = sum(entry.startswith("guest-") for entry in os.listdir(lab.folder))
        self.root = os.path.join(lab.folder, f"guest-{number}-{name}")
        os.makedirs(os.path.join(self.root, "etc/postern"))
        self.write("etc/machine-id", "".join(f"{b:02x}" for b in os.urandom(16)) + "\n")
        self.program = None

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def start(self, *arguments):
        command = [self.lab.programs.agent, "--root", self.root, "--connect", self.connect, *arguments]
        if self.bundle:
            command += ["--bundle-file", self.bundle]
        self.program = self.lab.start("agent-" + self.name, command)
        return self

    def agent_pid(self):
        """Of the process that holds the link: the broker's child."""

        what = f"{self.name}: the broker has no agent process"
        return wait_until(lambda: children_with(self.program.pid, "--agent-process"), what)[0]


class Hostile:
    """The hostile guest (hostile-guest.cpp) in place of a guest's agent; does one deed after the other."""

    def __init__(self, guest):
        lab = guest.lab
        self.log = os.path.join(lab.folder, f"hostile-{guest.name}.log")
        command = [lab.programs.hostile, guest.bundle, guest.connect.removeprefix("unix:")]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            text=True)

    def begin(self, deed, milliseconds=0):
        self.deed = deed
        self.process.stdin.write(f"{deed} {milliseconds}\n")
        self.process.stdin.flush()
        self.expect("begins")

    def expect(self, word):
        words = self.process.stdout.readline().split()
        if words[:2] != [word, self.deed]:
            with open(self.log) as log:
                raise AssertionError(f"{self.deed}: {words}\n{log.read()}")
        return words

    def done(self):
        """How often it did what it began; waits for the end of it."""
        return int(self.expect("did")[2])

    def stop(self):
        """Ends a deed that goes on until a line comes."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def does(self, deed, milliseconds=0):
        self.begin(deed, milliseconds)
        return self.done()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Lab:
    def __init__(self, programs):
        self.programs = programs
        self.folder = tempfile.mkdtemp(prefix="postern-")
        os.chmod(self.folder, 0o755)
        self.root = os.path.join(self.folder, "h")
        os.makedirs(os.path.join(self.root, "etc/postern/policy.d"))
        self.started = []
        self.posternd = None

    # Processes ------------------------------------------------------------------------------------------------------

    def start(self, name, command, **options):
        program = Program(self, name, command, **options)
        self.started.append(program)
        return program

    def start_posternd(self, *arguments, user=None):
        command = [self.programs.posternd, "--root", self.root, *arguments]
        if user is not None:
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
        self.posternd = self.start("posternd", command)
        wait_until(lambda: self.posternd.process.poll() is not None or self.answers(),
                   lambda: f"posternd is not ready:\n{self.posternd.said()[-3000:]}")
        assert self.posternd.process.poll() is None, self.posternd.said()[-3000:]
        return self.posternd

    def answers(self):
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(self.control_socket)
            return True
        except OSError:
            return False
        finally:
            probe.close()

    def reap(self):
        """Adopted processes that have ended."""
        ours = {program.pid for program in self.started}
        for pid in children_of(os.getpid()):
            if pid not in ours and state_of(pid) == "Z":
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass

    def close(self):
        # Who starts others goes first.
        for program in self.started:
            below = descendants_of(program.pid)
            if program.process.poll() is None:
                program.process.kill()
            for pid in below:
                self.kill_pid(pid)
            program.process.wait(PATIENCE)
        ours = {program.pid for program in self.started}

        def all_gone():
            left = [pid for pid in descendants_of(os.getpid()) if pid not in ours]
            for pid in left:
                self.kill_pid(pid)
            self.reap()
            return not left

        wait_until(all_gone, "processes of this test are still there")
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def kill_pid(pid, number=signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    # The host -------------------------------------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.root, name)

    @property
    def control_socket(self):
        return self.path("run/postern/control.sock")

    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path

    def command(self, *arguments, user=None, groups=()):
        command = [self.programs.postern, "--root", self.root, *map(str, arguments)]
        if user is not None:
            listed = "--groups=" + ",".join(map(str, groups)) if groups else "--clear-groups"
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", listed, *command]
        return command

    def run(self, *arguments, user=None, groups=(), seconds=60, text=None):
        """The CLI to its end."""
        command = self.command(*arguments, user=user, groups=groups)
        done = subprocess.run(command, stdin=subprocess.DEVNULL if text is None else None, input=text,
                              capture_output=True, timeout=seconds, cwd=self.folder)
        return Result(command, done.returncode, done.stdout.decode(errors="surrogateescape"),
                      done.stderr.decode(errors="surrogateescape"))

    def good(self, *arguments, **options):
        """The CLI's result as JSON; it succeeds."""
        result = self.run("--json", *arguments, **options)
        assert result.status == 0, repr(result)
        return result.json()

    def enroll(self, name, transport=None, grants="ping,info,power", *more):
        """Registers a VM; its guest, not started."""
        socket_path = os.path.join(self.folder, name + ".sock")
        transport = transport or "unix:" + socket_path
        bundle = os.path.join(self.folder, name + ".bundle")
        arguments = ["enroll", name, "--transport", transport, "--bundle-file", bundle, *more]
        if grants:
            arguments += ["--grant", grants]
        self.good(*arguments)
        return Guest(self, name, "unix:" + socket_path, bundle)

    def vm(self, name):
        return self.good("vm", "show", name)["vm"]

    def status(self, name):
        return self.good("status", name)["vms"][0]

    def beat(self, name):
        """Which session it is and how old the last heartbeat is."""
        vm = self.vm(name)
        return vm["sessions"], vm["status"]["heartbeatSeconds"]

    def sequence(self, name):
        """Of the last heartbeat, as the status board has it (host/board/layout.h)."""
        with open(self.path("run/postern/board"), "rb") as file:
            board = file.read()
        extent = struct.unpack_from("=I", board, 96)[0]
        for slot in (board[4096 + 1024 * i:][:1024] for i in range(extent)):
            if slot[24:88].split(b"\0")[0] == name.encode() and struct.unpack_from("=I", slot, 8)[0] == 1:
                return struct.unpack_from("=Q", slot, 128)[0]
        raise AssertionError(f"{name} is not on the board")

    def wait_colour(self, name, colour, seconds=GREEN_WITHIN):
        seen = {}

        def look():
            result = self.run("--json", "status", name)
            if result.status != 0:
                seen["last"] = repr(result)
                return False
            seen["last"] = result.json()["vms"][0]
            return seen["last"]["state"] == colour

        wait_until(look, lambda: f"{name} is not {colour}: {seen.get('last')}\n{self.posternd.said()[-2500:]}", seconds, 0.1)

    def green(self, name, seconds=GREEN_WITHIN):
        self.wait_colour(name, "green", seconds)

    def pair(self, name, **options):
        """A VM whose agent is connected and green."""
        guest = self.enroll(name, **options)
        guest.start()
        self.green(name)
        return guest

    def session_pid(self, name):
        return wait_until(lambda: self.vm(name)["sessionPid"], f"{name} has no session process")

    def events(self, vm=None):
        arguments = ["--json", "events", "-n", "1000"] + ([vm] if vm else [])
        result = self.run(*arguments)
        assert result.status == 0, repr(result)
        return [json.loads(line) for line in result.out.splitlines()]

    def event_kinds(self, vm):
        return [event["kind"] for event in self.events(vm)]

    def audit_log(self):
        """Its lines; one that is just being written is not there yet."""
        with open(self.path("var/log/postern/audit.log")) as log:
            return [json.loads(line) for line in log if line.endswith("\n")]

    def verify_audit(self):
        result = self.run("audit", "verify")
        assert result.status == 0, repr(result)
        return result.out


class Witness:
    """Watches that a VM stays undisturbed: the same session, green, its heartbeats on time and counted on."""

    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.session, _ = lab.beat(name)
        self.sequence = lab.sequence(name)
        self.began = time.monotonic()
        self.pid = lab.session_pid(name)
        self.since = max((event["time"] for event in lab.events(name)), default="")

    def look(self, case):
        state = self.lab.status(self.name)
        case.assertEqual(state["state"], "green", f"{self.name}: {state}")
        case.assertLess(state["heartbeatSeconds"], 2.0)

    def end(self, case):
        self.look(case)
        vm = self.lab.vm(self.name)
        case.assertEqual(vm["sessions"], self.session, f"{self.name} was connected anew: {self.lab.events(self.name)}")
        case.assertEqual(vm["sessionPid"], self.pid)
        passed = time.monotonic() - self.began
        case.assertGreaterEqual(self.lab.sequence(self.name), self.sequence + int(passed) - 2)
        kinds = {event["kind"] for event in self.lab.events(self.name) if event["time"] > self.since}
        case.assertFalse(kinds & {"yellow", "red", "lost", "session-gone"}, self.lab.events(self.name))


class TimedResult(unittest.TextTestResult):
    """Says how long each test took."""

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        self.stream.write(f"{time.monotonic() - self.began:.1f} s ")
        super().addSuccess(test)


def main():
    """The tests of the program that calls this, with the arguments behind those that say where programs are."""
    runner = unittest.TextTestRunner(verbosity=2, resultclass=TimedResult)
    unittest.main(argv=[sys.argv[0]] + sys.argv[5:], testRunner=runner)
