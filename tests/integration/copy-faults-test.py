"""File copy when something dies, fills up or changes under it: the old file is there or the new one, and a second try finishes.

usage: copy-faults-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

POSTERN_TEST_FULL=1: 100 kills of each process in place of 20 in all. What mounts something runs only as root.
"""
import os
import random
import signal
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
SIZE = 24 << 20
MEMORY_KIB = 32 << 10
VICTIMS = ("cli", "session", "agent", "broker", "posternd")


class CopyFaultsTest(unittest.TestCase):
    def setUp(self):
        self.lab = copying.CopyLab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.lab.start_posternd()
        self.guest = self.lab.copy_pair("web1")

    def begin(self, *arguments):
        process = subprocess.Popen(self.lab.command("cp", *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, cwd=self.lab.folder)
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.wait(), process.stdout.close(),
                                 process.stderr.close()))
        return process

    def kill(self, victim, copy):
        if victim == "cli":
            copy.kill()
        elif victim == "session":
            self.lab.kill_pid(self.lab.session_pid("web1"))
        elif victim == "agent":
            self.lab.kill_pid(self.guest.agent_pid())
        elif victim == "broker":
            self.guest.program.kill()
        elif victim == "posternd":
            self.lab.posternd.kill()

    def revive(self, victim):
        if victim == "posternd":
            self.lab.start_posternd()
        if victim == "broker":
            self.guest.bundle = None
            self.guest.start()
        self.lab.green("web1", 20)

    def killed_at_a_random_moment(self, victim, dice, direction):
        old, new = random_bytes(SIZE, dice.random()), random_bytes(SIZE, dice.random())
        if direction == "put":
            source, target = write_file(self.lab.at("new"), new), self.lab.there("web1", "f")
            arguments = [source, self.lab.remote("web1", "f")]
        else:
            source, target = write_file(self.lab.there("web1", "new"), new), self.lab.at("f")
            arguments = [self.lab.remote("web1", "new"), target]
        write_file(target, old)
        before = hash_of(target)
        copy = self.begin("--limit", "30 MiB/s", *arguments)
        time.sleep(dice.uniform(0.05, 1.2))
        self.kill(victim, copy)
        copy.wait(60)
        error = copy.stderr.read()
        self.assertIn(hash_of(target), (before, hash_of(source)), f"{victim}, {direction}: neither the old file nor the new")
        if copy.returncode not in (0, -signal.SIGKILL):
            # The kill may have come between the file's new name and the word that it has it: then it is the new one.
            self.assertTrue(error.startswith("postern: "), error)
        self.revive(victim)
        again = self.lab.run("cp", "--resume", "--verify", *arguments, seconds=120)
        self.assertEqual(again.status, 0, f"{victim}, {direction}: {again!r}")
        self.assertEqual(hash_of(target), hash_of(source))
        self.assertEqual(copying.leftovers(self.lab.folder), [])

    def test_whatever_is_killed_at_any_moment_the_old_file_is_whole_and_a_resume_finishes(self):
        seed = random.randrange(1 << 32)
        print(f"(seed {seed}) ", end="", file=sys.stderr)
        dice = random.Random(seed)
        for number in range(100 * len(VICTIMS) if FULL else 20):
            self.killed_at_a_random_moment(VICTIMS[number % len(VICTIMS)], dice, "put" if number % 2 == 0 else "get")
        self.lab.verify_audit()

    def test_a_resume_sends_only_what_lacks(self):
        content = random_bytes(SIZE)
        source = write_file(self.lab.at("f"), content)
        copy = self.begin("--limit", "8 MiB/s", source, self.lab.remote("web1", "f"))
        labs.wait_until(lambda: any(os.path.getsize(path) > 8 << 20 for path in copying.leftovers(self.lab.guest_root("web1"))),
                        "some of it is there")
        copy.send_signal(signal.SIGINT)
        self.assertEqual(copy.wait(10), 130)
        self.assertIn("--resume", copy.stderr.read())
        self.assertFalse(os.path.exists(self.lab.there("web1", "f")))
        done = self.lab.good("cp", "--resume", "--verify", source, self.lab.remote("web1", "f"))
        self.assertLess(done["summary"]["sentBytes"], SIZE - (7 << 20), done)
        self.assertEqual(hash_of(self.lab.there("web1", "f")), hash_of(source))

    def test_a_resume_of_a_source_that_changed_is_not_a_mixture(self):
        source = write_file(self.lab.at("f"), random_bytes(SIZE, 1))
        copy = self.begin("--limit", "8 MiB/s", source, self.lab.remote("web1", "f"))
        labs.wait_until(lambda: any(os.path.getsize(path) > 4 << 20 for path in copying.leftovers(self.lab.guest_root("web1"))),
                        "some of it is there")
        copy.send_signal(signal.SIGINT)
        copy.wait(10)
        write_file(source, random_bytes(SIZE, 2))
        self.lab.good("cp", "--resume", source, self.lab.remote("web1", "f"))
        self.assertEqual(hash_of(self.lab.there("web1", "f")), hash_of(source))

    def test_a_source_that_changes_or_shrinks_while_it_is_copied_is_told_and_the_old_file_stays(self):
        for name, change in (("shrinks", lambda file: file.truncate(5 << 20)),
                             ("changes", lambda file: os.pwrite(file.fileno(), b"changed", SIZE - 100)),
                             ("grows", lambda file: os.pwrite(file.fileno(), b"more", SIZE))):
            with self.subTest(name):
                source = write_file(self.lab.at(name), random_bytes(SIZE))
                write_file(self.lab.there("web1", name), b"old")
                copy = self.begin("--limit", "16 MiB/s", source, self.lab.remote("web1", name))
                time.sleep(0.5)
                with open(source, "r+b") as file:
                    change(file)
                self.assertEqual(copy.wait(60), 1)
                self.assertIn(name, copy.stderr.read())
                with open(self.lab.there("web1", name)) as file:
                    self.assertEqual(file.read(), "old")

    @unittest.skipUnless(IS_ROOT, "needs root, to mount a small file system")
    def test_a_full_disk_on_either_side_is_told_before_or_while_it_fills(self):
        small = os.path.join(self.lab.guest_root("web1"), "small")
        here = self.lab.at("small")
        for folder in (small, here):
            os.mkdir(folder)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "postern-test", folder], check=True)
            self.addCleanup(subprocess.run, ["umount", "-l", folder], check=True)
        source = write_file(self.lab.at("big"), random_bytes(SIZE))
        write_file(self.lab.there("web1", "big"), random_bytes(SIZE))
        for arguments, target in (([source, self.lab.remote("web1", "small", "f")], os.path.join(small, "f")),
                                  ([self.lab.remote("web1", "big"), os.path.join(here, "f")], os.path.join(here, "f"))):
            write_file(target, b"old")
            result = self.lab.run("cp", *arguments)
            self.assertEqual(result.status, 1, repr(result))
            self.assertIn("needs 24 MiB", result.err)
            with open(target) as file:
                self.assertEqual(file.read(), "old")
        # It fills while files are written: somebody else takes the room.
        tree = self.lab.at("tree")
        for number in range(30):
            write_file(os.path.join(tree, f"f{number:02}"), random_bytes(100_000, number))
        copy = self.begin("-r", "--limit", "2 MiB/s", tree, self.lab.remote("web1", "small"))
        time.sleep(0.4)
        with open(os.path.join(small, "filler"), "wb") as filler:
            try:
                filler.write(bytes(8 << 20))
            except OSError:
                pass
        copy.wait(60)
        for name in os.listdir(os.path.join(small, "tree")) if os.path.isdir(os.path.join(small, "tree")) else []:
            self.assertEqual(hash_of(os.path.join(small, "tree", name)), hash_of(os.path.join(tree, name)))
        os.unlink(os.path.join(small, "filler"))
        self.assertEqual(self.lab.run("cp", "-r", "--resume", tree, self.lab.remote("web1", "small")).status, 0)
        self.assertEqual(copying.tree_of(os.path.join(small, "tree"))[0].keys(), copying.tree_of(tree)[0].keys())

    def test_nothing_is_disturbed_by_a_copy_at_full_speed_and_nobody_grows(self):
        self.lab.pair("web2")
        witness = labs.Witness(self.lab, "web2")
        own = labs.Witness(self.lab, "web1")
        source = write_file(self.lab.at("big"), random_bytes(64 << 20) * 4)
        for number in range(3000):
            write_file(self.lab.at("many", f"f{number}"), b"x" * 4096)
        for _ in range(2):
            peak = self.peak_of("cp", source, self.lab.remote("web1", "big"))
            self.assertLess(peak, MEMORY_KIB)
            own.look(self)
        self.assertLess(self.peak_of("cp", "-r", self.lab.at("many"), self.lab.remote("web1")), MEMORY_KIB)
        self.assertLess(self.peak_of("cp", self.lab.remote("web1", "big"), self.lab.at("back")), MEMORY_KIB)
        for name, pid in (("session", self.lab.session_pid("web1")), ("agent", self.guest.agent_pid()),
                          ("broker", self.guest.program.pid)):
            self.assertLess(labs.memory_kib(pid, "VmHWM"), MEMORY_KIB, name)
        own.end(self)
        witness.end(self)

    def peak_of(self, *arguments):
        """The largest memory of a command, KiB, as seen every few milliseconds of its life."""
        process = subprocess.Popen(self.lab.command(*arguments), stdin=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, labs.memory_kib(process.pid, "VmHWM"))
            except (AssertionError, OSError):
                pass  # it has just ended
            time.sleep(0.005)
        self.assertEqual(process.returncode, 0)
        self.assertGreater(peak, 0)
        return peak

    def test_a_reload_that_forbids_a_copy_ends_it_and_one_that_does_not_leaves_it(self):
        source = write_file(self.lab.at("f"), random_bytes(SIZE))
        copy = self.begin("--limit", "8 MiB/s", source, self.lab.remote("web1", "f"))
        labs.wait_until(lambda: copying.leftovers(self.lab.guest_root("web1")), "it has begun")
        self.lab.write("etc/postern/policy.d/20-other.toml",
                       'policy = 1\n[[deny]]\nid = "other"\nfrom = "host"\nto = "any"\ncall = "power.*"\n')
        self.lab.good("policy", "reload")
        time.sleep(0.5)
        self.assertIsNone(copy.poll())
        self.lab.write("etc/postern/policy.d/10-copy.toml", "policy = 1\n")
        self.lab.good("policy", "reload")
        self.assertNotEqual(copy.wait(10), 0)
        self.assertFalse(os.path.exists(self.lab.there("web1", "f")))

    def test_a_copy_outlives_posternd(self):
        source = write_file(self.lab.at("f"), random_bytes(SIZE))
        copy = self.begin("--limit", "12 MiB/s", source, self.lab.remote("web1", "f"))
        labs.wait_until(lambda: copying.leftovers(self.lab.guest_root("web1")), "it has begun")
        self.lab.posternd.kill()
        self.assertEqual(copy.wait(60), 0, copy.stderr.read())
        self.assertEqual(hash_of(self.lab.there("web1", "f")), hash_of(source))


if __name__ == "__main__":
    labs.main()
