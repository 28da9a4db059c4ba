"""docs/OPERATIONS.md, "From the package to the first file": its commands are typed again, in their order.

Both machines are Debian 12 with systemd. web1 runs in the host, in a KVM on emulated SVM, over the kernel's vhost-vsock.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest

from agent_guest import debian_package
from guestlab import READY, Console, DebianDisk, Guest, GuestTimeout, qemu_files, run_command
from transcript import Transcript

BOOT_SECONDS = 300
SOON_SECONDS = 300  # under emulation, on a busy machine
# How the host's owner has started web1 so far; further options of QEMU may follow.
START_WEB1 = """\
#!/bin/sh
exec systemd-run --quiet --unit=web1 qemu-system-x86_64 -name web1 -accel kvm -cpu host -m 512 -nodefaults \\
  -display none -vga none -kernel /boot/web1-kernel -initrd /boot/web1-initramfs \\
  -append 'console=ttyS0 quiet no_timer_check' -serial /dev/ttyS1 \\
  -drive file=/dev/vdc,format=raw,if=virtio,cache=unsafe "$@"
"""


class Newcomer(unittest.TestCase):
    def setUp(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="postern-newcomer-")))
        image = DebianDisk.find()
        disks = [
            image.copy_to(folder / "host", at_root("postern-host")),
            machinery(image, folder),
            image.copy_to(folder / "web1", at_root("postern-agent")),
        ]
        console = folder / "console"
        arguments = ["-chardev", f"socket,id=web1,path={console},server=on,wait=off", "-serial", "chardev:web1"]
        for disk in disks:
            arguments += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
        options = {"memory_mib": 1536, "cpus": 2, "accelerator": "tcg", "boot_timeout": BOOT_SECONDS}
        self.host = self.enterContext(Guest(image.initramfs(), arguments=arguments, description="host", **options))
        self.host.run("tar --skip-old-files -xf /dev/vdb -C / && modprobe kvm_amd", timeout=SOON_SECONDS)
        self.web1 = self.enterContext(console_at(console))

    def test_the_transcript_of_the_document_is_what_happens(self):
        began = time.monotonic()
        transcript = Transcript("OPERATIONS.md", "From the package to the first file")
        wrong = transcript.run({"host": self.on_the_host, "web1": self.in_web1})
        print(f"took {time.monotonic() - began:.0f} s")
        self.assertEqual(wrong, [])

    def on_the_host(self, command):
        if command.startswith("postern status"):
            # Who types looks a moment later.
            self.host.run("until postern status web1 --check; do sleep 0.5; done", timeout=SOON_SECONDS)
        return self.host.run(f"cd; {command}", timeout=SOON_SECONDS, check=False).output

    def in_web1(self, command):
        self.web1.wait(lambda: self.web1.search(READY), time.monotonic() + BOOT_SECONDS)
        result = run_command(self.web1, f"cd; {command}", SOON_SECONDS)
        if result is None:
            raise GuestTimeout(f"web1: waited for the end of {command!r}; its console ends:\n{self.web1.tail()}")
        return result.output


def at_root(name):
    """A package of Postern's, for a disk."""
    package = debian_package(name)
    return {package: f"/root/{package.name}"}


def machinery(image, folder):
    """What the host has besides: QEMU, and what starts web1. A tar archive, to be seen as a disk."""
    tree = folder / "tree"
    files = {path: pathlib.Path(here).read_bytes() for path, here in qemu_files().items()}
    files["/boot/web1-kernel"] = pathlib.Path(image.kernel.image).read_bytes()
    files["/boot/web1-initramfs"] = image.initramfs().to_bytes()
    files["/root/start-web1"] = START_WEB1.encode()
    for path, content in files.items():
        # /lib is a link to /usr/lib there.
        target = tree / path.replace("/lib", "/usr/lib", 1 if path.startswith("/lib") else 0).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755)
    subprocess.run(["tar", "--owner=0", "--group=0", "-C", tree, "-cf", folder / "machinery", "."], check=True)
    return folder / "machinery"


@contextlib.contextmanager
def console_at(path):
    """The console behind a socket of QEMU's."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        console = Console(os.dup(connection.fileno()), os.dup(connection.fileno()))
        console.start()
        try:
            yield console
        finally:
            connection.shutdown(socket.SHUT_RDWR)
            console.close()


if __name__ == "__main__":
    unittest.main()
