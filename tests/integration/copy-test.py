"""File copy between a real host and a real agent: what `postern cp` and its neighbours do, and every way in which they say no.

usage: copy-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

What needs a second user runs only as root. POSTERN_TEST_FULL=1: larger trees, 10^5 files.
"""
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import time
import unittest

import copying
import lab as labs
from copying import hash_of, random_bytes, write_file

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
FULL = os.environ.get("POSTERN_TEST_FULL") == "1"
NOBODY = pwd.getpwnam("nobody")


class CopyTest(unittest.TestCase):
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.lab = copying.CopyLab(PROGRAMS)
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start_posternd()
        cls.lab.copy_pair("web1")

    def setUp(self):
        self.name = self._testMethodName[:60]
        os.makedirs(self.lab.at(self.name))
        os.makedirs(self.lab.there("web1", self.name))
        self.addCleanup(lambda: self.assertEqual(copying.leftovers(self.lab.folder), []))

    def at(self, *parts):
        return self.lab.at(self.name, *parts)

    def there(self, *parts):
        return self.lab.there("web1", self.name, *parts)

    def remote(self, *parts):
        return self.lab.remote("web1", self.name, *parts)

    def cp(self, *arguments, status=0, **options):
        result = self.lab.run("cp", *arguments, **options)
        self.assertEqual(result.status, status, repr(result))
        if status != 0:
            self.assertTrue(result.err.startswith("postern: "), repr(result))
        return result

    def refused(self, *arguments, status, word, **options):
        """It ends with this status and says this, in one line a failure."""
        result = self.cp(*arguments, status=status, **options)
        self.assertIn(word, result.err.lower(), repr(result))
        return result

    # Files -----------------------------------------------------------------------------------------------------------

    def test_a_file_goes_into_the_guest_and_back_with_its_mode_and_time(self):
        for size in (0, 1, 4096, 61440, 61441, 1 << 20, (5 << 20) + 7):
            with self.subTest(size=size):
                source = write_file(self.at(f"f{size}"), random_bytes(size), 0o640, 1_600_000_000_123_456_789)
                self.cp(source, self.remote(f"f{size}"))
                self.assertEqual(copying.describe(self.there(f"f{size}"))["hash"], hash_of(source))
                self.assertEqual(os.stat(self.there(f"f{size}")).st_mtime_ns, 1_600_000_000_123_456_789)
                self.assertEqual(stat.S_IMODE(os.stat(self.there(f"f{size}")).st_mode), 0o640)
                self.cp("--verify", self.remote(f"f{size}"), self.at(f"back{size}"))
                self.assertEqual(copying.describe(self.at(f"back{size}")), copying.describe(self.there(f"f{size}")))

    def test_an_existing_file_is_replaced_and_an_unchanged_large_one_is_not_sent_again(self):
        source = write_file(self.at("f"), random_bytes(8 << 20))
        self.cp(source, self.remote("f"))
        again = self.lab.good("cp", source, self.remote("f"))
        self.assertLess(again["summary"]["sentBytes"], (8 << 20) // 100, again)
        write_file(self.at("f"), random_bytes(8 << 20)[:4 << 20] + b"X" + random_bytes(8 << 20)[(4 << 20) + 1:])
        changed = self.lab.good("cp", "--verify", source, self.remote("f"))
        self.assertLess(changed["summary"]["sentBytes"], 1 << 20, changed)
        self.assertEqual(hash_of(self.there("f")), hash_of(source))

    def test_standard_input_and_output(self):
        content = random_bytes(3 << 20)
        command = self.lab.command("cp", "-", self.remote("f"))
        done = subprocess.run(command, input=content, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.there("f"), "rb") as file:
            self.assertEqual(file.read(), content)
        done = subprocess.run(self.lab.command("cp", self.remote("f"), "-"), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(done.stdout, content)

    def test_holes_stay_holes(self):
        with open(self.at("f"), "wb") as file:
            file.write(b"begin")
            file.seek(64 << 20)
            file.write(b"end")
        self.cp(self.at("f"), self.remote("f"))
        self.assertEqual(hash_of(self.there("f")), hash_of(self.at("f")))
        self.assertLess(os.stat(self.there("f")).st_blocks * 512, 1 << 20)
        self.cp("--sparse", "never", self.at("f"), self.remote("g"))
        self.assertGreaterEqual(os.stat(self.there("g")).st_blocks * 512, 64 << 20)
        self.cp("--sparse", "always", self.remote("g"), self.at("g"))
        self.assertLess(os.stat(self.at("g")).st_blocks * 512, 1 << 20)
        self.assertEqual(hash_of(self.at("g")), hash_of(self.at("f")))

    # Trees -----------------------------------------------------------------------------------------------------------

    def test_random_trees_are_the_same_after_a_copy_both_ways(self):
        for seed in range(12 if FULL else 3):
            with self.subTest(seed=seed):
                copying.random_tree(self.at(f"t{seed}"), 2000 if FULL else 400, seed)
                self.cp("-a", "--verify", self.at(f"t{seed}"), self.remote(), seconds=300)
                self.assertEqual(copying.tree_of(self.there(f"t{seed}")), copying.tree_of(self.at(f"t{seed}")))
                self.cp("-a", self.remote(f"t{seed}"), self.at("back"), seconds=300)
                expected = self.at("back") if seed == 0 else self.at("back", f"t{seed}")
                if seed == 0:
                    self.assertEqual(copying.tree_of(expected), copying.tree_of(self.at(f"t{seed}")))
                    subprocess.run(["rm", "-rf", expected], check=True)
                    os.mkdir(expected)
                else:
                    self.assertEqual(copying.tree_of(expected), copying.tree_of(self.at(f"t{seed}")))

    @unittest.skipUnless(FULL, "the long form")
    def test_a_hundred_thousand_files(self):
        for folder in range(100):
            for number in range(1000):
                write_file(self.at("many", f"d{folder}", f"f{number}"), b"%d" % number)
        self.cp("-a", self.at("many"), self.remote(), seconds=600)
        self.assertEqual(copying.tree_of(self.there("many")), copying.tree_of(self.at("many")))

    def test_where_things_go_is_as_with_scp(self):
        one, two = write_file(self.at("one"), b"1"), write_file(self.at("two"), b"2")
        os.mkdir(self.there("dir"))
        self.cp(one, self.remote("dir"))
        self.cp(one, two, self.remote("dir") + "/")
        self.assertEqual(sorted(os.listdir(self.there("dir"))), ["one", "two"])
        self.cp(one, self.remote("dir", "renamed"))
        self.assertEqual(open(self.there("dir", "renamed")).read(), "1")
        self.refused(one, self.remote("none") + "/", status=1, word="none")
        self.refused(one, two, self.remote("none"), status=1, word="none")
        self.refused(one, two, self.remote("dir", "one"), status=1, word="not a directory")
        os.mkdir(self.at("empty"))
        self.cp(self.remote("dir", "one"), self.remote("dir", "two"), self.at("empty"))
        self.assertEqual(sorted(os.listdir(self.at("empty"))), ["one", "two"])
        self.refused(self.at("empty"), self.remote("x"), status=1, word="is a directory")
        self.cp("-r", self.at("empty"), self.remote("x"))
        self.cp("-r", self.at("empty"), self.remote("x"))
        self.assertEqual(sorted(os.listdir(self.there("x"))), ["empty", "one", "two"])

    def test_a_tree_goes_on_past_a_bad_file_and_lists_it(self):
        if IS_ROOT:
            os.mkfifo(self.at("pipe"))
        tree = self.at("t")
        for number in range(20):
            write_file(os.path.join(tree, f"f{number:02}"), b"x" * number)
        os.mkfifo(os.path.join(tree, "f05-pipe"))
        result = self.refused("-r", tree, self.remote(), status=1, word="f05-pipe")
        self.assertEqual(len(result.err.splitlines()), 1 + result.err.count("not copied"), repr(result))
        self.assertEqual(len(os.listdir(self.there("t"))), 20)

    def test_symbolic_links_are_copied_as_links_and_never_followed_out(self):
        os.mkdir(self.at("t"))
        os.symlink("/etc/passwd", self.at("t", "out"))
        self.cp("-r", self.at("t"), self.remote())
        self.assertEqual(os.readlink(self.there("t", "out")), "/etc/passwd")
        os.symlink("/etc", self.there("etc"))
        self.refused(self.remote("etc", "hostname"), self.at("stolen"), status=1, word="symbolic link")
        self.refused(write_file(self.at("f"), b"x"), self.remote("etc", "new"), status=1, word="symbolic link")
        self.assertFalse(os.path.exists("/etc/new"))
        self.assertFalse(os.path.exists(self.at("stolen")))

    # ls, stat, mkdir, rm -----------------------------------------------------------------------------------------------

    def test_ls_stat_mkdir_and_rm(self):
        lab = self.lab
        self.assertEqual(lab.run("mkdir", self.remote("a")).status, 0)
        self.assertEqual(lab.run("mkdir", self.remote("a")).status, 1)
        self.assertEqual(lab.run("mkdir", self.remote("b", "c", "d")).status, 1)
        self.assertEqual(lab.run("mkdir", "-p", self.remote("b", "c", "d")).status, 0)
        self.assertTrue(os.path.isdir(self.there("b", "c", "d")))
        write_file(self.there("b", "file"), b"12345", 0o640)
        listed = lab.run("ls", self.remote("b"))
        self.assertEqual(listed.out.split(), ["c", "file"], repr(listed))
        shown = lab.good("stat", self.remote("b", "file"))
        self.assertIn("5", json.dumps(shown))
        self.assertEqual(lab.run("stat", self.remote("none")).status, 1)
        self.assertEqual(lab.run("rm", self.remote("b")).status, 1)
        self.assertEqual(lab.run("rm", self.remote("b", "file")).status, 0)
        self.assertEqual(lab.run("rm", "-r", self.remote("b")).status, 0)
        self.assertFalse(os.path.exists(self.there("b")))
        self.assertEqual(lab.run("rm", self.remote("none")).status, 1)

    # No ----------------------------------------------------------------------------------------------------------------

    def test_what_is_not_there_or_not_a_file_says_so(self):
        self.refused(self.at("none"), self.remote("x"), status=1, word="no such file")
        self.refused(self.remote("none"), self.at("x"), status=1, word="no such file")
        write_file(self.at("f"), b"x")
        self.refused(self.at("f", "below"), self.remote("x"), status=1, word="not a directory")
        write_file(self.there("f"), b"x")
        self.refused(self.at("f"), self.remote("f", "below"), status=1, word="not a directory")
        os.mkdir(self.there("d"))
        self.refused(self.remote("d"), self.at("x"), status=1, word="is a directory")
        os.mkfifo(self.at("pipe"))
        self.refused(self.at("pipe"), self.remote("x"), status=6, word="fifo")
        os.mkfifo(self.there("pipe"))
        self.refused(self.remote("pipe"), self.at("x"), status=6, word="fifo")
        self.refused(self.at("f"), self.remote("n" * 256), status=2, word="255")
        # A file where a directory is, and the reverse.
        os.makedirs(self.there("into", "f"))
        self.refused(self.at("f"), self.remote("into"), status=1, word="is a directory")
        os.makedirs(self.at("into2", "f", "x"))
        os.makedirs(self.there("into2"))
        write_file(self.there("into2", "f"), b"kept")
        self.refused("-r", self.at("into2"), self.remote(), status=1, word="f")
        self.assertEqual(open(self.there("into2", "f")).read(), "kept")

    def test_no_clobber_keeps_what_is_there(self):
        write_file(self.at("f"), b"new")
        write_file(self.there("f"), b"old")
        self.refused("--no-clobber", self.at("f"), self.remote("f"), status=1, word="exists")
        self.refused("--no-clobber", self.remote("f"), self.at("f"), status=1, word="exists")
        self.assertEqual(open(self.there("f")).read(), "old")
        self.assertEqual(open(self.at("f")).read(), "new")

    def test_usage(self):
        for arguments in (["cp"], ["cp", "x"], ["cp", "a", "b"], ["cp", self.at("f"), "web1:relative"],
                          ["cp", "--limit", "fast", self.at("f"), self.remote("f")],
                          ["cp", self.at("f"), self.remote("..", "..", "etc")], ["ls"], ["ls", "/etc"]):
            result = self.lab.run(*arguments)
            self.assertEqual(result.status, 2, repr(result))

    def test_an_unknown_vm_and_one_that_is_off(self):
        write_file(self.at("f"), b"x")
        self.refused(self.at("f"), "nobody1:/tmp/x", status=2, word="nobody1")
        self.lab.enroll("off1", grants=None)
        self.refused(self.at("f"), "off1:" + os.path.join(self.lab.folder, "files-off1", "x"), status=4, word="off1")

    def test_both_locks(self):
        write_file(self.at("f"), b"x")
        denied = self.refused(self.at("f"), "web1:/etc/postern-test", status=3, word="denied")
        self.assertIn("file.put", denied.err)
        self.assertFalse(os.path.exists("/etc/postern-test"))
        self.lab.host_policy(rest='[[allow]]\nid = "wide"\nfrom = "host"\nto = "web1"\ncall = "file.*"\n')
        self.lab.good("policy", "reload")
        self.addCleanup(lambda: (self.lab.host_policy(), self.lab.good("policy", "reload")))
        denied = self.refused(self.at("f"), "web1:/etc/postern-test", status=3, word="denied")
        self.assertIn("guest", denied.err)
        self.assertFalse(os.path.exists("/etc/postern-test"))

    def test_a_rule_that_denies_a_part_of_a_tree_keeps_it_out(self):
        for name in ("a", "secret/key", "z"):
            write_file(self.at("t", name), b"x")
        deny = f'[[deny]]\nid = "no-keys"\nfrom = "host"\nto = "any"\ncall = "file.put"\nargs = {{ path = "/**/secret/**" }}\n'
        self.lab.host_policy(rest=deny)
        self.lab.good("policy", "reload")
        self.addCleanup(lambda: (self.lab.host_policy(), self.lab.good("policy", "reload")))
        result = self.lab.run("cp", "-r", self.at("t"), self.remote())
        self.assertIn(result.status, (1, 3), repr(result))
        self.assertIn("no-keys", result.err)
        self.assertFalse(os.path.exists(self.there("t", "secret", "key")))

    def test_quotas_of_the_policy(self):
        for number in range(6):
            write_file(self.at("t", f"f{number}"), b"x" * 1000)
        self.addCleanup(lambda: (self.lab.host_policy(), self.lab.good("policy", "reload")))
        for more, word in ((', "max-files" = 5', "files"), (', "max-bytes" = "5 KiB"', "KiB")):
            self.lab.host_policy(more=more)
            self.lab.good("policy", "reload")
            result = self.lab.run("cp", "-r", self.at("t"), self.remote())
            self.assertEqual(result.status, 1, repr(result))
            self.assertFalse(os.path.exists(self.there("t")), word)

    def test_set_id_bits_do_not_travel(self):
        write_file(self.at("f"), b"#!/bin/sh\n", 0o6755)
        self.cp("-a", self.at("f"), self.remote("f"))
        self.assertEqual(stat.S_IMODE(os.stat(self.there("f")).st_mode), 0o755)
        os.chmod(self.there("f"), 0o4755)
        self.cp("-a", self.remote("f"), self.at("g"))
        self.assertEqual(stat.S_IMODE(os.stat(self.at("g")).st_mode), 0o755)

    def test_limits_delay(self):
        write_file(self.at("f"), random_bytes(4 << 20))
        began = time.monotonic()
        self.cp("--limit", "2 MiB/s", self.at("f"), self.remote("f"))
        self.assertGreater(time.monotonic() - began, 0.9)
        self.assertEqual(hash_of(self.there("f")), hash_of(self.at("f")))

    def test_two_copies_to_one_destination_do_not_mix(self):
        one, two = write_file(self.at("one"), random_bytes(6 << 20, 1)), write_file(self.at("two"), random_bytes(6 << 20, 2))
        slow = subprocess.Popen(self.lab.command("cp", "--limit", "4 MiB/s", one, self.remote("f")), stderr=subprocess.PIPE)
        labs.wait_until(lambda: copying.leftovers(self.there()), "the first has begun")
        try:
            self.refused(two, self.remote("f"), status=6, word="another")
        finally:
            slow.wait(60)
        self.assertEqual(slow.returncode, 0, slow.stderr.read())
        slow.stderr.close()
        self.assertEqual(hash_of(self.there("f")), hash_of(one))

    def test_the_audit_says_what_was_copied(self):
        write_file(self.at("f"), b"12345")
        self.cp("--verify", self.at("f"), self.remote("f"))
        lines = self.lab.run("audit", "tail", "--lines", "20").out
        self.assertIn("file.put", lines)
        self.assertIn(self.there("f"), lines)
        self.assertIn(hash_of(self.at("f")), lines)
        self.lab.verify_audit()

    def test_a_socket_in_a_tree_is_a_problem_of_its_own(self):
        os.mkdir(self.at("t"))
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(os.path.relpath(self.at("t", "s")))
        write_file(self.at("t", "f"), b"x")
        self.refused("-r", self.at("t"), self.remote(), status=1, word="s")
        self.assertEqual(os.listdir(self.there("t")), ["f"])


class TwoUsersTest(unittest.TestCase):
    """A lab of its own: who closes one ends all that its process has adopted."""

    @unittest.skipUnless(IS_ROOT, "needs root, to be two users")
    def test_permissions_are_the_callers_on_the_host_and_run_as_in_the_guest(self):
        lab = copying.CopyLab(PROGRAMS)
        self.addCleanup(lab.close)
        lab.write("etc/postern/postern.toml", 'group = "nogroup"\n')
        lab.start_posternd()
        lab.copy_pair("web1", run_as="nobody")
        secret = write_file(lab.at("secret"), b"x", 0o600)
        user = {"user": NOBODY.pw_uid, "groups": [NOBODY.pw_gid]}
        result = lab.run("cp", secret, lab.remote("web1", "x"), **user)
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("permission", result.err)
        # The guest's half: root's files are out of the reach of the rule's run-as.
        os.chmod(lab.guest_root("web1"), 0o755)
        result = lab.run("cp", write_file(lab.at("f"), b"x"), lab.remote("web1", "f"))
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn("permission denied", result.err)
        os.chmod(lab.guest_root("web1"), 0o777)
        self.assertEqual(lab.run("cp", lab.at("f"), lab.remote("web1", "f")).status, 0)
        self.assertEqual(os.stat(lab.there("web1", "f")).st_uid, NOBODY.pw_uid)

    @unittest.skipUnless(IS_ROOT, "needs root, to be two users")
    def test_a_permission_that_is_lost_half_way_is_told_of_what_it_concerns(self):
        lab = copying.CopyLab(PROGRAMS)
        self.addCleanup(lab.close)
        lab.start_posternd()
        lab.copy_pair("web1", run_as="nobody")
        for folder in "abcdef":
            for number in range(40):
                write_file(lab.there("web1", "t", folder, f"f{number}"), random_bytes(50_000, number))
        copy = subprocess.Popen(lab.command("cp", "-r", "--limit", "3 MiB/s", lab.remote("web1", "t"), lab.at()),
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        labs.wait_until(lambda: os.path.isdir(lab.at("t")) and os.listdir(lab.at("t")), "it has begun")
        # In which order folders are read is the file system's to say; these two are not reached yet.
        folder, other = sorted(set("abcdef") - set(os.listdir(lab.at("t"))))[:2]
        os.chmod(lab.there("web1", "t", folder), 0o700)
        os.chmod(lab.there("web1", "t", other, "f9"), 0o600)
        _, error = copy.communicate(timeout=60)
        self.assertEqual(copy.returncode, 1, error)
        self.assertIn("nobody", error)
        self.assertIn(f"t/{folder}", error)
        self.assertIn(f"t/{other}/f9", error)
        for whole in set("abcdef") - {folder, other}:
            self.assertEqual(copying.tree_of(lab.at("t", whole))[0].keys(),
                             copying.tree_of(lab.there("web1", "t", whole))[0].keys())
        self.assertEqual(set(os.listdir(lab.at("t", other))), {f"f{number}" for number in range(40)} - {"f9"})
        self.assertEqual(copying.leftovers(lab.folder), [])
        # The owner gives it back: the same command finishes.
        os.chmod(lab.there("web1", "t", folder), 0o755)
        os.chmod(lab.there("web1", "t", other, "f9"), 0o644)
        self.assertEqual(lab.run("cp", "-r", "--resume", lab.remote("web1", "t"), lab.here).status, 0)
        self.assertEqual(copying.tree_of(lab.at("t"))[0].keys(), copying.tree_of(lab.there("web1", "t"))[0].keys())


if __name__ == "__main__":
    labs.main()
