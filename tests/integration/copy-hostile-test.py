"""A guest with real keys that lies in file transfers (hostile-files.cpp): nothing outside what the caller opened is touched.

usage: copy-hostile-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import stat
import sys
import unittest

import copying
import lab as labs
from copying import random_bytes, write_file

PROGRAMS = labs.Programs(*sys.argv[1:5])
MEMORY_KIB = 32 << 10
# What the guest sends, what `postern cp` ends with, and what of it may be there.
SENDS = {"parent": 1, "dot": 1, "empty": 1, "absolute": 1, "slash": 1, "nul": 1, "newline": 0, "set-id": 3,
         "through-link": 1, "foreign-hard-link": 1, "device": 3, "short-content": 1, "beyond": 1, "not-whole": 1,
         "same-of-nothing": 1, "bad-hash": 1, "announces-a-billion": None, "nested": 1, "endless-entries": 1,
         "endless-file": 1, "leaves-too-often": 1, "twice-totals": 1, "evil-failure": 1, "garbage": 1}
RECEIVES = ("receives-finished", "receives-evil-refusal", "receives-hashes", "receives-huge-base", "receives-failures")


def control_characters(text):
    return sorted({hex(ord(c)) for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160})


class CopyHostileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = copying.CopyLab(PROGRAMS)
        cls.addClassCleanup(cls.lab.close)
        cls.lab.host_policy()
        cls.lab.start_posternd()
        cls.lab.pair("good")
        cls.hostile = labs.Hostile(cls.lab.enroll("evil", grants=None))
        cls.addClassCleanup(cls.hostile.close)
        cls.hostile.does("enrol")

    def setUp(self):
        self.witness = labs.Witness(self.lab, "good")
        self.outside = self.lab.at("outside")
        os.makedirs(self.outside, exist_ok=True)
        write_file(os.path.join(self.outside, "kept"), b"kept")

    def playing(self, trick, *arguments):
        """`postern cp` while the guest plays its trick."""
        self.hostile.begin("file:" + trick, 60_000)
        try:
            self.lab.green("evil")
            return self.lab.run("cp", *arguments, seconds=60)
        finally:
            self.hostile.stop()
            self.hostile.done()

    def look(self, result):
        self.assertGreaterEqual(result.status, 0, f"it was ended by a signal: {result!r}")
        self.assertEqual(control_characters(result.out + result.err), [], repr(result))
        self.assertLess(len(result.err), 64 << 10)
        self.assertEqual(os.listdir(self.outside), ["kept"])
        self.assertFalse(os.path.exists("/tmp/postern-escaped"))
        self.assertLess(labs.memory_kib(self.lab.session_pid("evil"), "VmHWM"), MEMORY_KIB)
        self.witness.look(self)

    def test_a_guest_that_sends_lies(self):
        for trick, status in SENDS.items():
            with self.subTest(trick):
                top = self.lab.at("in-" + trick)
                os.makedirs(os.path.join(top, "d", "t"))
                private = write_file(os.path.join(top, "d", "t", "private"), b"private", 0o600)
                options = ["-a", "--verify"] if trick == "bad-hash" else ["-a"]
                target = os.path.join(top, "d", "new") if trick not in ("through-link", "foreign-hard-link") else os.path.join(
                    top, "d")
                result = self.playing(trick, *options, f"evil:{self.lab.folder}/files-evil/x", target)
                self.look(result)
                if status is not None:
                    self.assertEqual(result.status, status, repr(result))
                self.assertEqual(os.stat(private).st_nlink, 1)
                with open(private) as file:
                    self.assertEqual(file.read(), "private")
                # What came of the endless file before its lie was seen is kept for a resume, which compares it by hashes.
                self.assertLessEqual(len(copying.leftovers(top)), 1 if trick == "endless-file" else 0)
                for folder, _, files in os.walk(top):
                    for name in files:
                        mode = os.lstat(os.path.join(folder, name)).st_mode
                        self.assertTrue(stat.S_ISREG(mode) or stat.S_ISLNK(mode), name)
                        self.assertEqual(mode & 0o7000, 0, name)
        self.witness.end(self)

    def test_a_guest_that_receives_lies(self):
        small = write_file(self.lab.at("small"), b"mine")
        large = write_file(self.lab.at("large"), random_bytes(6 << 20))
        for trick in RECEIVES:
            for source in (small, large):
                with self.subTest(trick, source=source):
                    result = self.playing(trick, source, f"evil:{self.lab.folder}/files-evil/x")
                    self.look(result)
                    self.assertEqual(result.status, 1, repr(result))
        self.witness.end(self)


if __name__ == "__main__":
    labs.main()
