"""A client of qemu-ga that copies files by guest-file-read and guest-file-write, 1 MiB a call."""

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import time

from .setting import find

CHUNK_BYTES = 1 << 20
ANSWER_SECONDS = 60


class QemuAgent:
    """Over a connected stream socket, which it closes at the end of a `with` block."""

    def __init__(self, connection):
        self._socket = connection
        self._socket.settimeout(ANSWER_SECONDS)
        self._buffer = bytearray()

    def __enter__(self):
        # What is left of an earlier client is read away.
        number = secrets.randbelow(1 << 31)
        self._send(b'{"execute":"guest-sync","arguments":{"id":%d}}' % number)
        while self._receive().get("return") != number:
            pass
        return self

    def __exit__(self, *error):
        self._socket.close()

    def put(self, source, path):
        """Writes a file of this machine into the guest; gives the seconds it took."""
        began = time.monotonic()
        with open(source, "rb", buffering=0) as file, self._open(path, "w") as handle:
            while chunk := file.read(CHUNK_BYTES):
                self._send(
                    b'{"execute":"guest-file-write","arguments":{"handle":%d,"buf-b64":"%s"}}'
                    % (handle, base64.b64encode(chunk))
                )
                count = self._answer()["count"]
                assert count == len(chunk), f"qemu-ga has written {count} bytes of {len(chunk)}"
        return time.monotonic() - began

    def get(self, path, destination):
        """Reads a file of the guest into a new one here; gives the seconds it took."""
        began = time.monotonic()
        with open(destination, "xb", buffering=0) as file, self._open(path, "r") as handle:
            request = b'{"execute":"guest-file-read","arguments":{"handle":%d,"count":%d}}' % (handle, CHUNK_BYTES)
            end = False
            while not end:
                self._send(request)
                answer = self._answer()
                file.write(base64.b64decode(answer["buf-b64"]))
                end = answer["eof"]
        return time.monotonic() - began

    @contextlib.contextmanager
    def _open(self, path, mode):
        handle = self._ask("guest-file-open", path=str(path), mode=mode)
        yield handle
        self._ask("guest-file-close", handle=handle)

    def _ask(self, command, **arguments):
        self._send(json.dumps({"execute": command, "arguments": arguments}).encode())
        return self._answer()

    def _answer(self):
        answer = self._receive()
        assert "return" in answer, f"qemu-ga refuses: {answer}"
        return answer["return"]

    def _send(self, request):
        self._socket.sendall(request + b"\n")

    def _receive(self):
        while b"\n" not in self._buffer[-1:]:
            chunk = self._socket.recv(CHUNK_BYTES)
            assert chunk, "qemu-ga closed the connection"
            self._buffer += chunk
        line, self._buffer = self._buffer.rpartition(b"\n")[0].rpartition(b"\n")[2], bytearray()
        return json.loads(line)


@contextlib.contextmanager
def running_qemu_agent(folder):
    """qemu-ga on a Unix socket; gives a client and the process's id."""
    folder.mkdir()
    path = folder / "socket"
    command = [find("qemu-ga"), "-m", "unix-listen", "-p", path, "-t", folder, "-f", folder / "pid", "-l", folder / "log"]
    nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], **nowhere)
    try:
        with QemuAgent(connect(path, process)) as client:
            yield client, process.pid
    finally:
        process.kill()
        process.wait()


def connect(path, process=None, seconds=20):
    """A stream socket to `path`, as soon as somebody listens there."""
    deadline = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(os.fspath(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert process is None or process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"nobody listens at {path}"
            time.sleep(0.02)
