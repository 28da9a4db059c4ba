"""postern doctor and postern-agent doctor against real processes: each link of the chain is broken in turn, is named
with what mends it, and is whole again after that.

usage: doctor-test.py HOST-PROGRAMS POSTERN-AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
# Warnings of these are of the machine that the test runs on.
NOT_OURS = {"clock", "kernel", "space", "user"}


class DoctorCase(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)

    # What a doctor says ----------------------------------------------------------------------------------------------

    def host(self, *vm, status=None, **options):
        """The checks that found something, by name."""
        result = self.lab.run("--json", "--timeout", "2", "doctor", *vm, **options)
        if status is not None:
            self.assertEqual(result.status, status, result)
        self.assertEqual(result.json()["exitStatus"], result.status)
        self.assertEqual(result.json()["ok"], result.status == 0)
        return self.ill(result.json())

    def guest(self, guest, *arguments, status=None):
        command = [PROGRAMS.agent, "--root", guest.root, *arguments, "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=labs.PATIENCE)
        if status is not None:
            self.assertEqual(done.returncode, status, done)
        return self.ill(json.loads(done.stdout))

    @staticmethod
    def ill(document):
        found = {}
        for check in document["checks"]:
            if check["grade"] == "wrong" or check["grade"] == "warning" and check["check"] not in NOT_OURS:
                found.setdefault(check["check"], check)
        return found

    def assert_ill(self, found, check, text, remedy, grade="wrong"):
        self.assertIn(check, found)
        self.assertEqual(found[check]["grade"], grade, found)
        self.assertRegex(found[check]["text"], text)
        self.assertRegex(found[check]["remedy"], remedy)

    def mend(self, found, check):
        """Runs what the doctor says."""
        command = found[check]["remedy"].replace("postern --root", PROGRAMS.postern + " --root")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=labs.PATIENCE,
                              cwd=self.lab.folder)
        self.assertEqual(done.returncode, 0, (command, done))

    def until_well(self, *vm):
        labs.wait_until(lambda: not self.host(*vm), lambda: self.host(*vm))


class HostDoctorTest(DoctorCase):
    def setUp(self):
        super().setUp()
        self.lab.start_posternd()

    def test_a_host_that_is_well_has_a_line_for_each_link_and_status_0(self):
        self.assertEqual(self.host(status=0), {})
        text = self.lab.run("doctor")
        self.assertEqual(text.status, 0)
        for check in ("config", "policy", "folders", "space", "caller", "posternd", "version", "in-force", "audit", "board", "vms"):
            self.assertRegex(text.out, rf"(?m)^(ok|warning) +{check} +\S")

    def test_an_error_in_the_settings_is_named_by_file_and_line(self):
        self.lab.write("etc/postern/postern.toml", 'rolback = "deny"\n')
        self.assert_ill(self.host(status=1), "config", r"postern\.toml:1: .*'rolback'.*did you mean 'rollback'", r"kill -HUP \d+")
        self.lab.write("etc/postern/postern.toml", 'group = "no-such-group"\nsession-program = "/nonexistent"\n')
        self.assert_ill(self.host(status=1), "config", "no group no-such-group", "^groupadd --system no-such-group$")

    def test_an_error_in_the_policy_is_named_by_file_and_line(self):
        self.lab.write("etc/postern/policy.d/a.toml", 'policy = 1\n[[allow]]\nid = "x"\nfrom = "host"\nto = "any"\ncal = "ping"\ncall = "ping"\n')
        self.assert_ill(self.host(status=1), "policy", r"a\.toml:6: .*'cal'.*did you mean 'call'", "postern --root .* policy reload")

    def test_a_policy_that_is_not_in_force_is_told_and_mended_by_the_command(self):
        self.lab.write("etc/postern/policy.d/a.toml", 'policy = 1\n[[allow]]\nid = "x"\nfrom = "host"\nto = "any"\ncall = "ping"\n')
        found = self.host(status=0)
        self.assert_ill(found, "in-force", "earlier policy", "policy reload", grade="warning")
        self.mend(found, "in-force")
        self.assertEqual(self.host(status=0), {})

    def test_folders_that_others_may_use_are_told_and_mended_by_the_command(self):
        for folder, mode in (("etc/postern/policy.d", 0o777), ("var/lib/postern/vms", 0o755), ("run/postern/sessions", 0o711),
                             ("var/log/postern/audit.log", 0o666)):
            os.chmod(self.lab.path(folder), mode)
            found = self.host(status=1)
            self.assert_ill(found, "folders", folder + ": others than its owner", "^chmod g?o?[-=]w? " + self.lab.path(folder))
            self.mend(found, "folders")
            self.assertEqual(self.host(status=0), {})

    @unittest.skipUnless(IS_ROOT, "needs root: gives a file away")
    def test_a_folder_of_another_users_is_told_and_mended_by_the_command(self):
        os.chown(self.lab.path("var/lib/postern/vms"), NOBODY, -1)
        found = self.host(status=1)
        self.assert_ill(found, "folders", "belongs to nobody, not to root", "^chown root ")
        self.mend(found, "folders")
        self.assertEqual(self.host(status=0), {})

    def test_a_posternd_that_does_not_run_is_told(self):
        self.lab.posternd.end()
        self.assert_ill(self.host(status=1), "posternd", "nobody answers at .*control.sock", "^posternd --root .* &$")
        self.lab.start_posternd()
        self.assertEqual(self.host(status=0), {})

    def test_a_posternd_that_hangs_is_told(self):
        self.lab.posternd.send(signal.SIGSTOP)
        self.assert_ill(self.host(status=1), "posternd", "did not answer within 2", "posternd --root")
        self.lab.posternd.send(signal.SIGCONT)
        self.until_well()

    @unittest.skipUnless(IS_ROOT, "needs root: becomes another user")
    def test_a_user_who_may_not_ask_is_told_what_lets_him(self):
        self.assert_ill(self.host(status=1, user=NOBODY), "caller", "user nobody may not use .*control.sock",
                        "^usermod -aG root nobody$")

    def test_a_status_board_that_is_gone_is_told(self):
        os.unlink(self.lab.path("run/postern/board"))
        self.assert_ill(self.host(status=1), "board", "board", r"^kill \d+; posternd --root")
        self.lab.posternd.end()
        self.lab.start_posternd()
        self.assertEqual(self.host(status=0), {})


class VmDoctorTest(DoctorCase):
    def setUp(self):
        super().setUp()
        self.lab.start_posternd()

    def restart(self):
        self.lab.posternd.end()
        self.lab.start_posternd()

    def test_a_vm_that_is_well_has_a_line_for_each_link_and_status_0(self):
        self.lab.pair("web1")
        self.assertEqual(self.host("web1", status=0), {})
        text = self.lab.run("doctor", "web1").out
        for check in ("vm", "enrolment", "keys", "transport", "session", "link", "heartbeat", "ping"):
            self.assertRegex(text, rf"(?m)^ok +{check} +\S")

    def test_a_vm_that_is_not_known_is_status_2(self):
        self.assert_ill(self.host("web9", status=2), "vm", "no VM web9", "vm list")

    def test_a_bundle_that_nobody_used_and_one_that_has_expired(self):
        self.lab.enroll("web1", None, "ping", "--lifetime", "2s")
        self.assert_ill(self.host("web1", status=4), "enrolment", "its bundle is out", "in web1: postern-agent join")
        found = labs.wait_until(lambda: [f for f in [self.host("web1")] if "lifetime is over" in f["enrolment"]["text"]],
                                "its bundle does not expire")[0]
        self.assert_ill(found, "enrolment", "not enrolled", "vm rekey web1 --force")
        self.mend(found, "enrolment")
        self.assert_ill(self.host("web1"), "enrolment", "its bundle is out", "join")

    def test_keys_that_others_may_read_are_told_and_mended_by_the_command(self):
        self.lab.pair("web1")
        os.chmod(self.lab.path("var/lib/postern/vms/web1.state"), 0o644)
        found = self.host("web1", status=1)
        self.assert_ill(found, "keys", "others than its owner have rights", "^chmod go= ")
        self.mend(found, "keys")
        self.assertEqual(self.host("web1", status=0), {})

    def test_a_socket_that_somebody_removed_is_told(self):
        self.lab.pair("web1")
        os.unlink(os.path.join(self.lab.folder, "web1.sock"))
        self.assert_ill(self.host("web1", status=1), "transport", "web1.sock: somebody has removed", r"^kill \d+; posternd")
        self.restart()
        self.until_well("web1")

    def test_a_socket_whose_folder_is_not_there_is_told_and_mended_by_the_command(self):
        folder = os.path.join(self.lab.folder, "not-there")
        self.lab.enroll("web1", f"unix:{folder}/web1.sock")
        found = labs.wait_until(lambda: [f for f in [self.host("web1")] if "transport" in f], "no trouble")[0]
        self.assert_ill(found, "transport", f"cannot listen on {folder}/web1.sock", "^install -d -m 0700 -o ")
        time.sleep(6)  # tried again
        self.assertEqual(self.lab.event_kinds("web1").count("trouble"), 1)
        self.mend(found, "transport")
        labs.wait_until(lambda: "transport" not in self.host("web1"), lambda: self.host("web1"))

    def test_the_socket_of_a_vm_that_is_off_is_told(self):
        path = os.path.join(self.lab.folder, "port")
        self.lab.enroll("web1", f"serial:{path}")
        found = labs.wait_until(lambda: [f for f in [self.host("web1")] if "transport" in f], "no trouble")[0]
        self.assert_ill(found, "transport", "there is no such port", "start the VM; or postern .* vm set web1")
        with socket.socket(socket.AF_UNIX) as port:
            port.bind(path)
            labs.wait_until(lambda: self.host("web1")["transport"]["remedy"] == "start the VM", "there is no socket yet")
            port.listen()
            labs.wait_until(lambda: "transport" not in self.host("web1"), lambda: self.host("web1"))

    @unittest.skipUnless(IS_ROOT, "needs root: a posternd without rights, a socket of root's")
    def test_a_vms_socket_that_posternd_may_not_use_is_told_and_mended_by_the_command(self):
        self.lab.posternd.end()
        for folder in ("run", "var", "etc"):
            os.makedirs(self.lab.path(folder), exist_ok=True)
            for parent, _, files in os.walk(self.lab.path(folder)):
                for name in [parent, *(os.path.join(parent, file) for file in files)]:
                    os.chown(name, NOBODY, NOBODY)
        os.chown(self.lab.root, NOBODY, NOBODY)
        self.lab.start_posternd(user=NOBODY)
        path = os.path.join(self.lab.folder, "port")
        with socket.socket(socket.AF_UNIX) as port:
            port.bind(path)
            port.listen()
            os.chmod(path, 0o700)
            self.lab.enroll("web1", f"serial:{path}")
            found = labs.wait_until(lambda: [f for f in [self.host("web1")] if "transport" in f], "no trouble")[0]
            self.assert_ill(found, "transport", "permission denied", f"^chown nobody {path}$")
            self.mend(found, "transport")
            labs.wait_until(lambda: "transport" not in self.host("web1"), lambda: self.host("web1"))

    def test_a_qmp_socket_that_is_not_there_is_a_warning(self):
        guest = self.lab.enroll("web1", None, "ping", "--qmp", os.path.join(self.lab.folder, "qmp"))
        guest.start()
        self.lab.green("web1")
        found = labs.wait_until(lambda: self.host("web1", status=0), "no warning")
        self.assert_ill(found, "qmp", "qmp", "vm set web1 --qmp PATH, or --qmp none", grade="warning")
        self.lab.good("vm", "set", "web1", "--qmp", "none")
        self.assertEqual(self.host("web1", status=0), {})

    def test_a_session_process_that_cannot_run_is_told(self):
        self.lab.pair("web1")
        self.lab.posternd.end(signal.SIGINT)
        self.lab.write("etc/postern/postern.toml", 'session-program = "/bin/false"\n')
        self.lab.start_posternd()
        self.assert_ill(self.host("web1"), "session", "does not run", "events web1")
        os.unlink(self.lab.path("etc/postern/postern.toml"))
        self.restart()
        self.until_well("web1")

    def test_an_agent_that_does_not_run_is_told(self):
        guest = self.lab.pair("web1")
        guest.program.end()
        self.lab.wait_colour("web1", "gray")
        found = self.host("web1", status=4)
        self.assert_ill(found, "link", "it is down; ", "^in web1: systemctl restart postern-agent")
        self.assert_ill(found, "heartbeat", "gray: its agent was stopped", "in web1: systemctl restart postern-agent")
        guest.start()
        self.until_well("web1")

    def test_a_guest_that_has_lost_its_keys_is_told(self):
        guest = self.lab.pair("web1")
        guest.program.end()
        shutil.rmtree(os.path.join(guest.root, "var/lib/postern-agent"))
        guest.start()
        found = labs.wait_until(lambda: [f for f in [self.host("web1", status=4)] if "refused" in f["link"]["text"]],
                                "it is not refused")[0]
        self.assert_ill(found, "link", "it is down; refused: no key", "vm rekey web1 --force\nin web1: postern-agent join BUNDLE")
        self.lab.good("vm", "rekey", "web1", "--force", "--bundle-file", guest.bundle)
        guest.program.send(signal.SIGHUP)
        self.until_well("web1")

    @unittest.skipUnless(IS_ROOT, "needs root: becomes another user")
    def test_a_host_that_does_not_let_this_user_ping_is_told_and_mended_by_what_is_suggested(self):
        self.lab.pair("web1")
        os.chmod(self.lab.folder, 0o755)
        os.chmod(self.lab.control_socket, 0o666)
        rule = 'policy = 1\n[[allow]]\nid = "look"\nfrom = "user:nobody"\nto = "web1"\ncall = "status.read"\n'
        self.lab.write("etc/postern/policy.d/a.toml", rule)
        self.lab.good("policy", "reload")
        found = self.host("web1", status=3, user=NOBODY)
        self.assert_ill(found, "ping", "ping.*denied", r"(?s)policy\.d, then postern .* policy reload\n.*\[\[allow\]\]")
        suggestion = found["ping"]["remedy"].split("\n", 1)[1]
        self.lab.write("etc/postern/policy.d/a.toml", rule + suggestion)
        self.lab.good("policy", "reload")
        self.assertNotIn("ping", self.host("web1", status=0, user=NOBODY))

    def test_a_guest_that_does_not_let_it_be_pinged_is_told_and_mended_by_what_is_suggested(self):
        guest = self.lab.pair("web1")
        guest.write("etc/postern/agent.toml", "policy = 1\n")
        guest.program.send(signal.SIGHUP)
        found = labs.wait_until(lambda: self.host("web1"), "it lets it")
        self.assert_ill(found, "ping", "the guest's policy", r"(?s)in web1: /etc/postern/agent.toml.*\[\[allow\]\]")
        self.assertEqual(self.lab.run("doctor", "web1").status, 3)
        guest.write("etc/postern/agent.toml", "policy = 1\n" + found["ping"]["remedy"].split("\n", 1)[1])
        guest.program.send(signal.SIGHUP)
        self.until_well("web1")

    def test_a_vm_that_is_red_is_told_to_who_names_none(self):
        guest = self.lab.pair("web1")
        guest.program.kill()
        self.lab.wait_colour("web1", "red")
        self.assert_ill(self.host(status=1), "vms", "web1 is red", "postern .* doctor web1$")


class GuestDoctorTest(DoctorCase):
    def setUp(self):
        super().setUp()
        self.lab.start_posternd()

    def pair(self):
        guest = self.lab.pair("web1")
        self.arguments = ("--connect", guest.connect)
        self.assertEqual(self.guest(guest, *self.arguments, status=0), {})
        return guest

    def examine(self, guest, status=1):
        return self.guest(guest, *self.arguments, status=status)

    def test_a_guest_that_is_well_has_a_line_for_each_link_and_status_0(self):
        guest = self.pair()
        done = subprocess.run([PROGRAMS.agent, "--root", guest.root, *self.arguments, "doctor"], capture_output=True, text=True)
        for check in ("config", "user", "identity", "space", "transport", "broker", "agent"):
            self.assertRegex(done.stdout, rf"(?m)^(ok|warning) +{check} +\S")

    def test_an_error_in_the_settings_is_named_by_file_and_line(self):
        guest = self.pair()
        guest.write("etc/postern/agent.toml", 'policy = 1\n[agent]\nconect = "auto"\n')
        self.assert_ill(self.examine(guest), "config", r"agent\.toml:3: .*did you mean 'connect'", "--check-config")
        guest.write("etc/postern/agent.toml", 'policy = 1\n[agent]\nuser = "no-such-user"\n')
        self.assert_ill(self.examine(guest), "user", "no user 'no-such-user'", "^useradd --system no-such-user$")

    def test_a_file_that_others_may_write_is_told_and_mended_by_the_command(self):
        guest = self.pair()
        guest.write("etc/postern/agent.toml", "policy = 1\n")
        for path, mode, check in (("etc/postern/agent.toml", 0o666, "config"), ("var/lib/postern-agent/state", 0o644, "identity")):
            os.chmod(os.path.join(guest.root, path), mode)
            found = self.examine(guest)
            self.assert_ill(found, check, "others than its owner", "^chmod go")
            self.mend(found, check)
            self.assertEqual(self.examine(guest, status=0), {})

    def test_a_guest_without_identity_and_without_bundle_is_told(self):
        guest = self.lab.enroll("web1")
        self.assert_ill(self.guest(guest, "--connect", guest.connect, status=1), "identity", "not enrolled, and there is no bundle",
                        "postern vm rekey VM --force; here: postern-agent --root .* join FILE")
        found = self.guest(guest, "--connect", guest.connect, "--bundle-file", guest.bundle)
        self.assert_ill(found, "identity", "it has a bundle", "postern-agent", grade="warning")
        guest.write("etc/postern/bundle", "postern-bundle-1:damaged\n")
        os.chmod(os.path.join(guest.root, "etc/postern/bundle"), 0o600)
        self.assert_ill(self.guest(guest, "--connect", guest.connect), "bundle", "etc/postern/bundle: the bundle", "join FILE",
                        grade="warning")

    def test_an_identity_that_was_copied_is_told(self):
        guest = self.pair()
        guest.program.end()
        guest.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n")
        guest.start()
        found = labs.wait_until(lambda: [f for f in [self.examine(guest)] if "agent" in f], "an agent runs")[0]
        self.assert_ill(found, "identity", "made on another machine", "join --force FILE")
        self.assert_ill(found, "agent", "the broker runs, and no agent", "kill -HUP")

    def test_an_agent_that_does_not_run_is_told(self):
        guest = self.pair()
        guest.program.end()
        self.assert_ill(self.examine(guest), "broker", "does not run", "^postern-agent --root .* &$")

    def test_a_link_that_is_not_there_is_told(self):
        guest = self.pair()
        self.arguments = ("--connect", "unix:/nonexistent/sock")
        self.assert_ill(self.examine(guest), "transport", "/nonexistent/sock: it is not there", "on the host")
        self.arguments = ("--connect", "serial:/dev/nonexistent")
        self.assert_ill(self.examine(guest), "transport", "/dev/nonexistent: it is not there", "modprobe virtio_console")

    def test_a_port_that_another_program_has_open_is_told_and_mended_by_the_command(self):
        guest = self.pair()
        ours, theirs = pty.openpty()
        port = os.path.join(guest.root, "dev/virtio-ports/org.postern.agent.0")
        os.makedirs(os.path.dirname(port))
        os.symlink(os.ttyname(theirs), port)
        self.arguments = ()
        other = subprocess.Popen(["sleep", "1000"], stdin=theirs, start_new_session=True)
        self.addCleanup(other.kill)
        os.close(theirs)
        self.addCleanup(os.close, ours)
        found = self.examine(guest)
        self.assert_ill(found, "transport", rf"agent\.0: sleep \(pid {other.pid}\) has it open", rf"^kill {other.pid}$")
        self.mend(found, "transport")
        other.wait()
        self.assertEqual(self.examine(guest, status=0), {})

    def test_a_unit_that_does_not_start_with_the_guest_is_a_warning(self):
        guest = self.pair()
        os.makedirs(os.path.join(guest.root, "run/systemd/system"))
        self.assert_ill(self.examine(guest, status=0), "unit", "does not start", "^systemctl enable postern-agent$", grade="warning")
        wants = os.path.join(guest.root, "etc/systemd/system/multi-user.target.wants")
        os.makedirs(wants)
        os.symlink("/lib/systemd/system/postern-agent.service", os.path.join(wants, "postern-agent.service"))
        self.assertEqual(self.examine(guest, status=0), {})


if __name__ == "__main__":
    labs.main()
