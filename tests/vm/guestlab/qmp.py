"""A small client of QEMU's machine protocol (QMP): commands, and events with a deadline."""

import json
import socket
import time

from .errors import GuestError, GuestTimeout


class QmpError(GuestError):
    """QEMU refused a command."""


class Qmp:
    """One connection. Events that arrive while another thing is awaited are kept, in order, until asked for."""

    def __init__(self, path, timeout=10):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = b""
        self._events = []
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(path))
            self._receive(time.monotonic() + timeout, "the greeting")
            self.execute("qmp_capabilities", timeout=timeout)
        except BaseException:
            self._socket.close()
            raise

    def execute(self, command, arguments=None, timeout=10):
        """The command's "return" value; QmpError when QEMU refuses."""
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except ConnectionError as error:
            raise GuestError(f"QMP: QEMU closed the connection before {command}") from error
        deadline = time.monotonic() + timeout
        while True:
            message = self._receive(deadline, f"the answer to {command}")
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise QmpError(f"QEMU refused {command}: {message['error'].get('desc')}")
            else:
                return message["return"]

    def wait_event(self, name, timeout, **data):
        """The oldest event `name` not yet taken whose data has all the given values; it is taken by this.

        QEMU's other events stay for later calls.
        """
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self._events):
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return self._events.pop(index)
            wanted = f"event {name} {data or ''}".rstrip()
            message = self._receive(deadline, wanted, timeout)
            if "event" in message:
                self._events.append(message)

    def close(self):
        self._socket.close()

    def _receive(self, deadline, awaited, timeout=10):
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestTimeout(f"QMP: waited {timeout:g} s for {awaited}")
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise GuestError(f"QMP: QEMU closed the connection while {awaited} was awaited")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)
