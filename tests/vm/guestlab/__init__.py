"""Boots real Linux guests in QEMU for tests. Start with README.md next to this package."""

from .console import Console
from .debian import DebianDisk, copy_out
from .errors import CommandFailed, GuestEnded, GuestError, GuestPanicked, GuestTimeout, SetUpError
from .guest import Guest, VirtioPort
from .initramfs import READY, Initramfs
from .kernel import GuestKernel
from .nested import (
    INNER_CONSOLE,
    INNER_ENDED,
    INNER_LINE,
    INNER_MONITOR,
    INNER_READY,
    inner_vsock_device,
    nested_vsock_guest,
    qemu_files,
)
from .packages import GuestPackage
from .qmp import Qmp, QmpError
from .recipes import basic_initramfs, serial_guest, vsock_loopback_guest
from .shell import CommandResult, run_command

__all__ = [
    "INNER_CONSOLE",
    "INNER_ENDED",
    "INNER_LINE",
    "INNER_MONITOR",
    "INNER_READY",
    "READY",
    "CommandFailed",
    "CommandResult",
    "Console",
    "DebianDisk",
    "Guest",
    "GuestEnded",
    "GuestError",
    "GuestKernel",
    "GuestPackage",
    "GuestPanicked",
    "GuestTimeout",
    "Initramfs",
    "Qmp",
    "QmpError",
    "SetUpError",
    "VirtioPort",
    "basic_initramfs",
    "copy_out",
    "inner_vsock_device",
    "nested_vsock_guest",
    "qemu_files",
    "run_command",
    "serial_guest",
    "vsock_loopback_guest",
]
