"""File copy over real virtio-serial: the kernel's module tree there and back, run-as, a disk that stands still, a reboot."""

import hashlib
import os
import pathlib
import subprocess
import time
import unittest

from agent_guest import agent_guest, agent_initramfs, make_disk
from guestlab import GuestKernel
from host_probe import build_folder
from host_side import HostSide, wait_until

VM = "web1"
BOOT_SECONDS = 120
SOON_SECONDS = 30
COPY_SECONDS = 300
MEMORY_MIB = 768
WEB = "www-data:x:33:33::/srv/www:/bin/false"
HOST_POLICY = """policy = 1
[[allow]]
id = "all"
from = "host"
to = "any"
call = ["ping", "info.*", "file.*", "power.*"]
"""
AGENT_POLICY = """policy = 1
[[allow]]
id = "all"
call = ["ping", "info.*", "power.*"]
[[allow]]
id = "web"
call = "file.*"
args = { path = ["/srv/www", "/srv/www/**"] }
run-as = "www-data"
[[allow]]
id = "disk"
call = "file.*"
args = { path = ["/var/lib/files", "/var/lib/files/**"] }
run-as = "www-data"
"""
SET_UP = (
    f"echo '{WEB}' >>/etc/passwd && echo 'www-data:x:33:' >>/etc/group && mkdir -p /srv && "
    "mount -t tmpfs -o size=400m,mode=755 www /srv && mkdir -p /srv/www /srv/other && chown 33:33 /srv/www"
)


class FileCopyOverSerial(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = cls.enterClassContext(HostSide(build_folder()))
        policy = cls.host.root / "etc/postern/policy.d/10-all.toml"
        policy.parent.mkdir(parents=True)
        policy.write_text(HOST_POLICY)
        cls.host.start()
        cls.socket = cls.host.folder / "serial"
        cls.disk = make_disk(cls.host.folder / "disk")
        cls.bundle = cls.host.enroll(VM, f"serial:{cls.socket}")
        initramfs = agent_initramfs(
            cls.host.programs, disk=True, first=SET_UP, files={"/etc/postern/agent.toml": AGENT_POLICY}
        )
        cls.guest = cls.enterClassContext(
            agent_guest(
                initramfs,
                cls.socket,
                memory_mib=MEMORY_MIB,
                arguments=["-smbios", f"type=11,path={cls.bundle}", "-drive", f"file={cls.disk},format=raw,if=virtio"],
                restart_on_reboot=True,
            )
        )
        cls.host.wait_for_status(VM, "green", "on-time", BOOT_SECONDS)
        cls.guest.run("mkdir -p /var/lib/files && chown 33:33 /var/lib/files")
        print(f"transport: virtio-serial, guest under {cls.guest.accelerator}")

    def cp(self, *arguments, status=0):
        return self.host.postern("cp", *arguments, status=status, timeout=COPY_SECONDS)

    def file(self, name, size):
        path = self.host.folder / name
        path.write_bytes(os.urandom(size))
        return path

    def guest_hash(self, path):
        return self.guest.run(f"sha256sum {path}", timeout=SOON_SECONDS).output.split()[0]

    def test_the_kernels_module_tree_travels_both_ways_and_compares_equal(self):
        modules = pathlib.Path(GuestKernel.find().modules_folder)
        began = time.monotonic()
        self.cp("-a", "--verify", modules, f"{VM}:/srv/www")
        there = time.monotonic() - began
        back = self.host.folder / "back"
        self.cp("-a", f"{VM}:/srv/www/{modules.name}", back)
        subprocess.run(["diff", "-r", "--no-dereference", str(modules), str(back)], check=True)
        self.assertEqual(shape_of(modules), shape_of(back))
        size = sum(path.lstat().st_size for path in modules.rglob("*") if path.is_file() and not path.is_symlink())
        print(f"{size / 1e6:.0f} MB in {there:.1f} s, and back in {time.monotonic() - began - there:.1f} s")
        self.host.postern("rm", "-r", f"{VM}:/srv/www/{modules.name}")
        self.assertEqual(self.guest.run("ls -A /srv/www").output.strip(), "")

    def test_files_are_the_run_as_users_and_nothing_outside_the_allowed_folder_is_reached(self):
        source = self.file("page", 5000)
        self.cp(source, f"{VM}:/srv/www/page")
        self.assertEqual(self.guest.run("stat -c %U /srv/www/page").output.strip(), "www-data")
        self.assertEqual(self.guest_hash("/srv/www/page"), hashlib.sha256(source.read_bytes()).hexdigest())
        for path in ("/etc/passwd2", "/srv/other/x", "/root/x"):
            self.assertIn("guest", self.cp(source, f"{VM}:{path}", status=3).err)
        self.cp(f"{VM}:/etc/shadow", self.host.folder / "stolen", status=3)
        self.guest.run("ln -s /etc /srv/www/etc")
        self.assertIn("symbolic link", self.cp(f"{VM}:/srv/www/etc/passwd", self.host.folder / "stolen", status=1).err)
        self.guest.run("rm /srv/www/etc && mkdir -m 700 /srv/www/private && chown 0:0 /srv/www/private")
        self.assertIn("www-data", self.cp(source, f"{VM}:/srv/www/private/x", status=1).err)
        self.guest.run("rm -r /srv/www/private /srv/www/page")

    def test_a_disk_that_stands_still_holds_up_the_copy_and_no_heartbeat(self):
        source = self.file("big", 4 << 20)
        self.guest.run("fsfreeze --freeze /var/lib")
        copy = self.host.begin("cp", source, f"{VM}:/var/lib/files/big")
        try:
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                status = self.host.status(VM)
                self.assertEqual(status["state"], "green", status)
                time.sleep(0.2)
            self.assertIsNone(copy.poll(), "the copy ended on a frozen disk")
            self.host.postern("ping", VM, "--count", "3")
        finally:
            self.guest.run("fsfreeze --unfreeze /var/lib")
        output, _ = copy.communicate(timeout=COPY_SECONDS)
        self.assertEqual(copy.returncode, 0, output)
        self.assertEqual(self.guest_hash("/var/lib/files/big"), hashlib.sha256(source.read_bytes()).hexdigest())
        self.guest.run("rm /var/lib/files/big")

    def test_a_full_disk_is_told_and_the_old_file_stays(self):
        self.guest.run("echo old >/var/lib/files/f && chown 33:33 /var/lib/files/f")
        self.assertIn("MiB are free", self.cp(self.file("huge", 40 << 20), f"{VM}:/var/lib/files/f", status=1).err)
        self.assertEqual(self.guest.run("cat /var/lib/files/f").output.strip(), "old")

    def test_a_copy_that_a_reboot_cut_short_is_resumed(self):
        source = self.file("interrupted", 6 << 20)
        copy = self.host.begin("cp", "--limit", "1 MiB/s", source, f"{VM}:/var/lib/files/interrupted")
        partial = "for f in /var/lib/files/.*.postern-partial; do [ -s $f ] && echo there; done"
        wait_until(lambda: "there" in self.guest.run(partial, check=False).output, SOON_SECONDS, "some of it", lambda: "")
        time.sleep(1)
        self.guest.run("sync")
        sessions = self.sessions_made()
        self.guest.send("reboot -f")
        copy.communicate(timeout=COPY_SECONDS)
        self.assertNotEqual(copy.returncode, 0)
        wait_until(lambda: self.sessions_made() > sessions, BOOT_SECONDS, "the guest's return", lambda: self.host.story(VM))
        self.host.wait_for_status(VM, "green", "on-time", BOOT_SECONDS)
        self.cp("--resume", "--verify", source, f"{VM}:/var/lib/files/interrupted")
        self.assertEqual(self.guest_hash("/var/lib/files/interrupted"), hashlib.sha256(source.read_bytes()).hexdigest())

    def sessions_made(self):
        shown = self.host.postern("vm", "show", VM).out
        return int(next(line for line in shown.splitlines() if line.strip().startswith("sessions made")).split()[-1])


def shape_of(top):
    """Mode, time and kind of everything below `top`."""
    shape = {}
    for path in sorted(pathlib.Path(top).rglob("*")):
        about = path.lstat()
        target = os.readlink(path) if path.is_symlink() else None
        shape[str(path.relative_to(top))] = (about.st_mode, about.st_mtime_ns, target)
    return shape


if __name__ == "__main__":
    unittest.main()
