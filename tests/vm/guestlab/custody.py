"""The test's side of custodian.py: a process and a temporary folder that are gone after close(), or after the test."""

import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time

from .errors import SetUpError

PROGRAM = pathlib.Path(__file__).with_name("custodian.py")
START_SECONDS = 20  # for the custodian to answer on a busy machine; it needs 0.05


class Custody:
    """Owns the folder at once and the process after start(). Not thread-safe."""

    def __init__(self, stdin, stdout, stderr):
        lifeline_end, self._lifeline = os.pipe()
        self._status, status_end = os.pipe()
        self._buffer = b""
        self._status_ended = False
        self.exit_status = None  # as in subprocess: negative for a signal
        self.pid = None
        self.folder = None
        try:
            launcher = subprocess.Popen(
                [sys.executable, "-IB", str(PROGRAM), str(lifeline_end), str(status_end)],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(lifeline_end, status_end),
            )
        finally:
            os.close(lifeline_end)
            os.close(status_end)
        launcher.wait()
        self.folder = pathlib.Path(self._expect("folder"))

    def start(self, arguments):
        self._send(json.dumps(arguments))
        self.pid = int(self._expect("pid"))

    def kill(self):
        """Asks for SIGKILL; wait_exit() tells when it has worked."""
        self._send("kill")

    def wait_exit(self, deadline):
        """The exit status, or None if the process still runs at the deadline (time.monotonic)."""
        while self.exit_status is None:
            line = self._line(deadline)
            if line is None:
                return None
            if line.startswith("exit "):
                self.exit_status = int(line.removeprefix("exit "))
        return self.exit_status

    def close(self):
        """Returns when the process and the folder are gone. May be called again."""
        if self._lifeline is None:
            return
        os.close(self._lifeline)
        self._lifeline = None
        deadline = time.monotonic() + START_SECONDS
        while self._line(deadline) is not None:
            pass
        ended = self._status_ended
        os.close(self._status)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)  # still there only if somebody killed the custodian
        if not ended:
            raise SetUpError(f"the custodian of {self.folder} did not end within {START_SECONDS} s")

    def _expect(self, word):
        line = self._line(time.monotonic() + START_SECONDS)
        if line is None or not line.startswith(word + " "):
            problem = (line or "no answer").removeprefix("error ")
            self.close()
            raise SetUpError(f"cannot start a guest: {problem}")
        return line.removeprefix(word + " ")

    def _send(self, line):
        try:
            os.write(self._lifeline, line.encode() + b"\n")
        except BrokenPipeError as error:
            raise SetUpError(f"the custodian of {self.folder} was killed, and its guest with it") from error

    def _line(self, deadline):
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if self._status_ended or left < 0 or not select.select([self._status], [], [], left)[0]:
                return None
            chunk = os.read(self._status, 4096)
            self._status_ended = not chunk
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()
