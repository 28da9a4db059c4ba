"""The agent's Debian package in a Debian 12 with systemd, over virtio-serial: from apt to the last line of the journal."""

import getpass
import re
import subprocess
import time
import unittest
import uuid

from agent_guest import agent_guest, debian_package
from guestlab import DebianDisk, GuestPackage, copy_out
from guestlab.recipes import AGENT_PORT
from host_probe import build_folder
from host_side import HostSide, colours_of, wait_until
from transcript import Transcript

VM = "web1"
CALLER = f"user:{getpass.getuser()}"
GRANTS = "ping,info,power.shutdown,power.restart,file:/srv/www:run-as=www-data"
PACKAGE = "/root/postern-agent.deb"
BOOT_SECONDS = 180  # ten on an idle machine
SOON_SECONDS = 60
# As somebody writes it whose agent speaks over vsock: it may not write to a virtio-serial port.
APPARMOR_PROFILE = """\
profile postern-agent /usr/sbin/postern-agent {
  capability,
  network,
  ptrace,
  signal,
  unix,
  /** r,
  /usr/** mrix,
  /dev/null rw,
  /proc/** rw,
  /run/** rwk,
  /srv/www/** rwkl,
  /var/lib/postern-agent/** rwk,
}
"""
HOOK = "/etc/postern/hooks.d/10-note"
HOOK_LINES = ("#!/bin/sh", 'echo "$1 for $POSTERN_CALLER as $(id -un)" >>/var/lib/hook-ran')


class DebianGuest(unittest.TestCase):
    """One story: each test goes on from where the one before it ended."""

    @classmethod
    def setUpClass(cls):
        cls.began = time.monotonic()
        cls.host = cls.enterClassContext(HostSide(build_folder()))
        cls.host.start()
        cls.image = DebianDisk.find()
        profile = cls.host.folder / "profile"
        profile.write_text(APPARMOR_PROFILE)
        parser = GuestPackage.find("apparmor").path("/sbin/apparmor_parser")
        files = {debian_package("postern-agent"): PACKAGE, parser: "/usr/sbin/apparmor_parser", profile: "/root/profile"}
        cls.disk = cls.image.copy_to(cls.host.folder / "disk", files)
        cls.uuid = str(uuid.uuid4())
        cls.socket = cls.host.folder / "serial"
        cls.qmp = cls.host.folder / "qmp"
        bundle = cls.host.enroll(VM, f"serial:{cls.socket}", "--uuid", cls.uuid, "--qmp", cls.qmp, "--grant", GRANTS)
        credential = cls.host.folder / "credential"
        credential.write_text(f"io.systemd.credential:postern.bundle={bundle.read_text().strip()}")
        cls.guest = cls.enterClassContext(cls.boot(credential))
        print(f"transport: virtio-serial, Debian under {cls.guest.accelerator}")

    @classmethod
    def boot(cls, smbios):
        """The guest, with a file as string of SMBIOS type 11."""
        drive = f"file={cls.disk},format=raw,if=virtio,cache=unsafe"
        return agent_guest(
            cls.image.initramfs(),
            cls.socket,
            qmp=cls.qmp,
            arguments=["-uuid", cls.uuid, "-drive", drive, "-smbios", f"type=11,path={smbios}"],
            memory_mib=512,
            cpus=2,
            restart_on_reboot=True,
            boot_timeout=BOOT_SECONDS,
            description="Debian",
        )

    def run_inside(self, command, **options):
        return self.guest.run(command, timeout=SOON_SECONDS, **options).output.strip()

    def journal(self, boot="0"):
        """What the agent has logged in this boot of the guest's, or in an earlier one."""
        return self.run_inside(f"journalctl --boot={boot} --unit=postern-agent --output=cat")

    def green(self, timeout=SOON_SECONDS):
        self.host.wait_for_status(VM, "green", "on-time", timeout)

    def fingerprint(self):
        return re.search(r"guest fingerprint +(\S+)", self.host.postern("vm", "show", VM).out)[1]

    # --- the story ---------------------------------------------------------------------------------------------

    def test_1_apt_installs_the_package_and_its_agent_enrols_by_a_credential_of_the_machine(self):
        self.assertEqual(self.host.status(VM)["reason"], "not-enrolled")
        self.guest.run(f"apt-get -qq --yes install {PACKAGE}", timeout=BOOT_SECONDS)
        self.green()
        self.assertIn("(/run/credentials/postern-agent.service/postern.bundle) adopted", self.journal())
        self.assertEqual(self.run_inside("systemctl is-system-running --wait"), "running")
        self.assertEqual(self.run_inside("systemctl is-enabled postern-agent"), "enabled")
        processes = "/sys/fs/cgroup/system.slice/postern-agent.service/cgroup.procs"
        users = self.run_inside(f"for pid in $(cat {processes}); do stat --format=%U /proc/$pid; done")
        self.assertEqual(users.split(), ["root", "postern-agent"])

    def test_2_info_names_the_system(self):
        whole = re.compile(r"(?s)Debian GNU/Linux 12 \(bookworm\).*kernel +\S+-cloud-amd64.*/ +ext4 +/dev/vda")
        wait_until(lambda: whole.search(self.host.postern("info", VM).out), SOON_SECONDS, "a whole answer to info")

    def test_3_files_come_as_the_user_of_the_grant_and_go_where_that_user_may_write(self):
        self.guest.run("mkdir /srv/www /srv/www/roots; chown www-data: /srv/www")
        there = self.host.folder / "there"
        there.write_bytes(bytes(range(256)) * 12345)
        self.host.postern("cp", "--verify", there, f"{VM}:/srv/www/")
        self.assertEqual(self.run_inside("stat --format='%U %G %s' /srv/www/there"), f"www-data www-data {256 * 12345}")
        back = self.host.folder / "back"
        self.host.postern("cp", f"{VM}:/srv/www/there", back)
        self.assertEqual(back.read_bytes(), there.read_bytes())
        self.assertIn("ermission", self.host.postern("cp", there, f"{VM}:/srv/www/roots/", status=1).err)
        self.host.postern("cp", there, f"{VM}:/srv/other", status=3)
        self.assertEqual(self.run_inside("ls -A /srv /srv/www/roots"), "/srv:\nwww\n\n/srv/www/roots:")

    def test_4_udev_starts_the_agent_when_its_port_appears(self):
        self.guest.run("systemctl stop postern-agent")
        self.host.wait_for_status(VM, "gray", "agent-stopped", SOON_SECONDS)
        self.guest.qmp.execute("device_del", {"id": AGENT_PORT})
        self.guest.qmp.wait_event("DEVICE_DELETED", SOON_SECONDS, device=AGENT_PORT)
        self.guest.qmp.execute(
            "device_add", {"driver": "virtserialport", "chardev": "port0", "name": AGENT_PORT, "id": AGENT_PORT}
        )
        self.green()

    def test_5_an_inhibitor_of_logind_refuses_a_shutdown_by_name(self):
        self.guest.run(
            "systemd-run --quiet --unit=backup systemd-inhibit --what=shutdown --who=backup --why='half done' sleep infinity"
        )
        self.guest.run("until systemd-inhibit --list | grep -q '^backup'; do sleep 0.1; done", timeout=SOON_SECONDS)
        refused = self.host.postern("shutdown", VM, status=6)
        self.assertIn("backup (half done)", refused.err)
        self.guest.run("systemctl stop backup")
        self.green()

    def test_5_what_apparmor_denies_is_told_and_mended_as_the_document_says(self):
        self.addCleanup(self.green)
        self.addCleanup(
            self.guest.run,
            "apparmor_parser --remove /etc/apparmor.d/usr.sbin.postern-agent && rm -r /etc/apparmor.d /etc/apparmor && "
            "systemctl restart postern-agent",
            timeout=SOON_SECONDS,
        )
        self.guest.run(
            "mkdir -p /etc/apparmor.d /etc/apparmor && touch /etc/apparmor/parser.conf && "
            "mv /root/profile /etc/apparmor.d/usr.sbin.postern-agent && "
            "apparmor_parser --replace /etc/apparmor.d/usr.sbin.postern-agent && systemctl restart postern-agent"
        )
        told = "journalctl --unit=postern-agent --grep='permission denied'"
        self.guest.run(f"until {told}; do sleep 0.2; done", timeout=SOON_SECONDS)
        wrong = Transcript("OPERATIONS.md", "AppArmor").run({"web1": self.as_administrator})
        self.assertEqual(wrong, [])

    def as_administrator(self, command):
        said = self.run_inside(command, check=False)
        if command.startswith("apparmor_parser"):
            # The agent tries every 2 s; who types looks later than that.
            self.green()
        return said

    def test_6_a_restart_runs_the_hook_and_the_guest_comes_back_as_itself(self):
        lines = " ".join(f"'{line}'" for line in HOOK_LINES)
        self.guest.run(f"printf '%s\\n' {lines} >{HOOK}; chmod 755 {HOOK}")
        fingerprint = self.fingerprint()
        position = self.guest.console.position
        done = self.host.postern("restart", VM, "--wait", "--timeout", str(BOOT_SECONDS), timeout=BOOT_SECONDS + 10)
        self.assertRegex(done.out, r"(?s)accepted.*hook 10-note.*stopping.*back \(a heartbeat with a new boot id")
        self.guest.wait_for("the shell is ready", BOOT_SECONDS, since=position)
        self.green()
        self.assertEqual(self.run_inside("cat /var/lib/hook-ran"), f"restart for {CALLER} as root")
        self.assertEqual(self.fingerprint(), fingerprint)
        self.assertEqual(len([e for e in self.host.events(VM) if e["kind"] == "enrolled"]), 1)
        self.assertRegex(self.journal(boot="-1"), rf"(?m)^power action=restart caller={CALLER}\b")
        self.assertEqual(self.run_inside("systemctl is-system-running --wait"), "running")

    def test_7_without_the_inhibitor_it_shuts_down_cleanly_and_its_journal_says_who_asked(self):
        # Longer than heartbeats could be under way after the goodbye.
        self.guest.run("systemd-run --quiet --property='ExecStop=/bin/sleep 4' sleep infinity")
        since = self.host.mark(VM)
        done = self.host.postern("shutdown", VM, "--wait", "--message", "so long", timeout=BOOT_SECONDS)
        self.assertRegex(done.out, r"(?s)hook 10-note.*stopping.*gone \(it said goodbye.*SHUTDOWN")
        self.assertEqual(self.guest.wait_exit(), 0)
        colours = [colour for colour, _ in colours_of(self.host.events(VM, since))]
        self.assertEqual(set(colours[colours.index("gray") :]), {"gray"}, self.host.story(VM))
        self.assertIn("Filesystem state:         clean", tool("dumpe2fs", "-h", self.disk))
        copy_out(self.disk, "/var/log/journal", self.host.folder)
        journal = tool("journalctl", f"--directory={self.host.folder}/journal", "--boot", "--output=cat")
        # The agent goes when everything else has gone, so that the host sees how far it is.
        self.assertRegex(
            journal,
            rf"(?s)\npower action=shutdown caller={CALLER}\b.*\nStopped target basic\.target.*"
            r"\nStopped postern-agent\.service.*\nReached target poweroff\.target",
        )

    def test_8_with_a_new_bundle_it_starts_again_as_the_command_line_of_enroll_says(self):
        fingerprint = self.fingerprint()
        bundle = self.host.folder / "new.bundle"
        self.host.postern("vm", "rekey", VM, "--bundle-file", bundle)
        with self.boot(bundle) as guest:
            self.green(BOOT_SECONDS)
            journal = guest.run("journalctl --boot --unit=postern-agent --output=cat", timeout=SOON_SECONDS).output
            self.assertIn("SMBIOS type 11", journal)
            self.assertNotEqual(self.fingerprint(), fingerprint)
        print(f"took {time.monotonic() - self.began:.0f} s")


def tool(name, *arguments):
    """What a program of this machine says."""
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    return subprocess.run([name, *map(str, arguments)], env=path, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    unittest.main()
