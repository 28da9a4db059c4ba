"""link-probe as the host's end, on this machine: its output, line by line, with deadlines."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time


def program(name):
    """One of the project's test programs; POSTERN_TEST_PROGRAMS is the folder they were built in."""
    folder = os.environ.get("POSTERN_TEST_PROGRAMS")
    if not folder:
        raise RuntimeError("POSTERN_TEST_PROGRAMS is not set: run this test with ctest, or set it to BUILD/tests")
    path = pathlib.Path(folder, name)
    if not path.exists():
        raise RuntimeError(f"{path} is not built")
    return str(path)


def build_folder():
    """The build tree of the project's programs."""
    return pathlib.Path(program("")).parent


def is_full():
    """Whether the long forms are wanted (./check --full)."""
    return os.environ.get("POSTERN_TEST_FULL") == "1"


class HostProbe:
    """Runs for the length of a `with` block; restart() is a new process. Lines of all of them are kept in order."""

    def __init__(self, endpoint, *options):
        self._command = [program("probe/link-probe"), "host", endpoint, *options]
        self._lines = []
        self._changed = threading.Condition()
        self._process = None

    def __enter__(self):
        self.restart()
        return self

    def __exit__(self, *error):
        self.kill()

    def restart(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def stop(self):
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def _read(self, stream):
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    @property
    def position(self):
        with self._changed:
            return len(self._lines)

    @property
    def text(self):
        with self._changed:
            return "\n".join(self._lines)

    def wait_for_session(self, since, timeout):
        """Waits for a round that was done in a session which began after line `since`. Gives the seconds it took."""
        return self._wait_for(lambda: self._round_of_new_session(since), "a round in a new session", timeout)

    def wait_for_round(self, since, timeout):
        """Waits for a round in any session that was done after line `since`. Gives the seconds it took."""
        return self._wait_for(lambda: any(" ok session " in line for line in self._lines[since:]), "a round", timeout)

    def _wait_for(self, condition, awaited, timeout):
        began = time.monotonic()
        with self._changed:
            while not condition():
                left = began + timeout - time.monotonic()
                if left <= 0:
                    tail = "\n".join(self._lines[-20:])
                    raise AssertionError(f"waited {timeout} s for {awaited}; link-probe said:\n{tail}")
                self._changed.wait(left)
        return time.monotonic() - began

    def _round_of_new_session(self, since):
        current = None
        for line in self._lines[since:]:
            if match := re.match(r"session (\d+) from ", line):
                current = match[1]
            elif match := re.match(r"round \d+ ok session (\d+)$", line):
                if match[1] == current:
                    return True
        return False
