"""The process that owns a guest's QEMU and its temporary folder, so that neither outlives the test.

Runs as a program of its own: custodian.py LIFELINE STATUS, two inherited pipe descriptors. It makes the folder, waits
for a line of JSON (QEMU's argument list) on the lifeline, starts QEMU with its own stdin, stdout and stderr, and
reports on the status pipe: "folder PATH", "pid N", "exit N" (as subprocess counts: negative for a signal) or
"error TEXT". A line "kill" on the lifeline ends QEMU. When the lifeline closes, for whatever reason (the test ended,
or was killed), QEMU is killed, the folder is removed and the custodian ends.

It leaves its parent's process tree and session, so that whoever kills the test with all its descendants (ctest at a
time-out, Ctrl-C in a terminal) leaves it alive to clean up. If somebody kills it, QEMU dies with it.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile

PR_SET_PDEATHSIG = 1
TEMPORARY_PREFIX = "postern-guest-"


def main(lifeline, status):
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    folder = tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)
    try:
        report(status, f"folder {folder}")
        lines = Lines(lifeline)
        command = lines.next(extra=None)
        if command:
            keep(json.loads(command), lines, status, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(arguments, lines, status, folder):
    try:
        custodian = os.getpid()
        qemu = subprocess.Popen(arguments, cwd=folder, preexec_fn=lambda: die_with(custodian))
    except OSError as error:
        report(status, f"error {error}")
        lines.next(extra=None)
        return
    # QEMU alone holds the console now: its end is the end of the pipe.
    for descriptor in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    report(status, f"pid {qemu.pid}")
    handle = os.pidfd_open(qemu.pid)
    try:
        while (line := lines.next(extra=handle)) is not None:
            if line == "kill":
                qemu.kill()
        if not lines.ended:
            report(status, f"exit {qemu.wait()}")
            while lines.next(extra=None) is not None:
                pass
    finally:
        qemu.kill()
        qemu.wait()


def die_with(parent):
    """Runs in the child before exec: SIGKILL for QEMU as soon as the custodian is gone."""
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        os._exit(127)


class Lines:
    """Lines of the lifeline. next() gives None once the pipe has ended or `extra` has become readable."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._buffer = b""
        self.ended = False

    def next(self, extra):
        watched = [self._descriptor] + ([extra] if extra is not None else [])
        while b"\n" not in self._buffer and not self.ended:
            ready, _, _ = select.select(watched, [], [])
            if self._descriptor in ready:
                chunk = os.read(self._descriptor, 65536)
                self._buffer += chunk
                self.ended = not chunk
            elif extra in ready:
                return None
        if self.ended:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


def report(status, text):
    try:
        os.write(status, text.encode() + b"\n")
    except BrokenPipeError:
        pass  # the test is gone; the lifeline says so too


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
