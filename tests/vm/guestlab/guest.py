"""One guest in QEMU, for the length of a `with` block."""

import dataclasses
import os
import re
import shutil
import socket
import sys
import tempfile
import time

from .accelerator import accelerator_arguments, usable_accelerator
from .console import PANIC, Console
from .custody import Custody
from .errors import CommandFailed, GuestEnded, GuestError, GuestPanicked, GuestTimeout, SetUpError
from .initramfs import PORTS_PARAMETER, READY
from .qmp import Qmp
from .shell import run_command

QEMU = "qemu-system-x86_64"
BOOT_SECONDS = 90  # three under emulation on an idle machine
COMMAND_SECONDS = 30
EXIT_SECONDS = 30
QMP_SECONDS = 20
LONGEST_SOCKET_PATH = 107
PANIC_LINE = re.compile(re.escape(PANIC) + r".*\n")


@dataclasses.dataclass(frozen=True)
class VirtioPort:
    """A virtio-serial port: /dev/virtio-ports/NAME in the guest, a Unix socket on the host.

    QEMU listens, on a path in the guest's folder (see Guest.port_path) or at `listen_at`; with `connect_to`, it connects
    at start to a socket that the test is listening on. The device's id, as VSERPORT_CHANGE events name it, is the port's
    name.
    """

    name: str
    connect_to: str | None = None
    listen_at: str | None = None


class Guest:
    """Boots at the start of a `with` block; at its end QEMU and every file are gone, whatever happened inside.

    They are gone, too, when the test's process is killed. Every wait has a deadline, and fails at once when the guest
    ends or panics before. When the block is left by an exception, the console's last lines go to stderr.
    """

    def __init__(
        self,
        initramfs,
        *,
        memory_mib=256,
        cpus=1,
        machine="pc",
        ports=(),
        arguments=(),
        command_line="",
        restart_on_reboot=False,
        boot_timeout=BOOT_SECONDS,
        wait_for_shell=True,
        accelerator=None,
        description="guest",
    ):
        """`arguments` are added to QEMU's, `command_line` to the kernel's; {folder} in the former is self.folder.

        With wait_for_shell=False the block starts as soon as QEMU runs. The accelerator is normally left to the machine.
        """
        self.description = description
        self.accelerator = accelerator or usable_accelerator()
        self.ports = tuple(ports)
        self._initramfs = initramfs
        self._options = [
            *["-machine", machine, *accelerator_arguments(self.accelerator)],
            *["-m", str(memory_mib), "-smp", str(cpus)],
            *([] if restart_on_reboot else ["-no-reboot"]),
        ]
        self._arguments = tuple(arguments)
        # panic=-1: reboot at once, so that with -no-reboot a panic ends QEMU. no_timer_check: the kernel measures the timer's
        # interrupts at boot, and hangs when a busy machine made QEMU miss some.
        names = ",".join(port.name for port in self.ports)
        self._command_line = f"console=ttyS0 quiet panic=-1 oops=panic no_timer_check {PORTS_PARAMETER}={names} {command_line}"
        self._boot_timeout = boot_timeout
        self._wait_for_shell = wait_for_shell
        self._custody = self.qmp = None

    def __enter__(self):
        try:
            self._start()
            if self._wait_for_shell:
                self.wait_for(READY, self._boot_timeout)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, error, trace):
        # Most of the harness's own errors carry the console's tail already.
        if kind is not None and not getattr(error, "has_console", False):
            print(f"last lines of the {self.description}'s console:\n{self.console.tail()}", file=sys.stderr)
        self.close()

    # --- waiting -----------------------------------------------------------------------------------------------

    def wait_for(self, pattern, timeout, since=0):
        """Waits until the console shows `pattern`: plain text, or a compiled regular expression. Gives the match.

        Looks at everything written so far, from `since` (an earlier console.position) on.
        """
        awaited = repr(pattern if isinstance(pattern, str) else pattern.pattern)
        deadline = time.monotonic() + timeout
        found = self.console.wait(lambda: self.console.search(pattern, since) or self._panic_line(pattern), deadline)
        if found and found is not PANIC:
            return found
        raise self._failure(f"{awaited} on its console", timeout)

    def wait_exit(self, timeout=EXIT_SECONDS):
        """Waits until QEMU has ended and gives its exit status. A panic is an error here too."""
        status = self._custody.wait_exit(time.monotonic() + timeout)
        if status is None:
            raise self._failure("its end", timeout)
        self.console.wait(lambda: self.console.ended, time.monotonic() + timeout)
        if self.console.panicked:
            raise self._failure("its end", timeout)
        return status

    # --- the console -------------------------------------------------------------------------------------------

    @property
    def console_text(self):
        return self.console.text

    def send(self, line):
        """Types a line on the console, where a shell reads it."""
        try:
            self.console.send(line.encode() + b"\n")
        except BrokenPipeError:
            raise self._failure(f"the end of typing {line!r}", 0) from None

    def run(self, command, timeout=COMMAND_SECONDS, check=True):
        """Runs shell text in the guest as root, with no input, and gives its CommandResult.

        With check=True a status other than 0 raises CommandFailed. A program left in the background must not keep
        the console as its output (`program >/tmp/log 2>&1 &`), or its text mixes with later results.
        """
        try:
            result = run_command(self.console, command, timeout, self._panic_line)
        except BrokenPipeError:
            result = None
        if result is None:
            raise self._failure(f"the end of command {command!r}", timeout)
        if check and result.status != 0:
            raise self._error(
                CommandFailed, f"command {command!r} ended with status {result.status}: {result.output.strip()}", result
            )
        return result

    # --- virtio-serial -----------------------------------------------------------------------------------------

    def port_path(self, name):
        """The Unix socket of a virtio-serial port on which QEMU listens. It serves one client at a time."""
        index = [port.name for port in self.ports].index(name)
        return str(self.ports[index].listen_at or self.folder / f"port{index}.sock")

    def connect_port(self, name, timeout=10):
        """A stream socket connected to the host's end of a port; the caller closes it. It has that time-out."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        connection.connect(self.port_path(name))
        return connection

    # --- ending ------------------------------------------------------------------------------------------------

    def poweroff(self, timeout=EXIT_SECONDS):
        """Powers the guest off from inside (without any service manager) and waits until QEMU has ended."""
        self.send("poweroff -f")
        return self.wait_exit(timeout)

    def kill(self):
        """SIGKILL for QEMU, as when the host's administrator pulls the plug; returns when it has ended."""
        self._custody.kill()
        return self.wait_exit()

    def close(self):
        """Ends QEMU if it still runs and removes the folder. The `with` block does this."""
        if self.qmp:
            self.qmp.close()
            self.qmp = None
        if self._custody:
            self._custody.close()
            self._custody = None
            self.console.close()
            self._stderr.close()

    @property
    def pid(self):
        """QEMU's process id."""
        return self._custody.pid

    @property
    def qemu_command(self):
        """QEMU's arguments as everybody on this machine can read them."""
        with open(f"/proc/{self.pid}/cmdline", "rb") as stream:
            return stream.read().decode().rstrip("\0").split("\0")

    # --- inside ------------------------------------------------------------------------------------------------

    def _start(self):
        qemu = shutil.which(QEMU)
        if not qemu:
            raise SetUpError(f"{QEMU} is not installed: run packaging/install-dependencies")
        input_end, input = os.pipe()
        output, output_end = os.pipe()
        self.console = Console(output, input)
        self._stderr = tempfile.TemporaryFile()
        try:
            self._custody = Custody(stdin=input_end, stdout=output_end, stderr=self._stderr)
        finally:
            os.close(input_end)
            os.close(output_end)
        self.folder = self._custody.folder
        with open(self.folder / "initramfs", "wb") as stream:
            self._initramfs.write(stream)
        self._custody.start([qemu, *self._qemu_arguments()])
        self.console.start()
        self.qmp = self._connect_qmp()

    def _connect_qmp(self):
        """QEMU makes the socket while it starts. Connected from then on, so that no event is missed."""
        deadline = time.monotonic() + QMP_SECONDS
        while True:
            try:
                return Qmp(self.folder / "qmp.sock")
            except (FileNotFoundError, ConnectionRefusedError, GuestError):
                if self.console.ended or time.monotonic() > deadline:
                    raise self._failure("its QMP socket", QMP_SECONDS) from None
                time.sleep(0.01)

    def _qemu_arguments(self):
        arguments = [
            *["-name", self.description, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"],
            *self._options,
            *["-kernel", str(self._initramfs.kernel.image), "-initrd", str(self.folder / "initramfs")],
            *["-append", self._command_line],
            *["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
            *["-chardev", self._listening_socket("qmp", self.folder / "qmp.sock"), "-mon", "chardev=qmp,mode=control"],
        ]
        if self.ports:
            arguments += ["-device", "virtio-serial-pci"]
        for index, port in enumerate(self.ports):
            name = f"port{index}"
            if port.connect_to:
                arguments += ["-chardev", f"socket,id={name},path={_socket_path(port.connect_to)}"]
            else:
                arguments += ["-chardev", self._listening_socket(name, self.port_path(port.name))]
            arguments += ["-device", f"virtserialport,chardev={name},name={port.name},id={port.name}"]
        return arguments + [argument.replace("{folder}", str(self.folder)) for argument in self._arguments]

    def _listening_socket(self, name, path):
        return f"socket,id={name},path={_socket_path(path)},server=on,wait=off"

    def _panic_line(self, awaited=None):
        """PANIC once the panic's whole line is there, so that an error shows its reason."""
        if awaited != PANIC and self.console.search(PANIC_LINE):
            return PANIC
        return None

    def _failure(self, awaited, timeout):
        if self.console.panicked:
            # Its reason, which a long trace may have pushed out of the last lines.
            line = self.console.search(PANIC_LINE)
            reason = f" ({line.group().strip()})" if line else ""
            return self._error(GuestPanicked, f"the kernel panicked{reason} while the test awaited {awaited}")
        status = self._custody.wait_exit(time.monotonic())
        if self.console.ended or status is not None:
            status = self._custody.wait_exit(time.monotonic() + 5)
            return self._error(GuestEnded, f"QEMU ended (status {status}) while the test awaited {awaited}")
        return self._error(GuestTimeout, f"waited {timeout:g} s for {awaited}")

    def _error(self, kind, text, *details):
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()
        qemu = f"\nQEMU said: {said}" if said else ""
        error = kind(f"{self.description}: {text}{qemu}\nlast lines of its console:\n{self.console.tail()}", *details)
        error.has_console = True
        return error


def _socket_path(path):
    if len(str(path)) > LONGEST_SOCKET_PATH:
        raise SetUpError(f"{path} is too long for a Unix socket; set TMPDIR to a shorter folder")
    return path
