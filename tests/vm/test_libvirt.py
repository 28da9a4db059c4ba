"""A domain of a real libvirtd: enrolled by its name, followed through its states, ended by force; and a libvirtd that goes."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import unittest
import uuid

from agent_guest import agent_initramfs, make_disk
from host_probe import build_folder
from host_side import HostSide, wait_until
from libvirt_side import LibvirtSide, in_namespaces

VM = "web1"
BOOT_SECONDS = 180
SOON_SECONDS = 60
GRANTS = "ping,info,power.shutdown,power.restart"
CHANNEL = "<channel type='unix'><target type='virtio' name='org.postern.agent.0'/></channel>"


def load_tests(loader, tests, pattern):
    return unittest.TestSuite() if in_namespaces(__name__) else tests


class Helper:
    """postern-libvirt as a service for a posternd."""

    def __init__(self, host):
        self.host = host
        self.program = host.programs / "host/postern-libvirt"
        self.socket = host.root / "run/postern/libvirt.sock"
        self.log = host.folder / "postern-libvirt.log"
        self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.stop()

    def start(self):
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [self.program, "serve", "--socket", self.socket], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(lambda: '"ready"' in self.log.read_text(), SOON_SECONDS, "postern-libvirt", self.log.read_text)

    def stop(self):
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
            self.socket.unlink()
            self.log.write_text("")


class LibvirtTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.libvirt = cls.enterClassContext(LibvirtSide())
        cls.host = cls.enterClassContext(HostSide(build_folder()))
        cls.host.start()
        cls.helper = cls.enterClassContext(Helper(cls.host))

    @classmethod
    def define(cls, name, devices=""):
        machine = str(uuid.uuid4())
        disk = make_disk(cls.host.folder / f"{name}.disk")
        cls.libvirt.define(name, agent_initramfs(cls.host.programs, disk=True), disk, machine, devices)
        return machine

    def wait_for_status(self, state, reason, timeout=SOON_SECONDS):
        self.host.wait_for_status(VM, state, reason, timeout)

    def virsh(self, *words):
        return self.libvirt.do(*words)


class Domain(LibvirtTest):
    """One domain, enrolled while it is off; each test leaves it green."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.uuid = cls.define(VM)
        cls.enrolment = cls.host.postern("enroll", VM, "--libvirt", "--grant", GRANTS)
        cls.libvirt.do("start", VM)
        try:
            cls.host.wait_for_status(VM, "green", "on-time", BOOT_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{cls.libvirt.console(VM)}\n{cls.host.log[-4000:]}") from None

    def test_enrolment_gave_the_domain_a_channel_and_the_bundle(self):
        self.assertIn("channel org.postern.agent.0 added to the configuration", self.enrolment.out)
        self.assertIn("bundle delivered at the domain's next start", self.enrolment.out)
        self.assertNotIn("restart needed", self.enrolment.out)
        shown = self.host.postern("vm", "show", VM).out
        self.assertIn(f"libvirt:{VM}", shown)
        self.assertIn(self.uuid, shown)

    def test_no_command_line_shows_the_bundle(self):
        bundle = (self.host.root / "var/lib/postern-bundles" / f"{VM}.bundle").read_text().strip()
        for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            self.assertNotIn(bundle, process.read_text(errors="replace"))

    def test_a_pause_is_gray_and_no_silence(self):
        since = self.host.mark(VM)
        self.virsh("suspend", VM)
        self.wait_for_status("gray", "paused")
        self.virsh("resume", VM)
        self.wait_for_status("green", "on-time")
        self.assertNotIn("red", [event["kind"] for event in self.host.events(VM, since)])

    def test_a_domain_that_hangs_is_red(self):
        pid = int(pathlib.Path(f"/run/libvirt/qemu/{VM}.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            self.wait_for_status("red", "silent")
        finally:
            os.kill(pid, signal.SIGCONT)
        self.wait_for_status("green", "on-time")

    def test_a_forced_shutdown_is_libvirts_and_the_next_start_is_another_channel(self):
        first = self.virsh("domid", VM).strip()
        self.host.postern("shutdown", VM, "--wait", "--force-after", "0s", timeout=120)
        self.wait_for_status("gray", "vm-off")
        self.assertIn("shut off", self.virsh("domstate", VM))
        self.virsh("start", VM)
        self.wait_for_status("green", "on-time", BOOT_SECONDS)
        self.assertNotEqual(self.virsh("domid", VM).strip(), first)

    def test_the_agents_port_has_the_name_that_posternd_knows(self):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(BOOT_SECONDS)
            monitor.connect(str(self.helper.socket))
            monitor.sendall(f"monitor {VM}\n".encode())
            self.virsh("reset", VM)
            seen = ""
            while '"open":true' not in seen:
                seen += monitor.recv(4096).decode()
        self.assertIn('"event":"RESET"', seen)
        self.assertIn('{"event":"VSERPORT_CHANGE","data":{"id":"org.postern.agent.0","open":true}}', seen)
        self.wait_for_status("green", "on-time", BOOT_SECONDS)

    def test_what_is_saved_and_restored_is_gray_and_then_green(self):
        self.virsh("managedsave", VM)
        self.wait_for_status("gray", "vm-off")
        self.virsh("start", VM)
        self.wait_for_status("green", "on-time", BOOT_SECONDS)

    def test_a_libvirtd_that_stops_takes_no_vm_with_it_and_is_found_again(self):
        since = self.host.mark(VM)
        self.libvirt.stop()
        try:
            self.host.wait_for_event(VM, "trouble", SOON_SECONDS, since, "cannot connect to libvirt")
            self.host.postern("ping", VM, "-c", "1")
        finally:
            self.libvirt.start()
        wait_until(lambda: self.is_watched(), SOON_SECONDS, "libvirt's news again", lambda: self.host.log)
        self.assertNotIn("red", [event["kind"] for event in self.host.events(VM, since)])
        self.test_a_pause_is_gray_and_no_silence()

    def test_a_posternd_that_starts_anew_learns_that_the_domain_is_paused(self):
        self.virsh("suspend", VM)
        try:
            self.host.end(signal.SIGTERM)
            self.host.start()
            self.wait_for_status("gray", "paused")
        finally:
            self.virsh("resume", VM)
        self.wait_for_status("green", "on-time")

    def test_a_posternd_that_starts_while_the_domain_is_off_knows_it(self):
        self.virsh("destroy", VM)
        self.wait_for_status("gray", "vm-off")
        self.host.end(signal.SIGTERM)
        self.host.start()
        self.wait_for_status("gray", "vm-off")
        self.virsh("start", VM)
        self.wait_for_status("green", "on-time", BOOT_SECONDS)

    def test_without_the_service_a_line_says_so_and_the_link_goes_on(self):
        since = self.host.mark(VM)
        self.helper.stop()
        try:
            self.host.wait_for_event(VM, "trouble", SOON_SECONDS, since, "postern-libvirt does not run")
            self.host.postern("ping", VM, "-c", "1")
        finally:
            self.helper.start()
        wait_until(lambda: self.is_watched(), SOON_SECONDS, "libvirt's news again", lambda: self.host.log)

    def is_watched(self):
        lines = [line for line in self.host.log.splitlines() if '"qmp-' in line]
        return '"qmp-connected"' in lines[-1]


class Enrolment(LibvirtTest):
    """What enrolling finds, without a guest's boot."""

    def test_an_unknown_domain_is_refused_and_nothing_is_registered(self):
        done = self.host.postern("enroll", "nobody", "--libvirt", status=1)
        self.assertIn("libvirt has no domain nobody", done.err)
        self.assertNotIn("nobody", self.host.postern("vm", "list").out)

    def test_a_domain_that_runs_gets_its_channel_at_once(self):
        self.define("running")
        self.virsh("start", "running")
        done = self.host.postern("enroll", "running", "--libvirt")
        self.assertIn("added to the running domain", done.out)
        self.assertIn("postern-agent join", done.out)
        self.assertIn("org.postern.agent.0", self.virsh("dumpxml", "running"))
        self.virsh("destroy", "running")

    def test_a_channel_that_is_there_stays_as_it_is(self):
        self.define("ready", CHANNEL)
        done = self.host.postern("enroll", "ready", "--libvirt")
        self.assertNotIn("added", done.out)
        self.assertEqual(self.virsh("dumpxml", "ready").count("org.postern.agent.0"), 1)

    def test_a_domain_with_vsock_alone_keeps_it(self):
        self.define("sock", "<vsock model='virtio'><cid auto='no' address='4242'/></vsock>")
        self.host.postern("enroll", "sock", "--libvirt")
        self.assertNotIn("org.postern.agent.0", self.virsh("dumpxml", "sock"))

    def test_a_second_bundle_takes_the_place_of_the_first(self):
        self.define("again", CHANNEL)
        self.host.postern("enroll", "again", "--libvirt")
        file = self.host.root / "var/lib/postern-bundles/again.bundle"
        first = file.read_text()
        self.host.postern("vm", "rekey", "again")
        self.assertNotEqual(file.read_text(), first)
        self.host.postern("vm", "remove", "again")
        self.host.postern("enroll", "again", "--libvirt")
        self.assertEqual(self.virsh("dumpxml", "again").count("opt/org.postern/bundle"), 1)

    def test_a_domain_that_goes_is_told(self):
        self.define("gone", CHANNEL)
        self.host.postern("enroll", "gone", "--libvirt")
        self.virsh("undefine", "gone")
        self.host.end(signal.SIGTERM)
        self.host.start()
        wait_until(lambda: "libvirt has no domain gone" in self.host.log, SOON_SECONDS, "a line", lambda: self.host.log)

    def test_who_may_not_use_libvirt_is_told(self):
        self.define("private", CHANNEL)
        inspect = [self.helper.program, "inspect", "private"]
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *inspect], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, "ERROR cannot connect to libvirt .*Permission denied")

    def test_nobody_but_posternd_has_the_services_ear(self):
        script = "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9))"
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", script]
        os.chmod(self.host.folder, 0o755)
        for folder in (self.host.root, self.host.root / "run", self.host.root / "run/postern"):
            os.chmod(folder, 0o755)
        done = subprocess.run([*command, self.helper.socket], capture_output=True, text=True)
        self.assertEqual(done.stdout.strip(), "b''", done.stderr)
        self.assertIn("uid 65534 is not posternd's", self.helper.log.read_text())

    def test_without_libvirtd_enrolling_says_so(self):
        self.libvirt.stop()
        try:
            done = self.host.postern("enroll", "late", "--libvirt", status=1)
            self.assertRegex(done.err, "cannot connect to libvirt")
        finally:
            self.libvirt.start()


if __name__ == "__main__":
    unittest.main()
