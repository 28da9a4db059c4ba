"""A full disk below the audit log, which is a small file system of its own here: what must be recorded is refused or goes on, as
postern.toml says, heartbeats go on in either case, and the log is whole when there is room again.

usage: audit-disk-test.py HOST-PROGRAMS POSTERN-AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import ctypes
import json
import os
import signal
import socket
import sys
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 0x40000, 2
RULES = """policy = 1
[[allow]]
id = "uplink"
from = "web1"
to = "host"
call = "service.echo"
"""
SERVICE = '[service.echo]\ntarget = ["/bin/cat"]\nuser = "root"\n'

LIBC = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_mounts_of_the_machine():
    """What this test mounts is seen by it and by what it starts alone, and goes with them."""
    checked(LIBC.unshare(CLONE_NEWNS))
    checked(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


class AuditDiskTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.folder = self.lab.path("var/log/postern")
        os.makedirs(self.folder)
        checked(LIBC.mount(b"tmpfs", self.folder.encode(), b"tmpfs", 0, b"size=256k,mode=0755"))
        self.addCleanup(LIBC.umount2, self.folder.encode(), MNT_DETACH)

    def begin(self, on_failure=None):
        self.settings(on_failure)
        self.lab.write("etc/postern/policy.d/a.toml", RULES)
        self.lab.start_posternd()
        guest = self.lab.enroll("web1")
        self.consumer = os.path.join(self.lab.folder, "consumer.sock")
        guest.write("etc/postern/agent.toml", f'policy = 1\n[[allow]]\nid = "all"\ncall = ["ping", "info.*"]\n'
                    f'[[consume]]\nlisten = "unix:{self.consumer}"\nfrom = "host"\nservice = "echo"\n')
        guest.start()
        self.lab.green("web1")
        self.assertTrue(self.guest_reaches_the_host())
        return guest

    def settings(self, on_failure):
        audit = "" if on_failure is None else f'[audit]\non-failure = "{on_failure}"\n'
        self.lab.write("etc/postern/postern.toml", SERVICE + audit)

    def fill(self):
        with open(os.path.join(self.folder, "filler"), "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 512)
            except OSError:
                pass

        def says_so():
            self.lab.run("policy", "reload")  # lines, until the rest of the log's last page is full, too
            return '"audit-failed"' in self.lab.posternd.said()

        labs.wait_until(says_so, "the disk is not full")

    def make_room(self):
        os.unlink(os.path.join(self.folder, "filler"))

    def guest_reaches_the_host(self):
        with socket.socket(socket.AF_UNIX) as consumer:
            consumer.settimeout(labs.PATIENCE)
            try:
                consumer.connect(self.consumer)
                consumer.sendall(b"hello")
                return consumer.recv(16) == b"hello"
            except ConnectionError:
                return False

    def lines(self):
        return [json.loads(line) for line in self.lab.run("audit", "tail", "-n", "1000").out.splitlines()]

    def beats_on(self):
        """A session that goes on, and its heartbeats."""
        before = self.lab.sequence("web1")
        labs.wait_until(lambda: self.lab.sequence("web1") >= before + 2, "no heartbeat comes")
        self.assertEqual(self.lab.status("web1")["state"], "green")

    def test_operations_are_refused_until_there_is_room_again(self):
        self.begin()
        self.fill()
        for command in (("ping", "-c", "1", "web1"), ("info", "web1"), ("vm", "set", "web1", "--tag", "x")):
            refused = self.lab.run(*command)
            self.assertEqual(refused.status, 1, refused)
            self.assertRegex(refused.err, "not done, since it cannot be recorded: the audit log's disk is full; make room")
        self.assertFalse(self.guest_reaches_the_host())
        self.assertNotIn("x", self.lab.vm("web1")["tags"])
        doctor = self.lab.run("doctor")
        self.assertEqual(doctor.status, 1)
        self.assertRegex(doctor.out, r"(?m)^wrong +audit +the audit log's disk is full")
        # What takes away is done all the same.
        self.lab.good("channel", "block", "web1")
        self.beats_on()
        self.assertEqual(self.lab.posternd.said().count('"audit-failed"'), 1, "it is said once")
        self.make_room()
        self.lab.good("channel", "unblock", "web1")
        self.lab.good("ping", "-c", "1", "web1")
        self.assertTrue(self.guest_reaches_the_host())
        self.lost_lines_are_told()
        self.assertRegex(self.lab.run("doctor").out, "(?m)^ok +audit ")

    def lost_lines_are_told(self):
        self.lab.verify_audit()
        dropped = [line["dropped"] for line in self.lines() if "dropped" in line]
        self.assertEqual(len(dropped), 1, dropped)
        self.lab.posternd.wait_for(f"it can be written again; {dropped[0]} lines were lost")
        kinds = [event["kind"] for event in self.lab.events()]
        self.assertIn("audit-failed", kinds)
        self.assertIn("audit-recovered", kinds)
        return dropped[0]

    def test_operations_go_on_where_the_settings_say_so_and_the_log_says_how_many_lines_are_missing(self):
        self.begin("continue")
        self.fill()
        for number in range(5):
            self.lab.good("policy", "reload")
        self.lab.good("ping", "-c", "1", "web1")
        self.assertTrue(self.guest_reaches_the_host())
        self.beats_on()
        self.lab.posternd.wait_for("all goes on, and lines are lost")
        self.make_room()
        self.lab.good("policy", "reload")
        self.assertGreater(self.lost_lines_are_told(), 5)

    def test_a_reload_of_the_settings_counts_at_once(self):
        self.begin("refuse")
        self.fill()
        self.assertEqual(self.lab.run("ping", "-c", "1", "web1").status, 1)
        for choice, status in (("continue", 0), ("refuse", 1)):
            self.settings(choice)
            self.lab.posternd.send(signal.SIGHUP)
            labs.wait_until(lambda: self.lab.run("ping", "-c", "1", "web1").status == status, choice)


class SettingsTest(unittest.TestCase):
    """What a reload of postern.toml does not change is said, each time."""

    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.lab.start_posternd()

    def test_each_setting_that_counts_from_the_next_start_on_is_named(self):
        for text, named in (('group = "root"', "group and session-program count from the next start on"),
                            ('session-program = "/bin/false"', "group and session-program count from the next start on"),
                            ("[audit]\nfile-bytes = 65536", r"\[audit\] file-bytes and files count"),
                            ("[audit]\nfiles = 3", r"\[audit\] file-bytes and files count"),
                            ('[metrics]\nlisten = "tcp:127.0.0.1:9560"', r"\[metrics\] listen counts")):
            before = len(self.lab.posternd.said())
            self.lab.write("etc/postern/postern.toml", text + "\n")
            self.lab.posternd.send(signal.SIGHUP)
            labs.wait_until(lambda: "config-needs-restart" in self.lab.posternd.said()[before:], text)
            self.assertRegex(self.lab.posternd.said()[before:], named)

    def test_what_a_reload_changes_is_not(self):
        self.lab.write("etc/postern/postern.toml", 'rollback = "deny"\naudit-files = "each"\n[audit]\non-failure = "continue"\n' + SERVICE)
        self.lab.posternd.send(signal.SIGHUP)
        self.lab.posternd.wait_for("policy-reload")
        self.assertNotIn("config-needs-restart", self.lab.posternd.said())


if __name__ == "__main__":
    if os.geteuid() != 0:
        del AuditDiskTest  # it mounts
    else:
        leave_mounts_of_the_machine()
    labs.main()
