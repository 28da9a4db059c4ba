"""The real postern-agent heals, takes its settings, keeps its state, and needs little.

usage: agent-test.py AGENT HOST-END [unittest arguments]
"""
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import unittest

from agents import AGENT, AgentCase, PATIENCE


class AgentTest(AgentCase):
    # Healing --------------------------------------------------------------------------------------------------------

    def test_a_killed_agent_is_started_again_within_five_seconds(self):
        host, agent = self.enrolled_pair()
        for session in (2, 3, 4):
            began = time.monotonic()
            os.kill(self.agent_pid(agent), signal.SIGKILL)
            agent.err.wait_for("agent-died.*signal 9")
            host.out.wait_for(f"^session {session}", 5)
            self.assertLess(time.monotonic() - began, 5)

    def test_a_killed_broker_takes_the_agent_along_and_a_new_one_heals(self):
        host, agent = self.enrolled_pair()
        child = self.agent_pid(agent)
        agent.end(signal.SIGKILL)
        self.wait_gone(child, 2)
        self.start_agent()
        host.out.wait_for("^session 2", 5)

    def test_a_cut_link_and_a_restarted_host_heal(self):
        host, agent = self.enrolled_pair()
        host.say("drop")
        host.out.wait_for("^session 2", 5)
        # Away for a while, and back with the same keys: nobody at the socket is not an error of keys.
        agent.process.send_signal(signal.SIGSTOP)
        host.say("drop")
        host.out.wait_for("^did drop")
        agent.process.send_signal(signal.SIGCONT)
        host.out.wait_for("^session 3", 5)

    def test_a_host_that_does_not_answer_heartbeats_is_left_and_found_again(self):
        host, agent = self.enrolled_pair()
        host.say("mute")
        agent.err.wait_for('"event":"disconnected".*heartbeat', 10)
        host.say("answer")
        host.out.wait_for("^session 2", 10)

    def test_a_host_that_refuses_is_asked_less_and_less_and_told_once(self):
        host, agent = self.enrolled_pair()
        host.say("refuse")
        host.out.wait_for("^did refuse")
        host.say("drop")
        agent.err.wait_for("session-refused")
        time.sleep(3)
        refusals = host.out.all.count("refused")
        self.assertGreaterEqual(refusals, 2)
        self.assertLess(refusals, 10)
        self.assertEqual(sum("session-refused" in line for line in agent.err.all), 1)
        host.say("accept")
        host.out.wait_for("^session 2", 10)

    def test_the_host_sets_the_interval(self):
        host, agent = self.enrolled_pair()
        host.say("interval 200")
        agent.err.wait_for("heartbeat-interval.*200 ms")
        before = sum(line.startswith("heartbeat") for line in host.out.all)
        time.sleep(2)
        after = sum(line.startswith("heartbeat") for line in host.out.all)
        self.assertGreaterEqual(after - before, 6)
        self.assertLessEqual(after - before, 14)

    # Configuration --------------------------------------------------------------------------------------------------

    def test_reload_takes_a_good_file_and_keeps_the_old_one_on_errors(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[[allow]]\nid = "p"\ncall = ["ping"]\n')
        host, agent = self.enrolled_pair()
        host.say("ping alice")
        host.out.wait_for("^ping ok")
        for text, complaint in (('policy = 1\n[agent]\nconect = "auto"\n', r"agent\.toml:3: .*conect.*did you mean 'connect'"),
                                ('policy = 1\n[[allow]]\nid = "p"\ncall = ["pin"]\n', r"agent\.toml:\d+: .*pin"),
                                ("policy = \n", r"agent\.toml:1: ")):
            self.write("etc/postern/agent.toml", text)
            agent.process.send_signal(signal.SIGHUP)
            self.assertRegex(agent.err.wait_for("reload-refused"), complaint)
            host.say("ping alice")
            host.out.wait_for("^ping ok")
        self.write("etc/postern/agent.toml", "policy = 1\n")
        agent.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 5
        while True:
            host.say("ping alice")
            if "denied" in host.out.wait_for("^ping (ok|denied)"):
                break
            self.assertLess(time.monotonic(), end, "the reload was not taken")
        self.assertNotIn("session 2", host.out.all, "a reload cuts no link")

    def test_does_not_start_with_a_bad_file(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\nheartbeat = 5\n')
        agent = self.start_agent()
        self.assertRegex(agent.err.wait_for("configuration-refused"), r"agent\.toml:3: .*200 to 60000")
        self.assertEqual(agent.process.wait(PATIENCE), 1)

    def test_check_config_says_what_is_wrong(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\npower = "off"\n')
        command = [AGENT, "--root", self.root, "--check-config"]
        bad = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(bad.returncode, 1)
        self.assertRegex(bad.stderr, r"agent\.toml:3: ")
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\npower = "auto"\n')
        good = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((good.returncode, good.stderr), (0, ""))

    def test_a_missing_user_is_named(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\nuser = "no-such-user"\n')
        agent = self.start_agent()
        agent.err.wait_for("there is no user 'no-such-user'")
        self.assertEqual(agent.process.wait(PATIENCE), 1)

    def test_wrong_options_are_usage_errors(self):
        for arguments in (["--nonsense"], ["--connect", "telnet:x"], ["--root", "relative"], ["--connect", "hybrid:/x:1"]):
            done = subprocess.run([AGENT, *arguments], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertTrue(done.stderr, arguments)

    # The machine ----------------------------------------------------------------------------------------------------

    def test_a_second_agent_on_one_root_is_refused(self):
        host, agent = self.enrolled_pair()
        second = self.start_agent()
        self.assertIn(str(agent.process.pid), second.err.wait_for("already-running"))
        self.assertEqual(second.process.wait(PATIENCE), 1)
        host.out.wait_for("^heartbeat")

    def test_a_lock_left_by_a_dead_agent_is_taken_over(self):
        host, agent = self.enrolled_pair()
        agent.end(signal.SIGKILL)
        self.start_agent()
        host.out.wait_for("^session 2", 5)

    def test_an_identity_that_was_copied_to_another_machine_is_not_used(self):
        host, agent = self.enrolled_pair()
        agent.end()
        self.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n")
        agent = self.start_agent()
        self.assertRegex(agent.err.wait_for("identity-unusable"), "another machine.*join --force")
        time.sleep(1)
        self.assertNotIn("session 2", host.out.all)
        self.assertIsNone(agent.process.poll(), "it stays, and waits for a person")
        bundle = self.offer(host)
        self.assertEqual(self.join(bundle, "--force").returncode, 0)
        host.out.wait_for("^enrolled")

    def spoiled(self, spoil, complaint):
        host, agent = self.enrolled_pair()
        agent.end()
        spoil(self.path("var/lib/postern-agent/state"))
        agent = self.start_agent()
        line = agent.err.wait_for("identity-unusable")
        self.assertRegex(line, "var/lib/postern-agent/state: .*" + complaint)
        time.sleep(0.5)
        self.assertNotIn("session 2", host.out.all)
        self.assertEqual(agent.end(), 0)

    def test_a_damaged_state_file_is_told(self):
        def spoil(path):
            with open(path, "r+b") as file:
                file.write(b"x" * 8192)
        self.spoiled(spoil, "damaged.*enrol again")

    def test_a_state_file_that_others_can_read_is_told(self):
        self.spoiled(lambda path: os.chmod(path, 0o640), "chmod 600")

    def test_a_state_file_that_is_a_link_is_told(self):
        def spoil(path):
            os.rename(path, path + ".real")
            os.symlink(path + ".real", path)
        self.spoiled(spoil, "symbolic link")

    def test_a_full_disk_is_told_and_heals(self):
        # A file size limit is how one process's disk is full.
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host))
        agent = self.start_agent(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)))
        self.assertIn("disk full", agent.err.wait_for("identity-unusable|state-file"))
        agent.end()
        self.start_agent()
        host.out.wait_for("^enrolled")

    # The sandbox and what it costs ----------------------------------------------------------------------------------

    def test_the_agent_has_no_rights_and_stays_small(self):
        host, agent = self.enrolled_pair()
        host.out.wait_for("^heartbeat 3")
        with open(f"/proc/{self.agent_pid(agent)}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            if os.geteuid() == 0 or name != "CapBnd":
                self.assertEqual(int(status[name], 16), 0, name)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Seccomp"], "2")
        resident = int(status["VmRSS"].split()[0])
        print(f"agent: {resident} KiB resident, {status['RssAnon'].strip()} of its own")
        self.assertLess(resident, 8192)

    def test_an_idle_agent_wakes_for_its_heartbeats_alone(self):
        host, agent = self.enrolled_pair()
        pid = self.agent_pid(agent)

        def switches():
            with open(f"/proc/{pid}/status") as file:
                return int(re.search(r"^voluntary_ctxt_switches:\t(\d+)", file.read(), re.M).group(1))
        host.out.wait_for("^heartbeat 3")
        before = switches()
        for number in range(4, 10):
            host.out.wait_for(f"^heartbeat {number}")
        each = (switches() - before) / 6
        print(f"agent: {each:.1f} wake-ups a heartbeat")
        # The timer, the answer, and what a Unix socket tells of the peer having read.
        self.assertLessEqual(each, 5)

    def test_tells_systemd_and_pulses_only_while_the_agent_lives(self):
        address = os.path.join(self.folder, "notify")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notify.close)
        notify.bind(address)
        notify.settimeout(PATIENCE)

        def wait_for(text):
            while text not in notify.recv(4096).decode().split("\n"):
                pass
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host))
        agent = self.start_agent(env={**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"})
        wait_for("READY=1")
        wait_for("WATCHDOG=1")
        wait_for("WATCHDOG=1")
        agent.process.send_signal(signal.SIGHUP)
        wait_for("RELOADING=1")
        wait_for("READY=1")
        wait_for("WATCHDOG=1")
        pid = self.agent_pid(agent)
        os.kill(pid, signal.SIGSTOP)
        notify.settimeout(1)
        with self.assertRaises(TimeoutError, msg="pulses although the agent hangs"):
            for _ in range(10):
                notify.recv(4096)
        notify.settimeout(PATIENCE)
        os.kill(pid, signal.SIGCONT)
        wait_for("WATCHDOG=1")
        self.assertEqual(agent.end(), 0)
        wait_for("STOPPING=1")

    def test_help_and_version(self):
        for option, text in (("--help", "--connect"), ("--version", "postern-agent ")):
            done = subprocess.run([AGENT, option], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0)
            self.assertIn(text, done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
