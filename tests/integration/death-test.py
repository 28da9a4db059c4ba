"""Processes that die or hang: what heals, how soon, and that no other VM notices.

usage: death-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

POSTERN_TEST_FULL=1 adds the minute after which a session whose posternd stays away ends what was granted.
"""
import os
import signal
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
HEALS_WITHIN = 5
HUNG_IS_SEEN_WITHIN = 15


class DeathTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.lab.start_posternd()

    def two(self):
        """The VM to which it happens, and the one beside it."""
        guest = self.lab.pair("web1")
        self.lab.pair("web2")
        return guest, labs.Witness(self.lab, "web2")

    def heals(self, name, since, after_session):
        """A new session, a green VM and an answered ping, all within HEALS_WITHIN of `since`."""
        labs.wait_until(lambda: self.lab.vm(name)["sessionPid"] and self.lab.vm(name)["connected"]
                        and self.lab.run("ping", name, "-c", "1").status == 0,
                        lambda: f"{self.lab.vm(name)}\n{self.lab.posternd.said()[-2000:]}", HEALS_WITHIN + 1)
        took = time.monotonic() - since
        self.assertLess(took, HEALS_WITHIN)
        if after_session is not None:
            self.assertGreater(self.lab.vm(name)["sessions"], after_session)
        self.lab.green(name, 3)
        return took

    def test_a_killed_session_process_is_replaced_and_its_guest_comes_back(self):
        _, witness = self.two()
        for _ in range(3):
            pid = self.lab.session_pid("web1")
            began = time.monotonic()
            self.lab.kill_pid(pid)
            labs.wait_until(lambda: self.lab.vm("web1")["sessionPid"] not in (0, pid), "another process", HEALS_WITHIN)
            self.heals("web1", began, None)
            witness.look(self)
        self.assertIn("session-gone", self.lab.event_kinds("web1"))
        witness.end(self)

    def test_a_killed_agent_process_is_replaced_by_its_broker(self):
        guest, witness = self.two()
        session, _ = self.lab.beat("web1")
        pid = guest.agent_pid()
        began = time.monotonic()
        self.lab.kill_pid(pid)
        labs.wait_until(lambda: self.lab.vm("web1")["sessions"] > session, "a new session", HEALS_WITHIN)
        self.heals("web1", began, session)
        self.assertNotEqual(guest.agent_pid(), pid)
        witness.end(self)

    def test_a_killed_broker_takes_its_agent_along_and_comes_back_with_its_service(self):
        guest, witness = self.two()
        session, _ = self.lab.beat("web1")
        agent = guest.agent_pid()
        guest.program.kill()
        labs.wait_until(lambda: not labs.is_alive(agent), "the agent goes with its broker", HEALS_WITHIN)
        # What systemd does, by Restart=always.
        began = time.monotonic()
        guest.bundle = None
        guest.start()
        self.heals("web1", began, session)
        witness.end(self)

    def test_a_stopped_agent_is_gray_with_a_reason_and_a_killed_one_red(self):
        guest, witness = self.two()
        guest.program.end(signal.SIGTERM)
        self.lab.wait_colour("web1", "gray")
        self.assertIn("goodbye", self.lab.event_kinds("web1"))
        guest.start()
        self.lab.green("web1")
        guest.program.kill()
        self.lab.wait_colour("web1", "red")
        result = self.lab.run("ping", "web1", "-c", "1")
        self.assertEqual(result.status, 4, repr(result))
        self.assertIn("is postern-agent running", result.err)
        witness.end(self)

    # posternd --------------------------------------------------------------------------------------------------------

    def test_a_killed_posternd_costs_no_link_and_a_new_one_attaches_again(self):
        guest, witness = self.two()
        pids = {name: self.lab.session_pid(name) for name in ("web1", "web2")}
        sessions = {name: self.lab.beat(name)[0] for name in pids}
        for _ in range(2):
            self.lab.posternd.kill()
            before = self.lab.sequence("web1")
            time.sleep(2.5)
            for pid in pids.values():
                self.assertTrue(labs.is_alive(pid))
            began = time.monotonic()
            self.lab.start_posternd()
            self.heals("web1", began, None)
            self.lab.green("web2", 3)
            # Links and heartbeats went on without it.
            labs.wait_until(lambda: self.lab.sequence("web1") >= before + 2, "heartbeats that went on", 2)
            for name in pids:
                vm = self.lab.vm(name)
                self.assertEqual((vm["sessionPid"], vm["sessions"]), (pids[name], sessions[name]), name)
                self.assertNotIn("lost", self.lab.event_kinds(name))
        self.assertNotIn("disconnected", guest.program.said())
        self.lab.verify_audit()

    def test_a_caller_in_the_middle_keeps_its_socket_while_posternd_is_away(self):
        self.lab.pair("web1")
        with subprocess.Popen(self.lab.command("ping", "web1", "-i", "0.1", "-c", "0"), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as ping:
            try:
                self.assertIn("ping 1", ping.stdout.readline())
                self.lab.posternd.kill()
                for _ in range(15):
                    self.assertIn("web1: ping", ping.stdout.readline())
                if os.environ.get("POSTERN_TEST_FULL"):
                    began = time.monotonic()
                    self.assertNotEqual(ping.wait(75), 0)
                    self.assertGreater(time.monotonic() - began, 50)
                    self.lab.start_posternd()
                    self.lab.green("web1")
            finally:
                ping.kill()
                ping.communicate()

    def test_sigterm_keeps_the_sessions_and_sigint_ends_them(self):
        self.lab.pair("web1")
        pid = self.lab.session_pid("web1")
        session, _ = self.lab.beat("web1")
        self.assertEqual(self.lab.posternd.end(signal.SIGTERM), 0)
        self.assertFalse(os.path.exists(self.lab.control_socket))
        self.assertTrue(labs.is_alive(pid))
        self.lab.start_posternd()
        self.lab.green("web1")
        self.assertEqual((self.lab.session_pid("web1"), self.lab.beat("web1")[0]), (pid, session))
        self.assertEqual(self.lab.posternd.end(signal.SIGINT), 0)
        self.lab.reap()
        self.assertFalse(labs.is_alive(pid))
        agents = {program.pid for program in self.lab.started}
        agents |= {below for program in agents for below in labs.descendants_of(program)}
        self.assertEqual([other for other in labs.descendants_of(os.getpid()) if other not in agents], [])

    def test_the_board_says_that_posternd_is_gone(self):
        self.lab.pair("web1")
        self.lab.posternd.kill()
        labs.wait_until(lambda: self.lab.run("status", "web1").status == 1, "a board that is known to be stale", 6)
        self.assertIn("posternd is not running", self.lab.run("status", "web1").err)
        # The board's last word is green; to a monitor that is no verdict.
        check = self.lab.run("status", "web1", "--check")
        self.assertEqual((check.status, check.out), (4, ""), repr(check))
        self.assertIn("posternd is not running", check.err)
        result = self.lab.run("--json", "ping", "web1")
        self.assertEqual((result.status, result.json()["ok"]), (1, False))

    # The control socket ------------------------------------------------------------------------------------------------

    def test_a_dead_posternds_socket_is_taken_over(self):
        self.lab.posternd.kill()
        self.assertTrue(os.path.exists(self.lab.control_socket))
        self.lab.start_posternd()
        self.lab.good("vm", "list")

    def test_a_living_posternds_socket_is_left_alone(self):
        self.lab.enroll("web1", None, None)
        second = self.lab.start("second", [PROGRAMS.posternd, "--root", self.lab.root])
        self.assertEqual(second.process.wait(labs.PATIENCE), 1)
        self.assertIn("another posternd is running", second.said())
        self.assertEqual(len(second.said().strip().splitlines()), 1, second.said())
        self.assertEqual([vm["vm"] for vm in self.lab.good("vm", "list")["vms"]], ["web1"])

    def test_a_socket_path_that_is_no_socket_or_too_long_is_an_error_of_one_line(self):
        self.lab.posternd.end()
        long_root = os.path.join(self.lab.folder, "l" * 100)
        os.makedirs(long_root)
        program = self.lab.start("long", [PROGRAMS.posternd, "--root", long_root])
        self.assertEqual(program.process.wait(labs.PATIENCE), 1)
        self.assertIn("too long", program.said())
        self.assertEqual(len(program.said().strip().splitlines()), 1, program.said())

    # Hung --------------------------------------------------------------------------------------------------------------

    def test_a_hung_session_process_costs_its_vm_only_and_is_replaced(self):
        _, witness = self.two()
        pid = self.lab.session_pid("web1")
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        self.lab.wait_colour("web1", "red", 8)
        witness.look(self)
        result = self.lab.run("ping", "web1", "-c", "1", "--timeout", "2", seconds=20)
        self.assertEqual(result.status, 5, repr(result))
        labs.wait_until(lambda: self.lab.vm("web1")["sessionPid"] not in (0, pid), "another process", HUNG_IS_SEEN_WITHIN)
        self.lab.green("web1", HEALS_WITHIN)
        print(f"a hung session process was replaced and its VM green after {time.monotonic() - began:.1f} s")
        self.lab.reap()
        self.assertFalse(labs.is_alive(pid))
        self.assertTrue([event for event in self.lab.events("web1")
                         if event["kind"] == "session-gone" and "hung" in event["text"]], self.lab.events("web1"))
        self.lab.good("ping", "web1", "-c", "1")
        witness.end(self)

    def test_a_hung_session_process_without_a_guest_is_replaced(self):
        self.lab.enroll("web1")
        pid = self.lab.session_pid("web1")
        os.kill(pid, signal.SIGSTOP)
        labs.wait_until(lambda: self.lab.vm("web1")["sessionPid"] not in (0, pid), "another process", HUNG_IS_SEEN_WITHIN)

    def test_idle_sessions_are_not_replaced_nor_any_after_posternd_itself_stood_still(self):
        guest = self.lab.pair("gone")
        guest.program.end(signal.SIGTERM)
        self.lab.wait_colour("gone", "gray")
        self.lab.enroll("never", None, None)
        # Its heartbeats are further apart than the silence after which a process is asked.
        slow = self.lab.enroll("slow")
        slow.write("etc/postern/agent.toml", "policy = 1\n[agent]\nheartbeat = 30000\n")
        slow.start()
        self.lab.pair("quick")
        names = ("gone", "never", "slow", "quick")
        labs.wait_until(lambda: self.lab.vm("slow")["connected"], "the slow one's session")
        pids = {name: self.lab.session_pid(name) for name in names}
        time.sleep(HUNG_IS_SEEN_WITHIN + 3)
        # Whenever it is stopped, in the middle of a question perhaps.
        for seconds in (6, 11):
            os.kill(self.lab.posternd.pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(self.lab.posternd.pid, signal.SIGCONT)
            time.sleep(2.6)
        self.assertEqual({name: self.lab.session_pid(name) for name in names}, pids)
        for name in names:
            self.assertNotIn("session-gone", self.lab.event_kinds(name))

    def test_what_a_session_answered_while_posternd_stood_still_counts(self):
        self.lab.pair("web1")
        pid = self.lab.session_pid("web1")

        def answered_meanwhile(posternd):
            """posternd has asked; it stands still, and the session answers."""
            time.sleep(0.5)
            os.kill(posternd, signal.SIGSTOP)
            os.kill(pid, signal.SIGCONT)
            time.sleep(5.5)
            os.kill(posternd, signal.SIGCONT)

        os.kill(pid, signal.SIGSTOP)
        ping = subprocess.Popen(self.lab.command("ping", "web1", "-c", "1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        answered_meanwhile(self.lab.posternd.pid)
        self.assertIn(b"web1", ping.communicate(timeout=20)[0])
        self.assertEqual(ping.returncode, 0)
        self.lab.posternd.end(signal.SIGTERM)
        os.kill(pid, signal.SIGSTOP)
        answered_meanwhile(self.lab.start_posternd().pid)
        self.lab.green("web1")
        self.assertEqual(self.lab.session_pid("web1"), pid)
        self.assertNotIn("session-gone", self.lab.event_kinds("web1"))

    def test_a_hung_session_process_is_replaced_by_the_next_posternd(self):
        _, witness = self.two()
        pid = self.lab.session_pid("web1")
        os.kill(pid, signal.SIGSTOP)
        self.lab.posternd.end(signal.SIGTERM)
        self.lab.start_posternd()
        labs.wait_until(lambda: self.lab.vm("web1")["sessionPid"] not in (0, pid), "another process", 15)
        self.lab.reap()
        self.assertFalse(labs.is_alive(pid))
        self.lab.green("web1", 15)
        self.assertEqual(self.lab.vm("web2")["sessionPid"], witness.pid)
        self.assertEqual(self.lab.vm("web2")["sessions"], witness.session)

    def test_a_hung_session_process_does_not_keep_a_vm_from_being_removed(self):
        self.lab.pair("web1")
        pid = self.lab.session_pid("web1")
        os.kill(pid, signal.SIGSTOP)
        self.lab.good("vm", "remove", "web1")
        self.lab.reap()
        self.assertFalse(labs.is_alive(pid))

    def test_a_session_program_that_cannot_be_started_is_told_and_mended_without_a_restart(self):
        self.lab.posternd.end(signal.SIGINT)
        program = os.path.join(self.lab.folder, "session")
        self.lab.write("etc/postern/postern.toml", f'session-program = "{program}"\n')
        self.lab.start_posternd()
        result = self.lab.run("enroll", "web1", "--transport", "unix:" + os.path.join(self.lab.folder, "web1.sock"),
                              "--bundle-file", os.path.join(self.lab.folder, "b"))
        self.assertEqual(result.status, 4, repr(result))
        self.assertIn("session process", result.err)
        self.lab.posternd.wait_for("session-start-failed")
        time.sleep(5)  # in which it is tried five times
        self.assertEqual(self.lab.posternd.said().count("session-start-failed"), 1, self.lab.posternd.said())
        os.symlink(os.path.join(os.path.dirname(PROGRAMS.posternd), "postern-session"), program)
        labs.wait_until(lambda: self.lab.vm("web1")["sessionPid"], "a session process", HEALS_WITHIN)

    def test_a_garbage_pid_file_or_somebody_elses_pid_in_it_harms_nobody(self):
        self.lab.pair("web1")
        victim = self.lab.start("victim", ["sleep", "60"])
        pid_file = self.lab.path("run/postern/sessions/web1.pid")
        for content in (str(victim.pid), "-1", "garbage", "99999999999999999999"):
            self.lab.posternd.kill()
            with open(pid_file, "w") as file:
                file.write(content)
            self.lab.start_posternd()
            self.lab.green("web1", 8)
        self.assertIsNone(victim.process.poll())


if __name__ == "__main__":
    labs.main()
