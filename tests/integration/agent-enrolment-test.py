"""How the real postern-agent enrols: bundles, wherever they lie, joining, and what becomes of them.

usage: agent-enrolment-test.py AGENT HOST-END [unittest arguments]
"""
import json
import os
import signal
import sys
import unittest

from agents import AgentCase


class AgentEnrolmentTest(AgentCase):
    def test_enrols_with_a_bundle_heartbeats_and_says_goodbye(self):
        host, agent = self.enrolled_pair()
        host.out.wait_for("^heartbeat 2")
        self.assertFalse(os.path.exists(self.path("etc/postern/bundle")), "a used bundle is removed")
        self.assertEqual(os.stat(self.path("var/lib/postern-agent/state")).st_mode & 0o777, 0o600)
        self.assertEqual(agent.end(), 0)
        host.out.wait_for("^goodbye 0")
        host.out.wait_for("^session over: closed by the peer .goodbye")

    def test_comes_back_with_its_keys_and_no_bundle(self):
        host, agent = self.enrolled_pair()
        self.assertEqual(agent.end(), 0)
        self.start_agent()
        host.out.wait_for("^session 2")
        self.assertNotIn("enrolled", host.out.all[host.out.all.index("session 1"):])

    def test_every_line_of_its_log_is_json_with_an_event(self):
        _, agent = self.enrolled_pair()
        self.assertEqual(agent.end(), 0)
        for line in agent.err.all:
            entry = json.loads(line)
            self.assertRegex(entry["event"], "^[a-z-]+$")
            self.assertIn(entry["process"], ("broker", "agent"))

    def test_a_bundle_option_is_used_and_left(self):
        host = self.start_host()
        bundle = os.path.join(self.folder, "mine")
        with open(bundle, "w") as file:
            file.write(self.offer(host))
        self.start_agent("--bundle-file", bundle)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^heartbeat 1")
        self.assertTrue(os.path.exists(bundle))

    def test_a_systemd_credential_is_a_bundle(self):
        host = self.start_host()
        credentials = os.path.join(self.folder, "credentials")
        os.mkdir(credentials)
        with open(os.path.join(credentials, "postern.bundle"), "w") as file:
            file.write(self.offer(host))
        self.start_agent(env={**os.environ, "CREDENTIALS_DIRECTORY": credentials})
        host.out.wait_for("^enrolled")

    def test_a_truncated_bundle_is_told_and_the_agent_waits_for_another(self):
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host)[:-5])
        agent = self.start_agent()
        self.assertIn("etc/postern/bundle", agent.err.wait_for("bundle-unusable"))
        agent.err.wait_for("no-bundle")
        self.write("etc/postern/bundle", self.offer(host))
        agent.process.send_signal(signal.SIGHUP)
        host.out.wait_for("^enrolled")

    def test_a_bundle_that_the_host_does_not_know_is_refused_and_a_good_one_helps(self):
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host))
        good = self.offer(host)  # replaces the first offer
        agent = self.start_agent()
        agent.err.wait_for("enrolment-refused")
        self.write("etc/postern/bundle", good)
        agent.process.send_signal(signal.SIGHUP)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^heartbeat")

    def test_grants_of_the_bundle_become_the_policy(self):
        host = self.start_host()
        grants = os.path.join(self.folder, "grants")
        with open(grants, "w") as file:
            file.write('policy = 1\n[[allow]]\nid = "grant"\ncall = ["ping"]\n')
        self.write("etc/postern/bundle", self.offer(host, grants))
        agent = self.start_agent()
        agent.err.wait_for("grants-adopted")
        host.say("ping alice")
        host.out.wait_for("^ping ok")
        self.assertTrue(os.path.exists(self.path("var/lib/postern-agent/grants.toml")))
        self.assertEqual(agent.end(), 0)
        self.start_agent()
        host.out.wait_for("^session 2")
        host.say("ping alice")
        host.out.wait_for("^ping ok")

    def test_grants_do_not_replace_an_administrators_policy(self):
        host = self.start_host()
        grants = os.path.join(self.folder, "grants")
        with open(grants, "w") as file:
            file.write('policy = 1\n[[allow]]\nid = "grant"\ncall = ["ping"]\n')
        self.write("etc/postern/agent.toml", "policy = 1\n")
        self.write("etc/postern/bundle", self.offer(host, grants))
        agent = self.start_agent()
        self.assertIn("not adopted", agent.err.wait_for("bundle-settled.*grants"))
        host.out.wait_for("^session 1")
        host.say("ping alice")
        host.out.wait_for("^ping denied")

    def test_a_new_bundle_rekeys_and_a_refused_one_leaves_the_old_identity(self):
        host, agent = self.enrolled_pair()
        stale = self.offer(host)
        fresh = self.offer(host)
        self.write("etc/postern/bundle", stale)
        agent.process.send_signal(signal.SIGHUP)
        agent.err.wait_for("enrolment-refused")
        host.out.wait_for("^session 2")
        self.write("etc/postern/bundle", fresh)
        agent.process.send_signal(signal.SIGHUP)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^heartbeat")

    # join -----------------------------------------------------------------------------------------------------------

    def test_join_gives_a_bundle_to_a_running_agent(self):
        host = self.start_host()
        agent = self.start_agent()
        agent.err.wait_for("no-bundle")
        done = self.join(self.offer(host))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("enrols now", done.stdout)
        host.out.wait_for("^enrolled")

    def test_join_waits_for_an_agent_that_is_not_there_yet(self):
        host = self.start_host()
        done = self.join(self.offer(host))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.stat(self.path("etc/postern/bundle")).st_mode & 0o777, 0o600)
        self.start_agent()
        host.out.wait_for("^enrolled")

    def test_join_refuses_what_is_no_bundle_and_an_enrolled_guest(self):
        host, agent = self.enrolled_pair()
        refused = self.join("postern-bundle-1:xyz")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("the bundle", refused.stderr)
        bundle = self.offer(host)
        refused = self.join(bundle)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("enrolled already", refused.stderr)
        self.assertIn("--force", refused.stderr)
        self.assertEqual(self.join(bundle, "--force").returncode, 0)
        host.out.wait_for("^enrolled")

    def test_join_with_force_enrols_as_another_vm(self):
        _, agent = self.enrolled_pair()
        agent.end()
        other = self.start_host()  # another VM's
        bundle = self.offer(other)
        agent = self.start_agent()
        agent.err.wait_for("session-refused")
        self.write("etc/postern/bundle", bundle)
        agent.process.send_signal(signal.SIGHUP)
        self.assertIn("is not taken", agent.err.wait_for("bundle-ignored"))
        os.unlink(self.path("etc/postern/bundle"))
        done = self.join(bundle, "--force")
        self.assertEqual(done.returncode, 0, done.stderr)
        other.out.wait_for("^enrolled")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
