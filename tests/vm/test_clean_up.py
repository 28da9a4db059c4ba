"""However a test ends, no process and no file of its guests is left."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from guestlab import Guest, GuestEnded, SetUpError, basic_initramfs

HERE = pathlib.Path(__file__).parent
GONE_SECONDS = 15

# A test as others write it, up to the point where it is killed.
VICTIM = """
import time
from guestlab import Guest, basic_initramfs
with Guest(basic_initramfs(), wait_for_shell=False) as guest:
    print(guest.pid, flush=True)
    time.sleep(600)
"""


class CleanUp(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory(prefix="clean-"))
        self.enterContext(mock.patch.dict(os.environ, TMPDIR=self.folder, GUESTLAB_TEST=self.folder))

    def test_nothing_is_left_after_success(self):
        with Guest(basic_initramfs(), wait_for_shell=False) as guest:
            self.assertTrue(os.path.exists(f"/proc/{guest.pid}"))
            self.assertEqual(os.listdir(self.folder), [guest.folder.name])
            self.assertEqual(len(self.processes()), 2)  # QEMU and its custodian
        self.assert_nothing_is_left()

    def test_nothing_is_left_after_a_failure_inside_the_block(self):
        with self.assertRaisesRegex(ZeroDivisionError, "by zero"):
            with Guest(basic_initramfs(), wait_for_shell=False):
                1 / 0
        self.assert_nothing_is_left()

    def test_nothing_is_left_after_a_failure_before_qemu_runs(self):
        with self.assertRaises(SetUpError):
            with Guest(basic_initramfs().add_modules("nonsense")):
                self.fail("the guest counts as booted")
        self.assert_nothing_is_left()

    def test_nothing_is_left_after_a_boot_that_misses_its_deadline(self):
        start = time.monotonic()
        with self.assertRaisesRegex(Exception, "waited 0.2 s for 'guestlab: the shell is ready'"):
            with Guest(basic_initramfs(), boot_timeout=0.2):
                self.fail("the guest counts as booted")
        self.assertLess(time.monotonic() - start, 15)
        self.assert_nothing_is_left()

    def test_nothing_is_left_after_sigkill_of_the_test(self):
        victim = self.start_victim()
        victim.kill()
        victim.communicate()
        self.assert_nothing_is_left_soon()

    def test_nothing_is_left_after_sigkill_of_the_test_with_all_its_descendants_and_its_session(self):
        victim = self.start_victim(start_new_session=True)
        for pid in self.descendants(victim.pid):
            os.kill(pid, signal.SIGKILL)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
        self.assert_nothing_is_left_soon()

    def test_nothing_is_left_after_ctrl_c(self):
        victim = self.start_victim(start_new_session=True)
        os.killpg(victim.pid, signal.SIGINT)
        victim.communicate(timeout=30)
        self.assert_nothing_is_left()

    def test_qemu_dies_with_its_custodian_and_the_test_is_told(self):
        with self.assertRaises((GuestEnded, SetUpError)):
            with Guest(basic_initramfs(), wait_for_shell=False) as guest:
                (custodian,) = set(self.processes()) - {guest.pid}
                os.kill(custodian, signal.SIGKILL)
                guest.wait_for("anything", 30)
        self.assert_nothing_is_left()

    def start_victim(self, **options):
        victim = subprocess.Popen(
            [sys.executable, "-B", "-c", VICTIM],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            **options,
        )
        self.addCleanup(victim.kill)
        qemu = int(victim.stdout.readline())
        self.assertIn(qemu, self.processes())
        return victim

    def processes(self):
        """Living processes that inherited this test's mark, without this process and the victim: pid by pid."""
        mark = f"GUESTLAB_TEST={self.folder}".encode()
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                marked = mark in (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # ended meanwhile, or another user's
            if marked and VICTIM.encode() not in command:
                found.append(int(entry.name))
        return found

    def descendants(self, pid):
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children] + [d for child in children for d in self.descendants(child)]

    def assert_nothing_is_left(self):
        self.assertEqual(self.processes(), [])
        self.assertEqual(os.listdir(self.folder), [])

    def assert_nothing_is_left_soon(self):
        deadline = time.monotonic() + GONE_SECONDS
        while (self.processes() or os.listdir(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assert_nothing_is_left()


if __name__ == "__main__":
    unittest.main()
