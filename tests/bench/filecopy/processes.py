"""Commands with their time and CPU, and the CPU of processes that go on."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Took:
    seconds: float
    cpu: float  # of the command and of what it has waited for
    out: str

    def json(self):
        return json.loads(self.out)


def timed(command, timeout=600):
    """Runs a command, or shell text, from its start to its end; AssertionError with what it said unless it ends with 0."""
    words = ["/bin/bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else command
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        alarm = _Alarm(process.pid, timeout)
        try:
            _, how, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            alarm.off()
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(how)
        said = [_read(stream) for stream in (out, err)]
    if process.returncode != 0:
        shown = command if isinstance(command, str) else shlex.join(map(str, command))
        ending = "".join(text[-2000:] for text in said)
        raise AssertionError(f"{shown}\nended with {process.returncode} after {seconds:.1f} s:\n{ending}")
    return Took(seconds, usage.ru_utime + usage.ru_stime, said[0])


def _read(stream):
    stream.seek(0)
    return stream.read().decode(errors="replace")


class _Alarm:
    """SIGKILL for a group of processes at the deadline."""

    def __init__(self, group, seconds):
        self._timer = threading.Timer(seconds, lambda: os.killpg(group, signal.SIGKILL))
        self._timer.daemon = True
        self._timer.start()

    def off(self):
        self._timer.cancel()


def cpu_seconds(pid):
    """User and system time of a process with all its threads, exactly: its CPU clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def cpu_of_ended_children(pid):
    """Of the children that a process has waited for, in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / TICKS


def written_bytes(pid):
    """All that a process has written with write(2) and its like, to files and sockets."""
    with open(f"/proc/{pid}/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar:"))
