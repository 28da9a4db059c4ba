"""Both locks: who may ask what, what a denial says, what a reload does; and every exit status of the command line.

usage: policy-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

What needs a second user runs only as root.
"""
import grp
import json
import os
import resource
import pwd
import signal
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY = pwd.getpwnam("nobody")
GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name


class PolicyTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)

    def start(self):
        # Whoever is in the group may use the control socket. What they may ask is policy's.
        if IS_ROOT:
            self.lab.write("etc/postern/postern.toml", f'group = "{GROUP}"\n')
        self.lab.start_posternd()

    def policy(self, text, name="10-test.toml"):
        return self.lab.write("etc/postern/policy.d/" + name, "policy = 1\n" + text)

    def reload(self):
        return self.lab.good("policy", "reload")

    def stranger(self, *arguments, **options):
        return self.lab.run(*arguments, user=NOBODY.pw_uid, groups=[NOBODY.pw_gid], **options)

    def pair_with_own_grants(self, name="web1"):
        """A VM with rules in the guest for everything, and none on the host."""
        guest = self.lab.enroll(name, None, None)
        guest.write("etc/postern/agent.toml", 'policy = 1\n[[allow]]\nid = "all"\ncall = ["ping", "info.*", "power.*"]\n')
        guest.start()
        self.lab.green(name)
        return guest

    # Denials ---------------------------------------------------------------------------------------------------------

    def test_nothing_is_allowed_after_an_installation_and_a_denial_says_what_would_allow_it(self):
        self.start()
        self.pair_with_own_grants()
        for command, call in ((["ping", "web1", "-c", "1"], "ping"), (["info", "web1"], "info.os"),
                              (["shutdown", "web1"], "power.shutdown")):
            result = self.lab.run("--json", *command)
            self.assertEqual(result.status, 3, repr(result))
            found = result.json()
            error = found.get("error") or found["vms"][0]["error"]
            self.assertEqual((error["kind"], error["rule"], error["lock"]), ("denied", "", "host"))
            self.assertIn("[[allow]]", error["suggestion"])
            self.assertIn(call.split(".")[0], error["suggestion"])
        # What it suggests allows it, word for word.
        self.policy(self.lab.run("--json", "ping", "web1").json()["error"]["suggestion"])
        self.reload()
        self.assertEqual(self.lab.good("ping", "web1", "-c", "1")["count"], 1)
        self.assertEqual(self.lab.run("info", "web1").status, 3)

    def test_a_denying_rule_is_named_and_beats_every_allowing_one(self):
        self.start()
        self.pair_with_own_grants()
        self.policy(f'[[allow]]\nid = "yes"\nfrom = "user:{ME}"\nto = "any"\ncall = ["ping"]\n'
                    '[[deny]]\nid = "no-way"\nfrom = "host"\nto = "web1"\ncall = ["ping"]\n')
        self.reload()
        result = self.lab.run("ping", "web1", "-c", "1")
        self.assertEqual(result.status, 3, repr(result))
        self.assertIn("no-way", result.err)
        self.assertIn("host's policy", result.err)

    def test_the_guests_lock_denies_what_the_hosts_allows_and_is_named(self):
        self.start()
        guest = self.lab.enroll("web1", None, "ping,info,power")
        guest.write("etc/postern/agent.toml", 'policy = 1\n[[allow]]\nid = "i"\ncall = ["info.os"]\n')
        guest.start()
        self.lab.green("web1")
        result = self.lab.run("--json", "ping", "web1", "-c", "1")
        self.assertEqual(result.status, 3, repr(result))
        error = result.json()["error"]
        self.assertEqual((error["kind"], error["lock"]), ("denied", "guest"))
        text = self.lab.run("shutdown", "web1")
        self.assertEqual(text.status, 3, repr(text))
        self.assertIn("guest", text.err)
        # The administrator's own file was not touched by the bundle's grants.
        self.assertFalse(os.path.exists(os.path.join(guest.root, "var/lib/postern-agent/grants.toml")))
        info = self.lab.good("info", "web1")
        self.assertNotIn("error", info)
        # What it suggests allows it, once it is in the guest's file.
        with open(os.path.join(guest.root, "etc/postern/agent.toml"), "a") as file:
            file.write(error["suggestion"])
        guest.program.send(signal.SIGHUP)
        labs.wait_until(lambda: self.lab.run("ping", "web1", "-c", "1").status == 0, "the guest's new rule")

    def test_explain_says_what_ping_does(self):
        self.start()
        self.lab.pair("web1")
        allowed = self.lab.run("policy", "explain", "--to", "web1", "--call", "ping")
        self.assertEqual(allowed.status, 0, repr(allowed))
        self.assertIn("allow", allowed.out)
        denied = self.lab.run("policy", "explain", "--to", "web1", "--call", "file.get", "--path", "/etc/passwd")
        self.assertIn("den", denied.out)

    # Other users -----------------------------------------------------------------------------------------------------

    @unittest.skipUnless(IS_ROOT, "needs a second user")
    def test_a_vm_of_which_a_caller_may_know_nothing_is_unknown_to_it(self):
        self.start()
        self.lab.pair("web1")
        self.lab.pair("web2")
        self.policy(f'[[allow]]\nid = "look"\nfrom = "user:nobody"\nto = "web2"\ncall = ["status.read"]\n')
        self.reload()
        for command in (["ping", "web1"], ["info", "web1"], ["shutdown", "web1"], ["vm", "show", "web1"]):
            hidden = self.stranger(*command)
            absent = self.stranger(*[word.replace("web1", "web7") for word in command])
            self.assertEqual(hidden.status, 2, repr(hidden))
            self.assertEqual(hidden.err, absent.err.replace("web7", "web1"))
        self.assertEqual([vm["vm"] for vm in self.stranger("--json", "vm", "list").json()["vms"]], ["web2"])
        # One that it may see and not use is denied, not unknown.
        self.assertEqual(self.stranger("ping", "web2").status, 3)
        self.assertNotIn("web1", self.stranger("--json", "events", "-n", "1000").out)

    @unittest.skipUnless(IS_ROOT, "needs a second user")
    def test_a_user_without_rights_administers_nothing(self):
        self.start()
        self.lab.pair("web1")
        for command in (["enroll", "web9", "--transport", "unix:/tmp/postern-none", "--bundle-file", "/dev/shm/none.b"],
                        ["vm", "remove", "web1"], ["policy", "reload"], ["audit", "tail"],
                        ["policy", "explain", "--from", "user:root", "--to", "web1", "--call", "ping"]):
            result = self.stranger(*command)
            self.assertEqual(result.status, 3, repr(result))
        self.assertFalse(os.path.exists("/dev/shm/none.b"))
        self.assertEqual([vm["vm"] for vm in self.lab.good("vm", "list")["vms"]], ["web1"])
        denied = [line for line in self.lab.run("audit", "tail", "-n", "100").out.splitlines() if "user:nobody" in line]
        self.assertGreaterEqual(len(denied), 4)

    @unittest.skipUnless(IS_ROOT, "needs a second user")
    def test_a_user_outside_the_group_is_told_which_group_it_is(self):
        self.lab.start_posternd()
        result = self.lab.run("vm", "list", user=NOBODY.pw_uid)
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("group", result.err)

    @unittest.skipUnless(IS_ROOT, "needs a second user")
    def test_grants_to_another_user_are_that_users_alone(self):
        self.start()
        guest = self.lab.enroll("web1", None, "ping", "--to", "user:nobody")
        guest.start()
        self.lab.green("web1")
        result = self.stranger("--json", "ping", "web1", "-c", "1")
        self.assertEqual(result.status, 0, repr(result))
        self.assertEqual(self.stranger("info", "web1").status, 3)
        self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 3)

    # Reload ----------------------------------------------------------------------------------------------------------

    def test_a_reload_with_an_error_keeps_the_old_policy_and_names_file_and_line(self):
        self.start()
        self.lab.pair("web1")
        for broken in ('[[allow]]\nid = "x"\nfrom = "host"\nto = "web1"\ncall = ["png"]\n', "nonsense", "[[allow]\n",
                       'frm = "x"\n', '[[allow]]\nid = "x"\nfrom = "@nobody"\nto = "web1"\ncall = ["ping"]\n',
                       'test = [ { want = "deny", from = "user:%s", to = "web1", call = "ping" } ]\n' % ME):
            path = self.policy(broken)
            result = self.lab.run("policy", "reload")
            self.assertEqual(result.status, 1, repr(result))
            self.assertIn("10-test.toml:", result.err)
            self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 0)
            self.lab.posternd.send(signal.SIGHUP)
            self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 0)
            os.unlink(path)
        self.reload()
        self.assertIn("policy-error", self.lab.posternd.said())
        self.assertIn("policy-reload", [event["kind"] for event in self.lab.events()])

    def test_posternd_does_not_start_with_a_broken_policy_or_config_and_says_where(self):
        path = self.policy('[[allow]]\nid = "x"\ncall = ["png"]\n')
        program = self.lab.start("posternd-1", [PROGRAMS.posternd, "--root", self.lab.root])
        self.assertNotEqual(program.process.wait(labs.PATIENCE), 0)
        self.assertIn("10-test.toml:", program.said())
        os.unlink(path)
        self.lab.write("etc/postern/postern.toml", 'grup = "x"\n')
        program = self.lab.start("posternd-2", [PROGRAMS.posternd, "--root", self.lab.root])
        self.assertEqual(program.process.wait(labs.PATIENCE), 2)
        self.assertIn("postern.toml:1", program.said())
        self.assertIn("group", program.said())
        program = self.lab.start("posternd-3", [PROGRAMS.posternd, "--root", self.lab.root, "--config", "/nowhere.toml"])
        self.assertNotEqual(program.process.wait(labs.PATIENCE), 0)
        self.assertIn("/nowhere.toml", program.said())

    def test_check_config_tells_every_error_of_settings_and_policy(self):
        self.lab.write("etc/postern/postern.toml", 'grup = "x"\nrollback = "no"\n[service.a]\ntarget = "nowhere"\n')
        self.policy('[[allow]]\nid = "x"\ncal = "ping"\n')
        self.assert_wrong(PROGRAMS.posternd, self.lab.root, 2,
                          r"postern\.toml:1: .*'grup'", r"postern\.toml:2: ", r"postern\.toml:[34]: ", r"10-test\.toml:4: .*'cal'")
        self.lab.write("etc/postern/postern.toml", 'group = "no-such-group"\n')
        self.assert_wrong(PROGRAMS.posternd, self.lab.root, 2, "no group no-such-group", r"10-test\.toml:4: ")

    def test_the_agents_check_config_tells_every_error_of_settings_services_and_policy(self):
        root = os.path.join(self.lab.folder, "guest")
        os.makedirs(root + "/etc/postern")
        text = ('policy = 1\n[agent]\nheartbeat = 1\npower = "off"\n[service.a]\ntarget = "nowhere"\n'
                '[[consume]]\nlisten = "x"\nfrom = "host"\nservice = "s"\n[[allow]]\nid = "x"\ncal = "ping"\n')
        with open(root + "/etc/postern/agent.toml", "w") as file:
            file.write(text)
        self.assert_wrong(PROGRAMS.agent, root, 1, *(rf"agent\.toml:{line}: " for line in (3, 4, 6, 8, 13)))
        with open(root + "/etc/postern/agent.toml", "w") as file:
            file.write("policy = = 1\n")
        self.assertEqual(self.assert_wrong(PROGRAMS.agent, root, 1, r"agent\.toml:1: ").count("\n"), 1)

    def assert_wrong(self, program, root, status, *lines):
        """That --check-config ends so, with all of these among what it says, which is returned."""
        done = subprocess.run([program, "--root", root, "--check-config"], capture_output=True, text=True, timeout=labs.PATIENCE)
        self.assertEqual(done.returncode, status, done)
        for line in lines:
            self.assertRegex(done.stderr, line)
        return done.stderr

    def test_a_policy_file_that_vanishes_is_gone_with_the_next_reload_and_not_before(self):
        self.start()
        self.pair_with_own_grants()
        path = self.policy(f'[[allow]]\nid = "p"\nfrom = "user:{ME}"\nto = "web1"\ncall = ["ping"]\n')
        self.reload()
        os.unlink(path)
        self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 0)
        self.reload()
        self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 3)

    def test_a_policy_file_that_cannot_be_read_keeps_the_old_policy(self):
        self.start()
        self.lab.pair("web1")
        os.symlink("/nowhere", self.lab.path("etc/postern/policy.d/20-dangling.toml"))
        result = self.lab.run("policy", "reload")
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("20-dangling.toml", result.err)
        self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 0)

    def test_a_reload_cuts_what_it_no_longer_allows_and_nothing_else(self):
        self.start()
        self.pair_with_own_grants("web1")
        self.pair_with_own_grants("web2")
        rule = '[[allow]]\nid = "%s"\nfrom = "user:%s"\nto = "%s"\ncall = ["ping"]\n'
        self.policy(rule % ("one", ME, "web1"), "10.toml")
        self.policy(rule % ("two", ME, "web2"), "20.toml")
        self.reload()
        pings = {}
        for name in ("web1", "web2"):
            pings[name] = subprocess.Popen(self.lab.command("ping", name, "-i", "0.2", "-c", "0"),
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            for name, ping in pings.items():
                self.assertIn("ping 1", ping.stdout.readline())
            os.unlink(self.lab.path("etc/postern/policy.d/10.toml"))
            self.reload()
            out, err = pings["web1"].communicate(timeout=5)
            self.assertEqual(pings["web1"].returncode, 3, out + err)
            self.assertIn("ping", err)
            for _ in range(5):
                self.assertIn("web2: ping", pings["web2"].stdout.readline())
            self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 3)
        finally:
            for ping in pings.values():
                ping.kill()
                ping.communicate()

    # Exit statuses ---------------------------------------------------------------------------------------------------

    def test_every_exit_status_is_what_the_manual_says(self):
        self.start()
        guest = self.lab.pair("web1")
        self.lab.enroll("web2", None, "ping")
        expected = {
            0: [["ping", "web1", "-c", "1"], ["--version"], ["--help"], ["status", "web1", "--check"],
                ["policy", "check"], ["policy", "test"], ["audit", "verify"]],
            1: [["policy", "check", "/nowhere.toml"], ["audit", "verify", "/nowhere.log"]],
            2: [["ping"], ["ping", "nobody-knows"], ["png", "web1"], ["ping", "web1", "--unknown-option"],
                ["ping", "web1", "-c", "-1"], ["ping", "web1", "-i", "soon"], ["status", "nobody-knows"],
                ["vm", "set", "web1"], ["status", "--check"], ["shutdown"], []],
            3: [["info", "web2"], ["shutdown", "web2"]],
            4: [["ping", "web2", "-c", "1"]],
        }
        for status, commands in expected.items():
            for command in commands:
                result = self.lab.run(*command)
                self.assertEqual(result.status, status, repr(result))
                if status:
                    self.assertTrue(result.err.strip(), repr(result))
        # 5: the guest does not answer.
        os.kill(guest.agent_pid(), signal.SIGSTOP)
        result = self.lab.run("ping", "web1", "-c", "1", "--timeout", "1")
        self.assertEqual(result.status, 5, repr(result))
        os.kill(guest.agent_pid(), signal.SIGCONT)
        self.lab.green("web1", 15)
        # 130: Ctrl-C, in the middle of it, with a summary of what was.
        with subprocess.Popen(self.lab.command("ping", "web1", "-i", "0.1", "-c", "0"), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as ping:
            ping.stdout.readline()
            ping.send_signal(signal.SIGINT)
            out, err = ping.communicate(timeout=5)
            self.assertEqual(ping.returncode, 130, out + err)
            self.assertIn("p50", out)
        # The same as JSON: one document on stdout, errors too.
        for command, status in ((["ping", "nobody-knows"], 2), (["ping", "web2"], 4)):
            result = self.lab.run("--json", *command)
            self.assertEqual(result.status, status)
            self.assertEqual((result.json()["ok"], result.err), (False, ""))

    def test_a_caller_that_goes_away_in_the_middle_of_a_call_leaves_nothing_behind(self):
        self.start()
        guest = self.lab.pair("web1")
        pid = self.lab.session_pid("web1")
        time.sleep(0.3)

        # The session process is not dumpable: only root sees what it has open.
        def opened():
            return tuple(labs.descriptors_of(p) for p in [self.lab.posternd.pid] + [pid] * IS_ROOT)

        before = opened()
        os.kill(guest.agent_pid(), signal.SIGSTOP)
        callers = [subprocess.Popen(self.lab.command("info", "web1"), stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL) for _ in range(5)]
        # In posternd each caller has its connection and the copy of what it was granted.
        labs.wait_until(lambda: opened()[0] >= before[0] + 10, "five callers", 10)
        time.sleep(0.5)
        for caller in callers:
            caller.kill()
            caller.wait()
        labs.wait_until(lambda: max(now - then for now, then in zip(opened(), before)) <= 0,
                        lambda: f"{before} {opened()}", 5)
        os.kill(guest.agent_pid(), signal.SIGCONT)
        self.lab.green("web1", 15)
        tail = self.lab.run("audit", "tail", "-n", "100").out
        outcomes = [json.loads(line) for line in tail.splitlines() if line.startswith("{")]
        given_up = [line for line in outcomes if line.get("outcome") == "given up"]
        self.assertEqual([line["who"] for line in given_up], [f"user:{ME}"] * 5, outcomes)

    # Files -----------------------------------------------------------------------------------------------------------

    def test_a_state_folder_that_is_read_only_is_told_and_nothing_is_half_done(self):
        # Without rights of its own, as it is installed: root could write anywhere.
        user = NOBODY.pw_uid if IS_ROOT else None
        if user:
            for folder, names, files in os.walk(self.lab.root):
                for name in ["."] + names + files:
                    os.chown(os.path.join(folder, name), user, NOBODY.pw_gid)
        self.lab.start_posternd(user=user)
        sockets = self.lab.path("run/postern")
        arguments = ["enroll", "web1", "--transport", f"unix:{sockets}/web1.sock", "--grant", "ping", "--bundle-file",
                     os.path.join(self.lab.folder, "web1.bundle")]
        folder = self.lab.path("var/lib/postern/vms")
        os.chmod(folder, 0o500)
        result = self.lab.run(*arguments)
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("var/lib/postern/vms", result.err)
        os.chmod(folder, 0o700)
        self.assertEqual(self.lab.good("vm", "list")["vms"], [])
        self.assertEqual(os.listdir(folder), [])
        self.assertEqual(self.lab.run("policy", "explain", "--to", "host", "--call", "ping").status, 0)
        self.assertFalse(os.path.exists(os.path.join(self.lab.folder, "web1.bundle")))
        # And when it can be written: everything works without any right.
        self.lab.good(*arguments)
        labs.Guest(self.lab, "web1", f"unix:{sockets}/web1.sock", os.path.join(self.lab.folder, "web1.bundle")).start()
        self.lab.green("web1")
        self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 0)

    def test_a_full_state_folder_is_told_nothing_is_half_done_and_it_heals(self):
        self.start()
        # The audit log is on the same disk, and would refuse first: audit-disk-test.py.
        self.lab.write("etc/postern/postern.toml", '[audit]\non-failure = "continue"\n')
        self.lab.posternd.send(signal.SIGHUP)
        self.lab.posternd.wait_for('"policy-reload"')
        self.lab.pair("web1")
        witness = labs.Witness(self.lab, "web1")
        limits = resource.prlimit(self.lab.posternd.pid, resource.RLIMIT_FSIZE)
        # A file size limit is how one process's disk is full.
        resource.prlimit(self.lab.posternd.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        bundle = os.path.join(self.lab.folder, "web2.bundle")
        arguments = ["enroll", "web2", "--transport", "unix:" + os.path.join(self.lab.folder, "web2.sock"), "--grant",
                     "ping", "--bundle-file", bundle]
        result = self.lab.run(*arguments)
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("var/lib/postern", result.err)
        self.assertRegex(result.err, "disk full|File too large|no space")
        self.assertEqual(len(result.err.strip().splitlines()), 1, repr(result))
        self.assertFalse(os.path.exists(bundle))
        self.assertEqual([vm["vm"] for vm in self.lab.good("vm", "list")["vms"]], ["web1"])
        self.assertEqual([name for name in os.listdir(self.lab.path("var/lib/postern/vms")) if "web2" in name], [])
        # Whom it has goes on.
        self.assertEqual(self.lab.run("ping", "web1", "-c", "1").status, 0)
        witness.end(self)
        resource.prlimit(self.lab.posternd.pid, resource.RLIMIT_FSIZE, limits)
        self.lab.good(*arguments)
        labs.wait_until(lambda: self.lab.run("audit", "verify").status == 0, "a whole audit log", 10)


if __name__ == "__main__":
    labs.main()
