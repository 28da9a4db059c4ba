"""The host's programs on this machine, in a temporary folder: posternd with its sessions, and postern to ask them."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import tempfile
import time

READY_SECONDS = 20
COMMAND_SECONDS = 60
POLL_SECONDS = 0.05
# What events say of a reason, and its name.
NAMES = {
    "it said that it shuts down": "shut-down",
    "it restarts": "restarting",
    "its agent was stopped in good order": "agent-stopped",
    "it is paused on purpose": "paused",
    "it is switched off": "vm-off",
    "its heartbeats come on time": "on-time",
    "it has just connected": "connected",
    "its heartbeats come again": "recovering",
    "its heartbeat is late": "late",
    "its agent gets too little CPU time": "starved",
    "it is going down": "stopping",
    "it runs again after a gap": "resumed",
    "its link was cut without a goodbye": "link-lost",
    "nobody in it has Postern's port open; is postern-agent running in it?": "port-closed",
    "the host's process for it ended": "session-died",
    "no heartbeat comes; is it hung, or postern-agent killed?": "silent",
}


class Done:
    """What a command came to."""

    def __init__(self, command, process):
        self.command = command
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def __str__(self):
        return f"{shlex.join(self.command)} ended with status {self.status}\n{self.out}{self.err}"


class HostSide:
    """Lives for the length of a `with` block: at its end posternd, the sessions and the folder are gone.

    Should this process be killed, posternd ends with its sessions by itself. Waits fail with what was seen last.
    """

    def __init__(self, programs):
        """`programs` is the build tree's folder."""
        self.programs = pathlib.Path(programs).resolve()
        self._daemon = None

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="postern-host-")
        self.folder = pathlib.Path(self._folder.name)
        self.root = self.folder / "host"
        self.root.mkdir()
        self._log = open(self.folder / "posternd.log", "ab")
        return self

    def __exit__(self, *error):
        try:
            self._end()
        finally:
            self._log.close()
            self._folder.cleanup()

    # --- posternd ----------------------------------------------------------------------------------------------

    @property
    def command(self):
        return [str(self.programs / "host/posternd"), "--root", str(self.root)]

    @property
    def pid(self):
        return self._daemon.pid

    def start(self):
        since = self.log.count('"event":"ready"')
        # SIGINT ends the sessions, too.
        self._daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", *self.command], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

        def ready():
            if self._daemon.poll() is not None:
                raise AssertionError(f"posternd ended with status {self._daemon.returncode}:\n{self.log}")
            return self.log.count('"event":"ready"') > since

        wait_until(ready, READY_SECONDS, "posternd's readiness", lambda: self.log)

    def send_signal(self, number):
        self._daemon.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Ends posternd by a signal; SIGTERM and SIGKILL leave the sessions. Gives its exit status."""
        self._daemon.send_signal(number)
        status = self._daemon.wait(READY_SECONDS)
        self._daemon = None
        return status

    @property
    def log(self):
        return (self.folder / "posternd.log").read_text(errors="replace")

    def session_pid(self, vm):
        return int((self.root / f"run/postern/sessions/{vm}.pid").read_text().split()[0])

    # --- postern -----------------------------------------------------------------------------------------------

    def postern_command(self, *arguments):
        return [str(self.programs / "host/postern"), "--root", str(self.root), *map(str, arguments)]

    def postern(self, *arguments, status=0, timeout=COMMAND_SECONDS):
        """Runs postern. `status` is what it has to end with; None: whatever."""
        command = self.postern_command(*arguments)
        process = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        done = Done(command, process)
        if status is not None and done.status != status:
            raise AssertionError(f"{done}expected status {status}; posternd's log ends:\n{self.log[-3000:]}")
        return done

    def begin(self, *arguments):
        """Starts postern and leaves it running; for communicate()."""
        return subprocess.Popen(
            self.postern_command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def enroll(self, vm, endpoint, *options):
        """Registers a VM; gives its bundle's file."""
        bundle = self.folder / f"{vm}.bundle"
        self.postern("enroll", vm, "--transport", endpoint, "--bundle-file", bundle, *options)
        return bundle

    def status(self, vm):
        """The VM's line of `postern status`, as a dictionary."""
        return json.loads(self.postern("status", vm, "--json").out)["vms"][0]

    def wait_for_status(self, vm, state, reason, timeout):
        """Waits until `postern status` shows colour and reason; gives the line."""
        seen = {}

        def shows():
            seen.update(self.status(vm))
            return (seen["state"], seen["reason"]) == (state, reason)

        wait_until(shows, timeout, f"{vm} to be {state} ({reason})", lambda: f"{seen}\n{self.story(vm)}")
        return seen

    # --- events ------------------------------------------------------------------------------------------------

    def events(self, vm, since=0):
        """The events of a VM after event number `since`, oldest first, as dictionaries."""
        lines = self.postern("events", vm, "--last", "1000", "--json").out.splitlines()
        return [event for event in map(json.loads, lines) if event["sequence"] > since]

    def mark(self, vm):
        """The number of the VM's newest event: pass it as `since` to skip all that is there now."""
        return max((event["sequence"] for event in self.events(vm)), default=0)

    def wait_for_event(self, vm, kind, timeout, since=0, text=""):
        """Waits for an event of that kind whose text contains `text`, and gives it."""

        def found():
            return next((e for e in self.events(vm, since) if e["kind"] == kind and text in e["text"]), None)

        return wait_until(found, timeout, f"event {kind} {text!r} of {vm}", lambda: self.story(vm))

    def story(self, vm):
        """The VM's events as text, for a failure."""
        return self.postern("events", vm, status=None).out

    # -----------------------------------------------------------------------------------------------------------

    def _end(self):
        sessions = [int((file.read_text().split() or [0])[0]) for file in self.root.glob("run/postern/sessions/*.pid")]
        if self._daemon:
            self._daemon.send_signal(signal.SIGINT)
            try:
                self._daemon.wait(READY_SECONDS)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        # Those of a posternd that was killed or hung.
        for pid in sessions:
            if self._is_session(pid):
                os.kill(pid, signal.SIGKILL)

    def _is_session(self, pid):
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return command[0] == str(self.programs / "host/postern-session").encode()


def wait_until(condition, timeout, awaited, seen=lambda: ""):
    """Polls until condition() gives something true, and returns that; AssertionError at the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {awaited}; seen last:\n{seen()}")
        time.sleep(POLL_SECONDS)


def colours_of(events):
    """The changes of colour among them: [(colour, reason)]."""
    return [(e["kind"], NAMES[e["text"]]) for e in events if e["kind"] in ("green", "yellow", "red", "gray")]
