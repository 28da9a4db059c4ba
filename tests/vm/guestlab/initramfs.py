"""A recipe of what a guest's memory-only root file system holds and does.

The generated /init mounts the usual file systems, loads the modules in order, names the virtio-serial ports, runs the
recipe's own script lines as root and then serves a shell on the console, or hands over to a disk's own init. A step that
fails says so on the console and powers the guest off, so that the test ends at once and not at its deadline.

The archive is not compressed: QEMU copies it in no time, while unpacking would run in the guest.
"""

import io
import os
import pathlib
import shutil
import subprocess

from .cpio import Archive
from .errors import SetUpError
from .libraries import shared_libraries
from .modules import load_order

READY = "guestlab: the shell is ready"
SET_UP_FAILED = "guestlab: set-up failed"
PORTS_PARAMETER = "guestlab.ports"  # on the kernel command line: names of the ports, with commas between
SCRIPT = "/etc/guestlab-script"

INIT = """\
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=dumb
fail() {{ echo "{failed}: $*"; sleep 0.5; poweroff -f; }}
mount -t devtmpfs devtmpfs /dev && mount -t proc proc /proc && mount -t sysfs sysfs /sys || fail mounting
mkdir -p /dev/pts /dev/shm /dev/virtio-ports && mount -t devpts devpts /dev/pts
{loads}
# Ports that are plugged later: run name-virtio-ports again.
if [ -d /sys/class/virtio-ports ]; then
  name-virtio-ports $(sed -n 's/.*{ports}=\\([^ ]*\\).*/\\1/p' /proc/cmdline | tr , ' ') || fail "virtio-serial"
fi
hostname guest
sh -e {script_path} || fail "the recipe's script ended with status $?"
# From here on what programs print is the test's: kernel messages stay in dmesg (a panic is printed all the same),
# input is not echoed and output not translated.
dmesg -n 1
{then}"""

SERVE_SHELL = f"""\
stty -F /dev/console -echo -opost
echo "{READY}"
# The console as a script: a shell that takes commands line by line but neither prompts nor edits.
while :; do setsid sh /dev/console </dev/console >/dev/console 2>&1; done
"""

SWITCH_ROOT = """\
mkdir /disk && mount -t ext4 {device} /disk || fail "mounting {device}"
for each in dev proc sys; do mount -o move /$each /disk/$each; done
exec switch_root /disk /sbin/init
"""

NAME_PORTS = """\
#!/bin/busybox sh
# Makes /dev/virtio-ports/NAME for every named virtio-serial port, as udev would; without arguments, for those there are.
# With names: waits for them first, since the driver learns of ports and names from the device bit by bit.
names() { cat /sys/class/virtio-ports/*/name 2>/dev/null; }
tries=0
for name in "$@"; do
  until names | grep -qxF "$name"; do
    [ $((tries += 1)) -gt 200 ] && { echo "no virtio-serial port named $name within 20 s"; exit 1; }
    sleep 0.1
  done
done
for port in /sys/class/virtio-ports/*; do
  [ -s "$port/name" ] && ln -sf "../${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
exit 0
"""


class Initramfs:
    """Filled by the add_* methods, each of which returns the recipe, and written once for each guest."""

    def __init__(self, kernel):
        self.kernel = kernel
        self._archive = Archive()
        self._modules = []
        self._script = []
        self._then = SERVE_SHELL
        for folder in ("/dev", "/proc", "/sys", "/run", "/root"):
            self._archive.add_folder(folder)
        self._archive.add_folder("/tmp", 0o1777)
        self._add_busybox()
        self.add_text("/bin/name-virtio-ports", NAME_PORTS, mode=0o755)
        self.add_text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.add_text("/etc/group", "root:x:0:\n")

    def add_modules(self, *names):
        """Loaded in this order, each after what it needs."""
        self._modules += names
        return self

    def add_file(self, host_path, guest_path, mode=None):
        """Copies one file; keeps its permissions unless told otherwise."""
        host_path = pathlib.Path(host_path)
        try:
            content = host_path.read_bytes()
            mode = host_path.stat().st_mode & 0o7777 if mode is None else mode
        except OSError as error:
            raise SetUpError(f"cannot read {host_path} for the guest: {error.strerror}") from error
        self._archive.add_file(str(guest_path), content, mode)
        return self

    def add_text(self, guest_path, text, mode=0o644):
        return self.add_bytes(guest_path, text.encode(), mode)

    def add_symlink(self, guest_path, target):
        self._archive.add_symlink(guest_path, target)
        return self

    def add_program(self, host_path, guest_path=None):
        """A program and the shared libraries it is linked with; by default it goes to /bin."""
        host_path = pathlib.Path(shutil.which(str(host_path)) or host_path)
        self.add_file(host_path, guest_path or f"/bin/{host_path.name}", mode=0o755)
        for library in shared_libraries(host_path):
            self.add_file(library, library, mode=0o755)
        return self

    def add_script(self, lines):
        """Shell lines that run in /init before the shell is ready. A command that fails ends the guest."""
        self._script.append(lines)
        return self

    def boot_disk(self, device):
        """In place of the shell: /sbin/init of the ext4 on `device`, such as /dev/vda, which serves one itself."""
        self._then = SWITCH_ROOT.format(device=device)
        return self

    def add_bytes(self, guest_path, content, mode=0o644):
        self._archive.add_file(guest_path, content, mode)
        return self

    def to_bytes(self):
        stream = io.BytesIO()
        self.write(stream)
        return stream.getvalue()

    def write(self, stream):
        """Writes the archive. The same recipe gives the same bytes."""
        archive = self._archive.copy()
        for applet in self._applets:
            if f"/bin/{applet}" not in archive:  # a program of the recipe goes before busybox's
                archive.add_symlink(f"/bin/{applet}", "busybox")
        loads = []
        for module in load_order(self.kernel, self._modules):
            loads.append(f"insmod {self._add_module(archive, module)} || fail loading {os.path.basename(module)}")
        archive.add_file(SCRIPT, "".join(f"{lines}\n" for lines in self._script).encode())
        init = INIT.format(
            loads="\n".join(loads), script_path=SCRIPT, then=self._then, failed=SET_UP_FAILED, ports=PORTS_PARAMETER
        )
        archive.add_file("/init", init.encode(), 0o755)
        archive.write(stream)

    def _add_module(self, archive, module):
        guest_path = f"/lib/modules/{os.path.basename(module)}"
        archive.add_file(guest_path, (self.kernel.modules_folder / module).read_bytes())
        return guest_path

    def _add_busybox(self):
        busybox = shutil.which("busybox")
        if not busybox:
            raise SetUpError("busybox is not installed: run packaging/install-dependencies")
        self.add_program(busybox, "/bin/busybox")
        self._applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
