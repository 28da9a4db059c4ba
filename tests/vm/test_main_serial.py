"""The main job over real virtio-serial: enrolment, states, calls, power, and every way in which a part can die.

Each class boots one guest for all its tests. A guest's identity lies on a disk of its own, so it outlives a reboot.
"""

import functools
import getpass
import os
import re
import signal
import time
import unittest
import uuid

from agent_guest import agent_guest, agent_initramfs, make_disk
from host_probe import build_folder, is_full
from host_side import HostSide, colours_of, wait_until

VM = "web1"
BOOT_SECONDS = 120
SOON_SECONDS = 30
HEAL_SECONDS = 5
HOOK = """\
#!/bin/busybox sh
echo "$(basename "$0") $*" >>/var/lib/hooks-ran
"""


class Machine:
    """A VM with the agent, registered with a posternd of its own; for a class's or a test's with-context."""

    def __init__(self, enter, *, qmp, bundle="smbios", options="", grants="ping,info,power.shutdown,power.restart"):
        self.host = enter(HostSide(build_folder()))
        self.host.start()
        self.uuid = str(uuid.uuid4())
        self.socket = self.host.folder / "serial"
        self.qmp = self.host.folder / "qmp" if qmp else None
        self.disk = make_disk(self.host.folder / "disk")
        watched = ["--qmp", self.qmp] if qmp else []
        self.bundle = self.host.enroll(VM, f"serial:{self.socket}", "--uuid", self.uuid, "--grant", grants, *watched)
        how = {
            "smbios": ["-smbios", f"type=11,path={self.bundle}"],
            "fw_cfg": ["-fw_cfg", f"name=opt/org.postern/bundle,file={self.bundle}"],
        }[bundle]
        self.guest = enter(self.boot(self.socket, self.disk, self.uuid, options, how))
        self.host.wait_for_status(VM, "green", "on-time", BOOT_SECONDS)
        watcher = "with QMP" if qmp else "without QMP"
        print(f"transport: virtio-serial {watcher}, bundle by {bundle}, guest under {self.guest.accelerator}")

    def boot(self, socket, disk, machine, options="", arguments=()):
        initramfs = agent_initramfs(
            self.host.programs, options=options, disk=True, files={"/etc/postern/hooks.d/10-note": HOOK}
        )
        drive = ["-drive", f"file={disk},format=raw,if=virtio"]
        return agent_guest(
            initramfs, socket, qmp=self.qmp, arguments=["-uuid", machine, *drive, *arguments], restart_on_reboot=True
        )

    def colours(self, since):
        """What `postern events` says of colour and reason since then: [(colour, reason)]."""
        return colours_of(self.host.events(VM, since))

    def follow(self, since, expected, timeout=SOON_SECONDS):
        """Waits until these (colour, reason) have come in this order; others may come between them. Gives all."""

        def came():
            seen = iter(self.colours(since))
            return all(any(each == wanted for each in seen) for wanted in expected)

        wait_until(came, timeout, f"{expected} of {VM}", lambda: self.host.story(VM))
        return self.colours(since)

    def guest_pid(self, which):
        return self.guest.run(f"agent-service {which}").output.strip()


def same_with_or_without_qmp(test):
    """Left out without QMP, except in the long form."""

    @functools.wraps(test)
    def run(self):
        if not (self.with_qmp or is_full()):
            self.skipTest("the same as with QMP; POSTERN_TEST_FULL=1 runs it here, too")
        test(self)

    return run


class States:
    """The serial columns of the table in docs/OPERATIONS.md, a test a cell, and the calls. `with_qmp` says which column."""

    @classmethod
    def setUpClass(cls):
        cls.vm = Machine(cls.enterClassContext, qmp=cls.with_qmp, bundle=cls.bundle, options=cls.options)
        cls.host, cls.guest = cls.vm.host, cls.vm.guest

    def setUp(self):
        self.host.wait_for_status(VM, "green", "on-time", SOON_SECONDS)
        self.since = self.host.mark(VM)

    def follow(self, *expected, timeout=SOON_SECONDS):
        return self.vm.follow(self.since, expected, timeout)

    def back_to_green(self, *before, timeout=SOON_SECONDS):
        seen = self.follow(*before, ("green", "on-time"), timeout=timeout)
        self.host.wait_for_status(VM, "green", "on-time", SOON_SECONDS)
        return seen

    # --- enrolment and calls -----------------------------------------------------------------------------------

    def test_the_vm_is_enrolled_and_no_command_line_shows_its_bundle(self):
        self.assertNotIn(self.vm.bundle.read_text().strip(), " ".join(self.guest.qemu_command))
        shown = self.host.postern("vm", "show", VM).out
        self.assertRegex(shown, r"enrolment +enrolled\n")
        self.assertIn(self.vm.uuid, shown)

    @same_with_or_without_qmp
    def test_ping_and_info_answer(self):
        self.assertRegex(self.host.postern("ping", VM, "-c", "2", "-i", "0").out, r"(?s)link .*total ")
        # A probe that has no answer within its two seconds says so; a busy machine under emulation may need another try.
        whole = re.compile(r"(?s)host name +guest.*/var/lib +ext4")
        wait_until(lambda: whole.search(self.host.postern("info", VM).out), SOON_SECONDS, "a whole answer to info")

    @same_with_or_without_qmp
    def test_a_call_that_the_host_did_not_grant_names_the_hosts_lock(self):
        done = self.host.postern("suspend", VM, status=3)
        self.assertIn("the host's policy", done.err)
        self.assertRegex(done.err, r'call = "power.suspend"')

    @same_with_or_without_qmp
    def test_a_call_that_the_guest_did_not_grant_names_the_guests_lock(self):
        rules = self.host.root / "etc/postern/policy.d"
        rules.mkdir(parents=True)
        rule = rules / "suspend.toml"
        rule.write_text(
            f'policy = 1\n[[allow]]\nid = "s"\nfrom = "user:{getpass.getuser()}"\nto = "{VM}"\ncall = "power.suspend"\n'
        )
        try:
            self.host.postern("policy", "reload")
            done = self.host.postern("suspend", VM, status=3)
            self.assertIn("guest's policy", done.err)
        finally:
            rule.unlink()
            rules.rmdir()
            self.host.postern("policy", "reload")

    # --- states ------------------------------------------------------------------------------------------------

    def test_an_agent_that_was_stopped_in_good_order_is_gray(self):
        self.guest.run("agent-service stop")
        seen = self.follow(("gray", "agent-stopped"))
        self.assertNotIn("red", dict(seen))
        self.assertEqual(self.host.postern("ping", VM, status=4).out, "")
        self.guest.run(f"agent-service start {self.options}")
        self.back_to_green(("yellow", "connected"))

    def test_an_agent_that_was_killed_goes_red_and_comes_back(self):
        self.guest.run("touch /run/agent-stopped; kill -9 $(agent-service pid) $(agent-service agent-pid)")
        if self.with_qmp:
            self.follow(("yellow", "port-closed"), ("red", "port-closed"))
        else:
            self.follow(("yellow", "late"), ("red", "silent"))
        self.guest.run(f"agent-service start {self.options}")
        self.back_to_green()

    def test_an_agent_that_hangs_is_late_then_silent(self):
        self.guest.run("kill -STOP $(agent-service agent-pid)")
        self.follow(("yellow", "late"), ("red", "silent"))
        self.host.postern("ping", VM, status=5, timeout=60)
        self.guest.run("kill -CONT $(agent-service agent-pid)")
        self.back_to_green()

    @same_with_or_without_qmp
    def test_a_port_that_another_program_has_open_is_told_with_its_name_and_freed_as_the_doctor_says(self):
        self.guest.run("agent-service stop; sleep 1000 <$(readlink -f /dev/virtio-ports/org.postern.agent.0) >/dev/null 2>&1 &")
        holder = self.guest.run("until pidof sleep; do sleep 0.1; done").output.strip()
        self.guest.run(f": >/tmp/agent.log; agent-service start {self.options}")
        said = "no-link.*org.postern.agent.0: another process has the port open; .postern-agent doctor"
        self.guest.run(f"until grep -q '{said}' /tmp/agent.log; do sleep 0.1; done", timeout=SOON_SECONDS)
        doctor = self.guest.run("postern-agent doctor", check=False)
        self.assertEqual(doctor.status, 1)
        self.assertRegex(
            doctor.output,
            rf"wrong +transport +/dev/virtio-ports/org\.postern\.agent\.0: \w+ \(pid {holder}\) has it open.*\n +kill {holder}\n",
        )
        self.guest.run(f"kill {holder}")
        self.back_to_green()
        self.assertIn("held by postern-agent", self.guest.run("postern-agent doctor").output)

    def test_a_link_that_is_cut_is_lost_at_once_then_red_and_comes_back(self):
        self.guest.qmp.execute("chardev-change", {"id": "port0", "backend": {"type": "null", "data": {}}})
        self.follow(("yellow", "link-lost"), ("red", "link-lost"))
        address = {"type": "unix", "data": {"path": str(self.vm.socket)}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        self.guest.qmp.execute("chardev-change", {"id": "port0", "backend": backend})
        self.back_to_green()

    def test_a_paused_vm(self):
        self.guest.qmp.execute("stop")
        if self.with_qmp:
            seen = self.follow(("gray", "paused"))
            self.assertNotIn("red", dict(seen))
            self.guest.qmp.execute("cont")
            self.back_to_green(("yellow", "resumed"))
        else:
            self.follow(("yellow", "late"), ("red", "silent"))
            self.guest.qmp.execute("cont")
            self.back_to_green()

    def test_a_vm_that_is_reset(self):
        self.guest.qmp.execute("system_reset")
        if self.with_qmp:
            seen = self.back_to_green(("gray", "restarting"), ("yellow", "connected"), timeout=BOOT_SECONDS)
            self.assertNotIn("red", dict(seen))
            # Firmware that finds the machine used resets it once more.
            resets = [event for event in self.host.events(VM, self.since) if event["text"] == "QEMU has reset it"]
            self.assertEqual(len(resets), 1, resets)
        else:
            self.back_to_green(timeout=BOOT_SECONDS)
        self.host.wait_for_event(VM, "booted", SOON_SECONDS, since=self.since)

    @same_with_or_without_qmp
    def test_a_restart_is_confirmed_by_a_new_boot_and_ran_the_hooks(self):
        self.guest.run("rm -f /var/lib/hooks-ran")
        boot = self.guest.run("cat /proc/sys/kernel/random/boot_id").output
        position = self.guest.console.position
        done = self.host.postern("restart", VM, "--wait", "--timeout", "100", timeout=120)
        self.assertRegex(done.out, r"(?s)accepted.*hook 10-note.*stopping.*back \(a heartbeat with a new boot id")
        self.guest.wait_for("the shell is ready", BOOT_SECONDS, since=position)
        self.assertNotEqual(self.guest.run("cat /proc/sys/kernel/random/boot_id").output, boot)
        self.assertRegex(self.guest.run("cat /var/lib/hooks-ran").output, r"^10-note .*restart")
        seen = self.back_to_green(("gray", "restarting"))
        self.assertNotIn("red", dict(seen))

    # --- one process dies --------------------------------------------------------------------------------------

    def check_healed(self, began, sessions_before):
        self.host.wait_for_event(VM, "connected", SOON_SECONDS, since=self.since)
        self.host.postern("ping", VM, "-c", "1")
        took = time.monotonic() - began
        print(f"healed after {took:.2f} s")
        self.assertLess(took, HEAL_SECONDS)
        self.assertGreater(self.sessions_made(), sessions_before)

    def sessions_made(self):
        return int(re.search(r"sessions made +(\d+)", self.host.postern("vm", "show", VM).out)[1])

    @same_with_or_without_qmp
    def test_the_agent_is_killed_and_heals(self):
        before = self.sessions_made()
        pid = self.vm.guest_pid("agent-pid")
        began = time.monotonic()
        self.guest.run(f"kill -9 {pid}")
        self.check_healed(began, before)

    @same_with_or_without_qmp
    def test_the_broker_is_killed_and_heals(self):
        before = self.sessions_made()
        pid = self.vm.guest_pid("pid")
        began = time.monotonic()
        self.guest.run(f"kill -9 {pid}")
        self.check_healed(began, before)

    @same_with_or_without_qmp
    def test_the_session_process_is_killed_and_heals(self):
        began = time.monotonic()
        os.kill(self.host.session_pid(VM), signal.SIGKILL)
        self.check_healed(began, 0)

    def test_posternd_is_killed_and_its_successor_finds_the_same_session(self):
        sessions, session = self.sessions_made(), self.host.session_pid(VM)
        self.host.end(signal.SIGKILL)
        began = time.monotonic()
        self.host.start()
        self.since = 0  # its events begin anew
        self.back_to_green()
        self.assertLess(time.monotonic() - began, HEAL_SECONDS)
        self.assertEqual((self.sessions_made(), self.host.session_pid(VM)), (sessions, session))
        self.assertNotIn(("yellow", "link-lost"), self.vm.colours(0))
        self.host.postern("ping", VM, "-c", "1")

    # --- snapshots ---------------------------------------------------------------------------------------------

    @same_with_or_without_qmp
    def test_an_agent_with_an_older_copy_of_its_state_is_a_rollback_and_let_in(self):
        self.guest.run("agent-service stop; cp -p /var/lib/postern-agent/state /tmp/old-state")
        self.guest.run(f"agent-service start {self.options}")
        self.host.wait_for_event(VM, "connected", SOON_SECONDS, since=self.since)
        self.guest.run("agent-service stop; cat /tmp/old-state >/var/lib/postern-agent/state")
        since = self.host.mark(VM)
        self.guest.run(f"agent-service start {self.options}")
        self.host.wait_for_event(VM, "rollback", SOON_SECONDS, since=since)
        self.back_to_green()


class SerialWithQmp(States, unittest.TestCase):
    with_qmp = True
    bundle = "smbios"
    options = "--connect auto"


class SerialWithoutQmp(States, unittest.TestCase):
    with_qmp = False
    bundle = "fw_cfg"
    options = ""


class OneVmEach(unittest.TestCase):
    def machine(self, **options):
        machine = Machine(self.enterContext, **options)
        self.since = machine.host.mark(VM)
        return machine

    def test_a_vm_that_is_reset_right_after_its_enrolment_still_has_the_grants(self):
        vm = self.machine(qmp=False)
        vm.guest.qmp.execute("system_reset")
        vm.host.wait_for_event(VM, "booted", BOOT_SECONDS, since=self.since)
        vm.host.postern("ping", VM, "-c", "1")

    def test_a_shutdown_is_confirmed_by_qemu_and_a_copy_of_the_disk_is_nobody(self):
        vm = self.machine(qmp=True)
        done = vm.host.postern("shutdown", VM, "--wait", timeout=120)
        self.assertRegex(done.out, r"(?s)accepted.*hook 10-note.*stopping.*gone \(it said goodbye.*SHUTDOWN")
        self.assertEqual(vm.guest.wait_exit(), 0)
        self.assertEqual(vm.host.status(VM)["state"], "gray")
        self.assertNotIn("red", dict(vm.colours(self.since)))
        self.check_copies_of(vm)

    def check_copies_of(self, vm):
        other = str(uuid.uuid4())
        socket = vm.host.folder / "serial2"
        vm.host.enroll("web2", f"serial:{socket}", "--uuid", other, "--grant", "ping")
        vm.qmp = None
        # With its machine's name it is refused by the host, on whose channel for web2 it comes.
        with vm.boot(socket, vm.disk, vm.uuid):
            vm.host.wait_for_event("web2", "refused", BOOT_SECONDS)
            self.assertEqual(vm.host.status("web2")["reason"], "not-enrolled")
        # On another machine it does not even try.
        since = vm.host.mark("web2")
        with vm.boot(socket, vm.disk, other) as copy:
            copy.run("until grep -qi 'copy' /tmp/agent.log; do sleep 0.1; done", timeout=SOON_SECONDS)
            self.assertEqual([e for e in vm.host.events("web2", since) if e["kind"] in ("connected", "refused")], [])

    def test_a_shutdown_without_qmp_is_confirmed_by_goodbye_and_silence(self):
        vm = self.machine(qmp=False)
        done = vm.host.postern("shutdown", VM, "--wait", timeout=120)
        self.assertRegex(done.out, r"(?s)stopping.*gone \(it said goodbye")
        self.assertEqual(vm.guest.wait_exit(), 0)
        self.assertEqual(vm.host.status(VM)["reason"], "shut-down")
        self.assertNotIn("red", dict(vm.colours(self.since)))

    def test_an_agent_that_hangs_is_shut_down_by_qemu_if_asked_to(self):
        vm = self.machine(qmp=True)
        vm.guest.run("kill -STOP $(agent-service agent-pid)")
        done = vm.host.postern("shutdown", VM, "--force-after", "2", timeout=120)
        self.assertRegex(done.out, "turned off by QEMU|QEMU says SHUTDOWN: host-qmp-quit")
        self.assertEqual(vm.guest.wait_exit(), 0)
        vm.follow(self.since, [("gray", "vm-off")])

    def test_forcing_a_vm_without_qmp_says_what_is_missing(self):
        vm = self.machine(qmp=False)
        vm.guest.run("kill -STOP $(agent-service agent-pid)")
        done = vm.host.postern("shutdown", VM, "--force-after", "1", "--timeout", "8", status=None, timeout=120)
        self.assertIn(done.status, (1, 2, 5, 6), done)
        self.assertRegex(done.err, r"--qmp|QMP")
        vm.guest.kill()
        vm.follow(self.since, [("yellow", "link-lost")])
        vm.follow(self.since, [("red", "link-lost")])


if __name__ == "__main__":
    unittest.main()
