"""A libvirtd of the test's own: everything of it in this process's namespaces, so that it ends with this process."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from guestlab import SetUpError
from guestlab.accelerator import usable_accelerator
from host_side import wait_until

INSIDE = "POSTERN_TEST_IN_NAMESPACES"
READY_SECONDS = 60
# What libvirtd has for itself on a machine; hidden behind empty file systems here.
FOLDERS = ("/run", "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
# No security driver, control groups or namespaces: they are the machine's, which may be a container.
QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
LIBVIRTD_CONF = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0770"\nlog_outputs = "2:stderr"\n'

DOMAIN = """\
<domain type='{accelerator}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    <controller type='virtio-serial' index='0'/>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{console}'/></serial>
    <memballoon model='none'/>
    {devices}
  </devices>
</domain>
"""


def in_namespaces(module):
    """False where the tests of `module` may run: in mount and process namespaces of their own. True: they have run there.

    Everything that is started inside is killed by the kernel when the first process there ends, whatever ends it.
    """
    if os.environ.get(INSIDE):
        return False
    as_root = [] if os.geteuid() == 0 else ["sudo", "--preserve-env"]
    if as_root and not shutil.which("sudo"):
        raise SetUpError("a libvirtd needs root: run this as root, or install sudo")
    command = [*as_root, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # The first process is a shell: it reaps what QEMU's start leaves behind, and libvirtd waits for that.
    command += ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-B", "-m", "unittest", "-v", module]
    done = subprocess.run(command, env={**os.environ, INSIDE: "1"})
    if done.returncode != 0:
        raise AssertionError(f"{module} failed in its namespaces; see above")
    return True


class LibvirtSide:
    """libvirtd, for the length of a `with` block."""

    def __enter__(self):
        if not shutil.which("libvirtd") or not shutil.which("virsh"):
            raise SetUpError("libvirtd or virsh is not installed: run packaging/install-dependencies")
        for folder in FOLDERS:
            os.makedirs(folder, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder], check=True)
        os.makedirs("/etc/libvirt/qemu/networks/autostart")
        pathlib.Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        pathlib.Path("/etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
        self._folder = tempfile.TemporaryDirectory(prefix="postern-libvirt-")
        self.folder = pathlib.Path(self._folder.name)
        self._add_account("/etc/passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/bin/false")
        self._add_account("/etc/group", "libvirt-qemu:x:64055:")
        self._daemon = None
        self.start()
        return self

    def __exit__(self, *error):
        for name in self.virsh("list", "--name").stdout.split():
            self.virsh("destroy", name)
        self.stop()
        self._folder.cleanup()

    def _add_account(self, file, line):
        """libvirtd wants it to exist, whoever QEMU is to run as; the package that makes it would start a service."""
        text = pathlib.Path(file).read_text()
        if "libvirt-qemu:" in text:
            return
        copy = self.folder / pathlib.Path(file).name
        copy.write_text(f"{text}{line}\n")
        copy.chmod(0o644)
        subprocess.run(["mount", "--bind", copy, file], check=True)

    def start(self):
        """Starts libvirtd, and waits until it answers."""
        self._log = open(self.folder / "libvirtd.log", "ab")
        self._daemon = subprocess.Popen(["libvirtd"], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        wait_until(
            lambda: self.virsh("list").returncode == 0,
            READY_SECONDS,
            "libvirtd's readiness",
            lambda: (self.folder / "libvirtd.log").read_text(errors="replace"),
        )

    def stop(self):
        """Ends libvirtd; domains go on."""
        if self._daemon:
            self._daemon.terminate()
            self._daemon.wait(READY_SECONDS)
            self._log.close()
            self._daemon = None

    def virsh(self, *words):
        """Runs virsh, whatever it comes to."""
        command = ["virsh", "--quiet", "--connect", "qemu:///system", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)

    def do(self, *words):
        """Runs virsh, which has to succeed. Gives its output."""
        done = self.virsh(*words)
        if done.returncode != 0:
            raise AssertionError(f"virsh {' '.join(map(str, words))}: {done.stderr}{done.stdout}")
        return done.stdout

    def define(self, name, initramfs, disk, uuid, devices=""):
        """Defines a domain of an emulated machine without network; its kernel and file system are the recipe's."""
        initrd = self.folder / f"{name}.initrd"
        with open(initrd, "wb") as stream:
            initramfs.write(stream)
        xml = self.folder / f"{name}.xml"
        kind = {"kvm": "kvm", "tcg": "qemu"}[usable_accelerator()]
        xml.write_text(
            DOMAIN.format(
                accelerator=kind, name=name, uuid=uuid, kernel=initramfs.kernel.image, initrd=initrd, disk=disk,
                console=self.folder / f"{name}.console", devices=devices,
            )
        )
        self.do("define", xml)

    def console(self, name):
        path = self.folder / f"{name}.console"
        return path.read_text(errors="replace") if path.exists() else ""
