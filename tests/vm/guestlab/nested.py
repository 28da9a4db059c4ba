"""A guest that is a host: real vhost-vsock between two kernels, on a machine that has no vhost-vsock of its own.

The outer guest plays the host: it has vhost_vsock and starts a second-level QEMU with a vhost-vsock-pci device. Its
programs see the inner guest's CID as the kernel reports it; those of the inner guest reach it as CID 2.

The outer guest is always emulated, even where the machine has KVM: QEMU emulates AMD's virtualisation (SVM) too, so the
outer guest has a KVM of its own, the same everywhere, and the inner guest's code is translated once, not twice. It
boots in under ten seconds; two levels of emulation take most of a minute.
"""

import shutil

from .errors import SetUpError
from .guest import QEMU, Guest
from .initramfs import READY, Initramfs
from .kernel import GuestKernel
from .libraries import shared_libraries

INNER_LINE = "inner| "
INNER_READY = INNER_LINE + READY
INNER_ENDED = INNER_LINE + "ended"
INNER_CONSOLE = "/run/inner-console"
INNER_MONITOR = "/run/inner-monitor.in"
INNER_MONITOR_PIPE = "/run/inner-monitor"

QEMU_FOLDER = "/usr/bin"  # QEMU looks for its firmware relative to the folder it lies in
FIRMWARE = {
    "/usr/share/seabios/bios-256k.bin": "/usr/share/qemu/bios-256k.bin",
    "/usr/share/qemu/linuxboot_dma.bin": "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/pvh.bin": "/usr/share/qemu/pvh.bin",
    "/usr/share/qemu/kvmvapic.bin": "/usr/share/qemu/kvmvapic.bin",
}

START_INNER = """\
#!/bin/busybox sh
# Starts the inner guest in the background, its console on ours line by line; may be called again once it has ended.
for pipe in {console} {monitor_pipe}.in {monitor_pipe}.out; do [ -p "$pipe" ] || mkfifo "$pipe"; done
echo "{prefix}starting with CID {cid}" >/dev/console
(
  {qemu} -accel kvm -cpu host -m {memory} -nodefaults -no-user-config {reboot} -display none -vga none \\
    -kernel /inner/kernel -initrd /inner/initramfs -append 'console=ttyS0 quiet panic=-1 oops=panic no_timer_check' \\
    -serial stdio -device {device} {monitor} {arguments} 0<>{console} 2>&1 |
    while IFS= read -r line; do printf '%s%s\\n' '{prefix}' "$line"; done
  echo '{ended}'
) </dev/null >/dev/console 2>&1 &
"""


def nested_vsock_guest(
    *,
    outer_programs=(),
    inner_programs=(),
    inner_script="",
    inner_initramfs=None,
    inner_cid=42,
    inner_memory_mib=192,
    inner_arguments="",
    inner_restarts=False,
    outer_files=None,
    kernel=None,
    memory_mib=1024,
    **options,
):
    """The outer guest. `start-inner` in it boots the inner one, which runs `inner_script` and then serves a shell.
    `inner_initramfs` is what the inner guest has besides; `inner_arguments` are shell words for its QEMU. A reboot ends
    it, unless `inner_restarts`. `outer_files`: host path -> path in the outer guest.

    The inner console's lines appear on the outer console behind "inner| "; a line written to /run/inner-console in the
    outer guest is typed on it. A line written to /run/inner-monitor.in is a command of QEMU's monitor, such as `stop`;
    the vsock device is `vsock` there, and inner_vsock_device() says how to add it again. Wait for INNER_READY, INNER_ENDED, or what the script prints.
    """
    kernel = kernel or GuestKernel.find()
    inner = inner_initramfs or Initramfs(kernel)
    inner.add_modules("virtio_pci", "vmw_vsock_virtio_transport").add_script(inner_script)
    _add_programs(inner, inner_programs)

    outer = Initramfs(kernel).add_modules("kvm_amd", "vhost_vsock")
    _add_programs(outer, outer_programs)
    _add_qemu(outer)
    for host_path, guest_path in (outer_files or {}).items():
        outer.add_file(host_path, guest_path)
    outer.add_file(kernel.image, "/inner/kernel").add_bytes("/inner/initramfs", inner.to_bytes())
    start_inner = START_INNER.format(
        qemu=f"{QEMU_FOLDER}/{QEMU}",
        cid=inner_cid,
        device=inner_vsock_device(inner_cid),
        reboot="" if inner_restarts else "-no-reboot",
        monitor=f"-chardev pipe,id=monitor,path={INNER_MONITOR_PIPE} -mon chardev=monitor",
        monitor_pipe=INNER_MONITOR_PIPE,
        memory=inner_memory_mib,
        arguments=inner_arguments,
        console=INNER_CONSOLE,
        prefix=INNER_LINE,
        ended=INNER_ENDED,
    )
    outer.add_text("/bin/start-inner", start_inner, mode=0o755)
    return Guest(outer, memory_mib=memory_mib, accelerator="tcg", description="outer guest", **options)


def qemu_files():
    """This machine's QEMU, for a guest: path in the guest -> path here."""
    program = shutil.which(QEMU)
    if not program:
        raise SetUpError(f"{QEMU} is not installed: run packaging/install-dependencies")
    files = {f"{QEMU_FOLDER}/{QEMU}": program}
    files.update((library, library) for library in shared_libraries(program))
    files.update((guest_path, host_path) for host_path, guest_path in FIRMWARE.items())
    return files


def inner_vsock_device(cid):
    """The words of -device and device_add."""
    return f"vhost-vsock-pci,id=vsock,guest-cid={cid}"


def _add_programs(initramfs, programs):
    for program in programs:
        initramfs.add_program(program)


def _add_qemu(initramfs):
    for guest_path, host_path in qemu_files().items():
        initramfs.add_file(host_path, guest_path, mode=0o755)  # as other programs' libraries have it
