"""Guests that several tests need. `options` are Guest's. The two-level guest is in nested.py."""

from .guest import Guest, VirtioPort
from .initramfs import Initramfs
from .kernel import GuestKernel

PCI = "virtio_pci"
AGENT_PORT = "org.postern.agent.0"


def basic_initramfs(*modules, programs=(), kernel=None):
    """Busybox, the given modules and programs; to be added to."""
    initramfs = Initramfs(kernel or GuestKernel.find()).add_modules(*modules)
    for program in programs:
        initramfs.add_program(program)
    return initramfs


def serial_guest(programs=(), port_names=(AGENT_PORT,), **options):
    """A guest with virtio-serial ports on which QEMU listens."""
    initramfs = basic_initramfs(PCI, "virtio_console", programs=programs)
    ports = [VirtioPort(name) for name in port_names]
    return Guest(initramfs, ports=ports, description="serial guest", **options)


def vsock_loopback_guest(programs=(), **options):
    """A guest in which AF_VSOCK reaches the guest itself, as CID 1."""
    return Guest(basic_initramfs("vsock_loopback", programs=programs), description="vsock loopback guest", **options)
