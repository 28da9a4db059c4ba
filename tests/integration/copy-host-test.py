"""The host's half of a file copy: what its policy lets through, how fast, for how long, and what the audit says of it.

usage: copy-host-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import hashlib
import glob
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
ME = pwd.getpwuid(os.geteuid()).pw_name
MIB = 1 << 20


def rule(name, calls, paths, more="", kind="allow", who=None):
    listed = ", ".join(f'"{path}"' for path in paths)
    called = ", ".join(f'"{call}"' for call in calls)
    return (f'[[{kind}]]\nid = "{name}"\nfrom = "{who or "user:" + ME}"\nto = "web1"\ncall = [{called}]\n'
            f"args = {{ path = [{listed}] }}\n{more}\n")


class CopyHostTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.target = self.folder("target")

    def folder(self, name):
        path = os.path.join(self.lab.folder, name)
        os.makedirs(path, exist_ok=True)
        return path

    def file(self, name, content, mode=0o644):
        path = os.path.join(self.lab.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def policy(self, text, name="10-test.toml"):
        head = f'policy = 1\n[[allow]]\nid = "see"\nfrom = "user:{ME}"\nto = "any"\ncall = "status.read"\n'
        self.lab.write("etc/postern/policy.d/" + name, head + text)

    def pair(self, guest_more="", settings=""):
        """web1, whose guest allows everything: what is tested is the host's lock."""
        if settings:
            self.lab.write("etc/postern/postern.toml", settings)
        self.lab.start_posternd()
        guest = self.lab.enroll("web1", None, None)
        guest.write("etc/postern/agent.toml",
                    f'policy = 1\n[[allow]]\nid = "all"\ncall = "file.*"\nrun-as = "{ME}"\n{guest_more}\n')
        guest.start()
        self.lab.green("web1")
        return guest

    def whole(self, more=""):
        return rule("www", ["file.*"], [self.target, self.target + "/**"], more)

    def lines(self, call, outcome=None):
        return [line for line in self.lab.audit_log()
                if line.get("call") == call and (outcome is None or line["outcome"] == outcome)]

    def outcomes(self, call):
        """Of operations that are over, not of decisions."""
        return [line for line in self.lines(call) if "files" in line]

    def last_outcome(self, call, count=1):
        labs.wait_until(lambda: len(self.outcomes(call)) >= count, lambda: f"no outcome of {call}: {self.lab.audit_log()[-3:]}")
        return self.outcomes(call)[-1]

    def copying(self, *arguments):
        """A copy that goes on."""
        return subprocess.Popen(self.lab.command("cp", *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, cwd=self.lab.folder)

    # What passes ----------------------------------------------------------------------------------------------------

    def test_a_tree_goes_both_ways_and_every_operation_leaves_its_line(self):
        self.policy(self.whole())
        self.pair()
        self.file("src/a.txt", b"hello")
        self.file("src/deep/er/big", os.urandom(3 * MIB))
        self.file("src/deep/with \xe9\n name", b"x" * 1000)
        source, back = os.path.join(self.lab.folder, "src"), os.path.join(self.lab.folder, "back")
        there = self.target + "/src"
        self.lab.good("cp", "-r", source, f"web1:{self.target}")
        self.lab.good("cp", "-r", f"web1:{there}", back)
        subprocess.run(["diff", "-r", source, there], check=True)
        subprocess.run(["diff", "-r", source, back], check=True)
        self.lab.good("ls", f"web1:{there}")
        self.lab.good("stat", f"web1:{there}/a.txt")
        self.lab.good("mkdir", f"web1:{self.target}/new")
        self.lab.good("rm", "-r", f"web1:{there}")
        put = self.last_outcome("file.put")
        self.assertEqual((put["who"], put["vm"], put["rule"], put["outcome"], put["path"]),
                         (f"user:{ME}", "web1", "www", "done", self.target))
        self.assertEqual((put["files"], put["directories"], put["failures"]), (3, 3, 0))
        self.assertEqual(put["bytes"], 5 + 3 * MIB + 1000)
        self.assertGreaterEqual(put["sent-bytes"], put["bytes"])
        for call in ("file.get", "file.list", "file.stat", "file.mkdir", "file.remove"):
            self.assertEqual(self.last_outcome(call)["outcome"], "done", call)
            decision = [line for line in self.lines(call, "allowed") if "files" not in line]
            self.assertTrue(decision and decision[0]["path"].startswith(self.target), call)
        self.assertIn("whole", self.lab.verify_audit())

    def test_a_verified_file_has_its_hash_in_the_audit_and_a_second_copy_sends_little(self):
        self.policy(self.whole())
        self.pair()
        source = self.file("file", os.urandom(8 * MIB))
        self.lab.good("cp", "--verify", source, f"web1:{self.target}/file")
        first = self.last_outcome("file.put")
        with open(source, "rb") as file:
            expected = hashlib.blake2b(file.read(), digest_size=32).hexdigest()
        self.assertEqual(first["hash"], expected)
        self.lab.good("cp", "--verify", source, f"web1:{self.target}/file")
        second = self.last_outcome("file.put", 2)
        self.assertEqual(second["unchanged"], 1)
        self.assertLess(second["sent-bytes"], first["bytes"] // 100)

    def test_what_lies_below_a_path_is_enough_to_copy_into_it_and_no_more(self):
        self.policy(rule("below", ["file.*"], [self.target + "/**"]))
        self.pair()
        source = self.file("file", b"content")
        self.lab.good("cp", source, f"web1:{self.target}")
        self.assertEqual([line["path"] for line in self.lines("file.put", "allowed below")], [self.target])
        self.assertEqual(self.last_outcome("file.put")["outcome"], "done")
        self.assertEqual(self.lab.run("rm", "-r", f"web1:{self.target}").status, 3)
        self.assertEqual(self.lab.run("mkdir", f"web1:{self.target}").status, 3)
        denied = self.lab.run("cp", source, "web1:/etc/postern-test")
        self.assertEqual(denied.status, 3)
        self.assertIn("the host's policy", denied.err)
        self.assertIn('args = { path = "/etc/postern-test" }', denied.err)
        self.assertEqual(self.lines("file.put")[-1]["path"], "/etc/postern-test")

    def test_no_path_but_a_canonical_one_is_asked_for(self):
        self.policy(rule("all", ["file.*"], ["/**"]))
        self.pair()
        source = self.file("file", b"content")
        result = self.lab.run("cp", source, "web1:/srv/" + "x" * 4100)
        self.assertNotEqual(result.status, 0)
        self.assertEqual(self.lines("file.put"), [])

    # What does not --------------------------------------------------------------------------------------------------

    def test_a_file_that_the_hosts_policy_denies_ends_the_copy_either_way_and_is_named(self):
        self.policy(self.whole() + rule("no-keys", ["file.*"], ["/**/*.key"], kind="deny", who="host"))
        self.pair()
        self.file("src/server.key", b"secret")
        source = os.path.join(self.lab.folder, "src")
        result = self.lab.run("cp", "-r", source, f"web1:{self.target}")
        self.assertEqual(result.status, 3, repr(result))
        self.assertIn("server.key", result.err)
        self.assertIn("no-keys", result.err)
        self.assertFalse(os.path.exists(self.target + "/src/server.key"))
        self.assertEqual(self.last_outcome("file.put")["outcome"], "denied")
        self.file("target/tree/server.key", b"secret")
        back = os.path.join(self.lab.folder, "back")
        result = self.lab.run("cp", "-r", f"web1:{self.target}/tree", back)
        self.assertEqual(result.status, 3, repr(result))
        self.assertFalse(os.path.exists(back + "/server.key"))
        self.assertEqual(self.lab.run("cp", f"web1:{self.target}/tree/server.key", back).status, 3)

    def test_quotas_of_the_host_end_a_copy(self):
        paths = f'path = ["{self.target}", "{self.target}/**"], max-files = 2, max-bytes = "1 MiB"'
        self.policy(f'[[allow]]\nid = "www"\nfrom = "user:{ME}"\nto = "web1"\ncall = "file.*"\nargs = {{ {paths} }}\n')
        self.pair()
        for name in "abc":
            self.file("many/" + name, b"x")
        many = os.path.join(self.lab.folder, "many")
        result = self.lab.run("cp", "-r", many, f"web1:{self.target}")
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("at most 2 files", result.err)
        self.assertEqual(self.last_outcome("file.put")["outcome"], "failed: quota")
        large = self.file("large", bytes(MIB + 1))
        self.assertIn("bytes in one copy", self.lab.run("cp", large, f"web1:{self.target}").err)
        stream = self.lab.run("cp", "-", f"web1:{self.target}/stream", text=bytes(2 * MIB))
        self.assertEqual(stream.status, 1, repr(stream))
        self.assertFalse(os.path.exists(self.target + "/stream"))

    def special(self, where):
        paths = f'path = ["{self.target}", "{self.target}/**"], special = true'
        head = f'from = "user:{ME}"\nto = "web1"\n' if where == "host" else f'run-as = "{ME}"\n'
        return f'[[allow]]\nid = "a-special"\n{head}call = "file.*"\nargs = {{ {paths} }}\n'

    def test_set_id_bits_pass_only_where_both_policies_say_special(self):
        self.policy(self.whole())
        guest = self.pair()
        back = os.path.join(self.lab.folder, "back")
        tool = self.file("tool", b"#!/bin/sh\n")
        made = self.target + "/made"
        for host, there in ((False, False), (True, False), (False, True), (True, True)):
            self.policy(self.special("host") if host else self.whole())
            self.lab.good("policy", "reload")
            text = 'policy = 1\n[[allow]]\nid = "all"\ncall = "file.*"\nrun-as = "%s"\n' % ME
            guest.write("etc/postern/agent.toml", text + (self.special("guest") if there else ""))
            guest.program.send(signal.SIGHUP)
            guest.program.wait_for("reload")
            time.sleep(0.3)
            self.file("target/tool", b"#!/bin/sh\n", 0o4755)
            os.chmod(tool, 0o4755)
            self.lab.good("cp", "-a", f"web1:{self.target}/tool", back)
            self.lab.good("cp", "-a", tool, f"web1:{made}")
            wanted = 0o4755 if host and there else 0o755
            for path in (made,):
                self.assertEqual(oct(stat.S_IMODE(os.stat(path).st_mode)), oct(wanted), (host, there, path))
            if wanted == 0o755:
                self.assertEqual(oct(stat.S_IMODE(os.stat(back).st_mode)), oct(wanted), (host, there))
            os.unlink(back)
            os.unlink(made)

    @unittest.skipUnless(IS_ROOT, "makes a device")
    def test_a_device_does_not_come_out_of_a_guest(self):
        self.policy(self.whole())
        self.pair()
        self.file("target/tree/a", b"a")
        self.file("target/tree/z", b"z")
        os.mknod(self.target + "/tree/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        back = os.path.join(self.lab.folder, "back")
        result = self.lab.run("cp", "-a", f"web1:{self.target}/tree", back)
        self.assertIn(result.status, (1, 3), repr(result))
        self.assertIn("null", result.err)
        self.assertFalse(os.path.exists(back + "/null"))

    # Limits ---------------------------------------------------------------------------------------------------------

    def test_limits_delay_a_copy_and_refuse_one_too_many(self):
        self.policy(self.whole('limit = { rate = "2 MiB/s", burst = "128 KiB", open = 1 }'))
        self.pair()
        source = self.file("file", os.urandom(4 * MIB))
        began = time.monotonic()
        copy = self.copying(source, f"web1:{self.target}/file")
        labs.wait_until(lambda: len(self.lines("file.put")) == 1, "the copy has not begun")
        time.sleep(0.3)
        busy = self.lab.run("cp", source, f"web1:{self.target}/other")
        self.assertEqual(busy.status, 6, repr(busy))
        self.assertIn("room for 1 copies and channels at a time", busy.err)
        self.assertEqual(copy.wait(30), 0)
        took = time.monotonic() - began
        self.assertGreater(took, 1.8)
        self.assertLess(took, 6)
        copy.communicate()

    def test_a_caller_may_ask_for_less(self):
        self.policy(self.whole())
        self.pair()
        source = self.file("file", os.urandom(2 * MIB))
        began = time.monotonic()
        self.lab.good("cp", "--limit", "1 MiB/s", source, f"web1:{self.target}/file")
        self.assertGreater(time.monotonic() - began, 1.6)

    # Reloads, and no posternd ---------------------------------------------------------------------------------------

    def slow(self):
        """A copy of 4 MiB that would take long."""
        self.policy(self.whole('limit = { rate = "256 KiB/s", burst = "64 KiB" }'))
        self.pair()
        copy = self.copying(self.file("file", os.urandom(4 * MIB)), f"web1:{self.target}/file")
        labs.wait_until(lambda: len(self.lines("file.put")) == 1, "the copy has not begun")
        time.sleep(0.5)
        self.assertIsNone(copy.poll())
        return copy

    def test_a_reload_that_changes_nothing_for_a_copy_leaves_it_and_one_that_forbids_it_ends_it(self):
        copy = self.slow()
        same = self.whole('limit = { rate = "256 KiB/s", burst = "64 KiB" }')
        self.policy("# a comment\n" + rule("other", ["file.*"], ["/srv/**"], who="user:nobody") + same)
        self.lab.good("policy", "reload")
        time.sleep(1)
        self.assertIsNone(copy.poll(), "an unrelated rule ended the copy")
        self.policy(same.replace("file.*", "file.get"))
        self.lab.good("policy", "reload")
        out, err = copy.communicate(timeout=10)
        self.assertNotEqual(copy.returncode, 0, (out, err))
        self.assertEqual(self.last_outcome("file.put")["outcome"], "given up")
        self.assertEqual(self.last_outcome("file.put")["who"], f"user:{ME}")
        self.assertFalse(os.path.exists(self.target + "/file"))
        self.lab.green("web1")

    def test_a_reload_that_denies_a_part_of_a_copy_ends_it(self):
        copy = self.slow()
        same = self.whole('limit = { rate = "256 KiB/s", burst = "64 KiB" }')
        self.policy(same + rule("no", ["file.put"], [self.target + "/x/**"], kind="deny", who="host"))
        self.lab.good("policy", "reload")
        copy.communicate(timeout=10)
        self.assertNotEqual(copy.returncode, 0)

    def test_a_copy_goes_on_when_posternd_dies_and_ends_with_the_session(self):
        self.policy(self.whole('limit = { rate = "2 MiB/s", burst = "64 KiB" }'))
        self.pair()
        source = self.file("file", os.urandom(5 * MIB))
        copy = self.copying(source, f"web1:{self.target}/file")
        # Its first bytes are there: posternd has done what it had to do.
        labs.wait_until(lambda: glob.glob(self.target + "/.*.postern-partial"), "the copy has not begun")
        self.lab.posternd.kill()
        self.assertEqual(copy.wait(30), 0, copy.stderr.read())
        copy.communicate()
        subprocess.run(["cmp", source, self.target + "/file"], check=True)
        self.lab.start_posternd()
        self.lab.green("web1")
        copy = self.copying(source, f"web1:{self.target}/second")
        labs.wait_until(lambda: len(self.lines("file.put")) >= 2, "the copy has not begun")
        time.sleep(0.3)
        os.kill(self.lab.session_pid("web1"), signal.SIGKILL)
        copy.communicate(timeout=20)
        self.assertNotEqual(copy.returncode, 0)
        self.assertFalse(os.path.exists(self.target + "/second"))
        self.lab.green("web1")
        self.lab.good("cp", "--resume", source, f"web1:{self.target}/second")
        subprocess.run(["cmp", source, self.target + "/second"], check=True)

    # Audit ----------------------------------------------------------------------------------------------------------

    def test_each_file_has_a_line_where_that_is_set_and_what_is_too_much_is_counted(self):
        self.policy(self.whole())
        self.pair(settings='audit-files = "each"\n')
        for number in range(400):
            self.file(f"src/f{number:03}", b"x" * number)
        self.lab.good("cp", "-r", "--verify", os.path.join(self.lab.folder, "src"), f"web1:{self.target}")
        outcome = self.last_outcome("file.put")
        entries = [line for line in self.lines("file.put") if "entry" in line]
        self.assertEqual(len(entries) + outcome.get("lines-left-out", 0), 400)
        self.assertGreaterEqual(len(entries), 50)
        self.assertLess(len(entries), 400)
        for line in entries:
            self.assertEqual(line["path"], self.target)
            self.assertTrue(line["entry"].startswith(self.target + "/src/f"))
            self.assertEqual(line["bytes"], int(line["entry"][-3:]))
            self.assertEqual(line["outcome"], "done")
            self.assertEqual(len(line["hash"]), 64)
        self.lab.verify_audit()


if __name__ == "__main__":
    labs.main()
