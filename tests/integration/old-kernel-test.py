"""Kernels without Landlock and without openat2: posternd, sessions, agent and openers work with less, and say so once.

usage: old-kernel-test.py HOST-PROGRAMS POSTERN-AGENT HOSTILE-GUEST HOSTILE-CALLER WITHOUT-CALLS [unittest arguments]
"""
import json
import os
import subprocess
import sys
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
WITHOUT = sys.argv.pop(5)
LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
OPENAT2 = ("openat2",)


class OldLab(labs.Lab):
    """Whatever it runs, runs on such a kernel."""

    def __init__(self, programs, lacks):
        super().__init__(programs)
        self.prefix = [WITHOUT, *lacks, "--"]

    def start(self, name, command, **options):
        return super().start(name, self.prefix + command, **options)

    def command(self, *arguments, **options):
        return self.prefix + super().command(*arguments, **options)


class OldKernelTest(unittest.TestCase):
    def begin(self, lacks):
        self.lab = OldLab(PROGRAMS, lacks)
        self.addCleanup(self.lab.close)
        self.lab.start_posternd()
        self.there = os.path.join(self.lab.folder, "there")
        os.makedirs(self.there)
        guest = self.lab.enroll("web1", None, f"ping,info,file:{self.there}:run-as=root")
        guest.start()
        self.lab.green("web1")
        return guest

    def all_works(self):
        self.lab.good("ping", "-c", "2", "web1")
        self.lab.good("info", "web1")
        here = os.path.join(self.lab.folder, "here")
        os.makedirs(os.path.join(here, "d/e"))
        content = os.urandom(3 << 20)
        with open(os.path.join(here, "d/e/file"), "wb") as file:
            file.write(content)
        os.symlink("/etc/passwd", os.path.join(here, "d/link"))
        self.lab.good("cp", "-r", here + "/.", f"web1:{self.there}")
        with open(os.path.join(self.there, "d/e/file"), "rb") as file:
            self.assertEqual(file.read(), content)
        back = os.path.join(self.lab.folder, "back")
        self.lab.good("cp", "-r", f"web1:{self.there}", back)
        with open(os.path.join(back, "d/e/file"), "rb") as file:
            self.assertEqual(file.read(), content)
        # No link is followed, in either case.
        refused = self.lab.run("cp", f"web1:{self.there}/d/link/x", back)
        self.assertNotEqual(refused.status, 0, refused)

    def kernel_line(self, guest):
        command = self.lab.prefix + [PROGRAMS.agent, "--root", guest.root, "--connect", guest.connect, "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=labs.PATIENCE)
        documents = (json.loads(done.stdout), self.lab.good("doctor"))
        return [check for document in documents for check in document["checks"] if check["check"] == "kernel"]

    @unittest.skipUnless(os.geteuid() == 0, "needs root: copies as root")
    def test_without_landlock_all_works_and_each_process_says_so_once(self):
        guest = self.begin(LANDLOCK)
        self.all_works()
        self.assertEqual(guest.program.said().count("no-landlock"), 1, guest.program.said())
        self.assertEqual(self.lab.posternd.said().count("no-landlock"), 1, self.lab.posternd.said())
        for check in self.kernel_line(guest):
            self.assertEqual(check["grade"], "warning")
            self.assertRegex(check["text"], "works with less: .*no Landlock")

    @unittest.skipUnless(os.geteuid() == 0, "needs root: copies as root")
    def test_without_openat2_all_works(self):
        guest = self.begin(OPENAT2)
        self.all_works()
        for check in self.kernel_line(guest):
            self.assertEqual(check["grade"], "warning")
            self.assertRegex(check["text"], "works with less: .*no openat2")

    def test_with_both_the_doctors_find_nothing_lacking(self):
        guest = self.begin(())
        self.assertEqual([check["grade"] for check in self.kernel_line(guest)], ["ok", "ok"])


if __name__ == "__main__":
    labs.main()
