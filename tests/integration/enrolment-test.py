"""Registering, enrolling, changing, rekeying and removing VMs, over unix: and hybrid:, and what can be wrong with it.

usage: enrolment-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])


class Firecracker(threading.Thread):
    """A test double of Firecracker's vsock device, on the guest-to-host side.

    The guest's program connects to its port of CID 2; here that is a Unix socket, since there is no guest. The VMM then
    connects to <uds>_<port> of the host and says nothing by itself; when nobody listens there, the guest's connection is
    reset. Bytes go both ways until one end closes, which the other end sees.
    """

    def __init__(self, uds, guest_side, port):
        super().__init__(daemon=True)
        self.host_side = f"{uds}_{port}"
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(guest_side)
        self.listening.listen(8)
        self.connections = 0
        self.open = []
        self.start()

    def run(self):
        while True:
            try:
                guest, _ = self.listening.accept()
            except OSError:
                return
            host = socket.socket(socket.AF_UNIX)
            try:
                host.connect(self.host_side)
            except OSError:
                guest.close()
                host.close()
                continue
            self.connections += 1
            self.open += [guest, host]
            for source, sink in ((guest, host), (host, guest)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.join(labs.PATIENCE)
        for end in self.open:
            end.close()


class EnrolmentTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.lab.start_posternd()

    def hostile(self, guest):
        made = labs.Hostile(guest)
        self.addCleanup(made.close)
        return made

    def assert_works(self, name):
        self.lab.green(name)
        self.assertEqual(self.lab.good("ping", name, "-c", "1")["count"], 1)

    def test_a_vm_enrols_over_unix_with_one_command_and_its_grants_work(self):
        guest = self.lab.pair("web1")
        self.assert_works("web1")
        info = self.lab.good("info", "web1")
        self.assertIn("agent", repr(info).lower())
        vm = self.lab.vm("web1")
        self.assertTrue(vm["enrolled"] and vm["connected"] and not vm["offerPending"], vm)
        self.assertIn("enrolled", self.lab.event_kinds("web1"))
        self.assertTrue(os.path.exists(os.path.join(guest.root, "var/lib/postern-agent/grants.toml")))

    def test_a_vm_enrols_over_hybrid_through_a_vmm_that_says_nothing_of_its_own(self):
        uds = os.path.join(self.lab.folder, "fc.vsock")
        guest = self.lab.enroll("fc1", "hybrid:" + uds + ":7777")
        inside = os.path.join(self.lab.folder, "inside.sock")
        vmm = Firecracker(uds, inside, 7777)
        self.addCleanup(vmm.close)
        guest.connect = "unix:" + inside
        guest.start()
        self.assert_works("fc1")
        self.assertGreaterEqual(vmm.connections, 1)
        # A snapshot breaks every connection; listeners survive.
        before = self.lab.vm("fc1")["sessions"]
        for end in vmm.open:
            end.shutdown(socket.SHUT_RDWR)
        labs.wait_until(lambda: self.lab.vm("fc1")["sessions"] > before, "a new session", 5)
        self.assert_works("fc1")

    def test_list_and_show_tell_what_set_has_changed(self):
        self.lab.pair("web1")
        self.lab.enroll("web2", None, None)
        self.assertEqual([vm["vm"] for vm in self.lab.good("vm", "list")["vms"]], ["web1", "web2"])
        self.assertFalse(self.lab.vm("web2")["enrolled"])
        self.assertTrue(self.lab.vm("web2")["offerPending"])
        self.lab.good("vm", "set", "web1", "--tag", "front,blue")
        self.assertEqual(self.lab.vm("web1")["tags"], ["front", "blue"])
        self.assert_works("web1")

    def test_a_vm_whose_transport_is_changed_is_found_at_the_new_one(self):
        guest = self.lab.pair("web1")
        elsewhere = os.path.join(self.lab.folder, "elsewhere.sock")
        self.lab.good("vm", "set", "web1", "--transport", "unix:" + elsewhere)
        labs.wait_until(lambda: os.path.exists(elsewhere), "the new socket")
        self.assertFalse(os.path.exists(guest.connect.removeprefix("unix:")))
        guest.program.end()
        guest.connect, guest.bundle = "unix:" + elsewhere, None
        before = self.lab.vm("web1")["sessions"]
        guest.start()
        labs.wait_until(lambda: self.lab.vm("web1")["sessions"] > before, "a session at the new place", 8)
        self.assert_works("web1")

    def test_remove_deletes_keys_grants_socket_and_process(self):
        self.lab.pair("web1")
        self.lab.pair("web2")
        witness = labs.Witness(self.lab, "web2")
        pid = self.lab.session_pid("web1")
        removed = self.lab.good("vm", "remove", "web1")
        self.assertIn("power.*", removed["removedGrants"])
        self.lab.reap()
        self.assertFalse(labs.is_alive(pid), f"{pid} is still there")
        left = [os.path.join(folder, name) for folder, _, names in os.walk(self.lab.root) for name in names]
        self.assertFalse([path for path in left if "web1" in os.path.basename(path)], left)
        self.assertFalse(os.path.exists(os.path.join(self.lab.folder, "web1.sock")))
        for arguments in (["ping", "web1", "-c", "1"], ["vm", "show", "web1"], ["status", "web1"]):
            result = self.lab.run(*arguments)
            self.assertEqual(result.status, 2, repr(result))
        witness.end(self)

    def test_a_removed_name_can_be_enrolled_again_and_the_old_agent_stays_out(self):
        old = self.lab.pair("web1")
        self.lab.good("vm", "remove", "web1")
        os.unlink(old.bundle)
        new = self.lab.enroll("web1")
        time.sleep(1)
        self.assertFalse(self.lab.vm("web1")["connected"], "old keys must not open a new VM of that name")
        old.program.end()
        new.start()
        self.assert_works("web1")

    def test_rekey_keeps_the_old_session_until_the_new_keys_are_used(self):
        guest = self.lab.pair("web1")
        session, _ = self.lab.beat("web1")
        old = self.lab.vm("web1")
        bundle = os.path.join(self.lab.folder, "second.bundle")
        self.lab.good("vm", "rekey", "web1", "--bundle-file", bundle)
        time.sleep(1.2)
        vm = self.lab.vm("web1")
        self.assertEqual((vm["sessions"], vm["guestFingerprint"]), (session, old["guestFingerprint"]))
        self.assertTrue(vm["enrolled"] and vm["offerPending"])
        self.assert_works("web1")
        joined = subprocess.run([PROGRAMS.agent, "--root", guest.root, "join", "--force", bundle], capture_output=True,
                                text=True)
        self.assertEqual(joined.returncode, 0, joined.stderr)
        labs.wait_until(lambda: self.lab.vm("web1")["guestFingerprint"] not in ("", old["guestFingerprint"]),
                        lambda: f"new keys are not in use: {self.lab.vm('web1')}\n{guest.program.said()[-2000:]}", 10)
        vm = self.lab.vm("web1")
        self.assertFalse(vm["offerPending"])
        self.assertNotEqual(vm["hostFingerprint"], old["hostFingerprint"])
        self.assert_works("web1")

    def test_a_rekeyed_guest_that_has_lost_everything_has_its_grants_again(self):
        guest = self.lab.pair("web1", grants="ping")
        guest.program.end()
        shutil.rmtree(os.path.join(guest.root, "var/lib/postern-agent"))
        guest.bundle = os.path.join(self.lab.folder, "second.bundle")
        rekeyed = self.lab.good("vm", "rekey", "web1", "--bundle-file", guest.bundle)
        self.assertIn('call = "ping"', rekeyed["guestPolicy"])
        guest.start()
        self.lab.green("web1", 20)
        self.lab.good("ping", "web1", "-c", "1")
        # Without a grant file there is nothing to pass on.
        os.unlink(self.lab.path("var/lib/postern/grants.d/web1.toml"))
        bundle = os.path.join(self.lab.folder, "third.bundle")
        self.assertEqual(self.lab.good("vm", "rekey", "web1", "--bundle-file", bundle)["guestPolicy"], "")

    # Bundles ---------------------------------------------------------------------------------------------------------

    def test_an_expired_bundle_enrols_nobody_and_a_new_one_does(self):
        guest = self.lab.enroll("web1", None, "ping", "--lifetime", "1s")
        time.sleep(2.1)
        guest.start()
        labs.wait_until(lambda: "refused" in self.lab.event_kinds("web1"), lambda: self.lab.events("web1"))
        self.assertFalse(self.lab.vm("web1")["enrolled"])
        result = self.lab.run("ping", "web1", "-c", "1")
        self.assertEqual(result.status, 4, repr(result))
        self.assertIn("rekey", result.err)
        labs.wait_until(lambda: not self.lab.vm("web1")["offerPending"], "the offer is over")
        bundle = os.path.join(self.lab.folder, "second.bundle")
        self.lab.good("vm", "rekey", "web1", "--bundle-file", bundle)
        subprocess.run([PROGRAMS.agent, "--root", guest.root, "join", "--force", bundle], check=True,
                       capture_output=True)
        self.lab.green("web1", 20)

    def test_a_token_that_a_second_key_holds_is_an_event_and_the_first_key_still_enrols(self):
        guest = self.lab.enroll("web1", None, "ping")
        hostile = self.hostile(guest)
        hostile.does("half-enrol")
        self.assertEqual(hostile.does("reuse-token"), 1)
        labs.wait_until(lambda: "token-reuse" in self.lab.event_kinds("web1"), lambda: self.lab.events("web1"))
        self.assertFalse(self.lab.vm("web1")["enrolled"])
        hostile.does("enrol")
        labs.wait_until(lambda: self.lab.vm("web1")["enrolled"], "the first key enrols")
        # Used: the token is nothing any more.
        self.assertEqual(hostile.does("reuse-token"), 1)

    def test_a_bundle_that_was_used_does_not_enrol_a_second_guest(self):
        first = self.lab.pair("web1")
        session, _ = self.lab.beat("web1")
        thief = labs.Guest(self.lab, "thief", first.connect, first.bundle).start()
        labs.wait_until(lambda: "refused" in self.lab.event_kinds("web1"), lambda: self.lab.events("web1"))
        time.sleep(0.5)
        self.assertEqual(self.lab.beat("web1")[0], session)
        self.assert_works("web1")
        thief.program.end()

    def test_a_bundle_for_another_vm_enrols_nobody_here(self):
        web1 = self.lab.enroll("web1", None, "ping")
        web2 = self.lab.enroll("web2", None, "ping")
        labs.Guest(self.lab, "mixed", web1.connect, web2.bundle).start()
        labs.wait_until(lambda: "refused" in self.lab.event_kinds("web1"), lambda: self.lab.events("web1"))
        self.assertFalse(self.lab.vm("web1")["enrolled"])
        self.assertFalse(self.lab.vm("web2")["enrolled"])

    def test_a_truncated_bundle_is_refused_by_the_agent_which_says_so(self):
        guest = self.lab.enroll("web1", None, "ping")
        with open(guest.bundle) as file:
            whole = file.read()
        broken = os.path.join(self.lab.folder, "broken.bundle")
        for size in (0, 1, len(whole) // 2, len(whole) - 5):
            with open(broken, "w") as file:
                file.write(whole[:size])
            joined = subprocess.run([PROGRAMS.agent, "--root", guest.root, "join", broken], capture_output=True,
                                    text=True)
            self.assertEqual(joined.returncode, 1, f"{size} bytes: {joined}")
            self.assertIn("bundle", joined.stderr)
        self.assertFalse(self.lab.vm("web1")["enrolled"])
        guest.start()
        self.assert_works("web1")

    def test_a_bundle_file_that_is_there_is_not_overwritten_and_then_no_vm_is_registered(self):
        path = os.path.join(self.lab.folder, "web1.bundle")
        with open(path, "w") as file:
            file.write("precious")
        result = self.lab.run("enroll", "web1", "--transport", "unix:" + os.path.join(self.lab.folder, "s"),
                              "--bundle-file", path)
        self.assertNotEqual(result.status, 0)
        self.assertIn("--force", result.err)
        with open(path) as file:
            self.assertEqual(file.read(), "precious")
        self.assertEqual(self.lab.good("vm", "list")["vms"], [])

    def test_a_vm_is_not_registered_twice_nor_with_a_transport_that_is_none(self):
        self.lab.enroll("web1", None, None)
        again = self.lab.run("enroll", "web1", "--transport", "unix:/tmp/x", "--bundle-file",
                             os.path.join(self.lab.folder, "again"))
        self.assertEqual(again.status, 2, repr(again))
        self.assertIn("rekey", again.err)
        for transport in ("carrier-pigeon:3", "unix:", "vsock:2", "unix:relative"):
            result = self.lab.run("enroll", "web9", "--transport", transport, "--bundle-file",
                                  os.path.join(self.lab.folder, "none"))
            self.assertEqual(result.status, 2, repr(result))
            self.assertEqual(len(result.err.strip().splitlines()), 1, repr(result))
        for name in ("", "-x", "../web", "a" * 65, "w b", "x\n"):
            result = self.lab.run("enroll", name, "--transport", "unix:/tmp/x")
            self.assertEqual(result.status, 2, repr(result))

    # Clones ----------------------------------------------------------------------------------------------------------

    def clone_of(self, guest, machine_id=None):
        clone = labs.Guest(self.lab, "clone", guest.connect, None)
        shutil.rmtree(clone.root)
        shutil.copytree(guest.root, clone.root)
        shutil.rmtree(os.path.join(clone.root, "run"), ignore_errors=True)
        if machine_id:
            clone.write("etc/machine-id", machine_id + "\n")
        return clone.start()

    def test_two_agents_with_one_identity_are_noticed_and_one_of_them_stays(self):
        guest = self.lab.pair("web1")
        self.lab.pair("web2")
        witness = labs.Witness(self.lab, "web2")
        clone = self.clone_of(guest)
        labs.wait_until(lambda: "duplicate-identity" in self.lab.event_kinds("web1"),
                        lambda: f"{self.lab.events('web1')}\n{clone.program.said()[-1500:]}", 40, 0.2)
        session, _ = self.lab.beat("web1")
        time.sleep(1.5)
        self.assert_works("web1")
        self.assertLessEqual(self.lab.beat("web1")[0], session + 1)
        witness.end(self)

    def test_a_disk_that_was_copied_to_another_machine_is_refused_by_its_own_agent(self):
        guest = self.lab.pair("web1")
        session, _ = self.lab.beat("web1")
        clone = self.clone_of(guest, "f" * 32)
        clone.program.wait_for("another machine")
        self.assertEqual(self.lab.beat("web1")[0], session)
        self.assert_works("web1")

    # Killed in the middle --------------------------------------------------------------------------------------------

    def test_an_enrolment_during_which_processes_are_killed_ends_with_a_working_pair(self):
        chance = random.Random(20)
        for round_ in range(20):
            name = f"vm{round_}"
            with self.subTest(round=round_):
                guest = self.lab.enroll(name, None, "ping")
                guest.start()
                time.sleep(chance.uniform(0, 0.25))
                victim = ["posternd", "session", "agent", "broker"][round_ % 4]
                self.kill(victim, name, guest)
                self.assert_works(name)
                self.assertTrue(self.lab.vm(name)["enrolled"])
                guest.program.end()

    def kill(self, victim, name, guest):
        if victim == "posternd":
            self.lab.posternd.kill()
            self.lab.start_posternd()
        elif victim == "session":
            self.lab.kill_pid(self.lab.session_pid(name))
        elif victim == "agent":
            self.lab.kill_pid(guest.agent_pid())
        else:
            guest.program.kill()
            guest.start()


if __name__ == "__main__":
    labs.main()
