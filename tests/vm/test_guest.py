"""What a test can do with a running guest, and what it is told when the guest misbehaves."""

import contextlib
import io
import re
import tempfile
import time
import unittest
from unittest import mock

from guestlab import (
    CommandFailed,
    Guest,
    GuestEnded,
    GuestPanicked,
    GuestTimeout,
    QmpError,
    SetUpError,
    basic_initramfs,
)


class OneGuest(unittest.TestCase):
    """These share one guest, since none of them changes it."""

    @classmethod
    def setUpClass(cls):
        recipe = basic_initramfs("virtio_pci", programs=["env"])
        recipe.add_text("/etc/greeting", "hello\n").add_script("cp /etc/greeting /tmp/copied")
        cls.guest = cls.enterClassContext(Guest(recipe))
        print(f"a plain guest under {cls.guest.accelerator}")

    def test_a_command_gives_its_output_byte_for_byte_and_its_status(self):
        result = self.guest.run(r"printf 'two\nlines\twithout an end'; echo error >&2; exit 3", check=False)
        self.assertEqual((result.status, result.output), (3, "two\nlines\twithout an enderror\n"))
        self.assertEqual(self.guest.run("true").output, "")
        self.assertEqual(self.guest.run(r"printf '\n\n'").output, "\n\n")

    def test_quotes_several_lines_and_broken_syntax_stay_inside_the_command(self):
        self.assertEqual(self.guest.run("""for word in 'a b' "c'd"; do\n  echo "$word"\ndone""").output, "a b\nc'd\n")
        self.assertEqual(self.guest.run("echo 'never closed", check=False).status, 2)
        self.assertEqual(self.guest.run("echo still in step").output, "still in step\n")

    def test_a_command_that_reads_finds_no_input(self):
        self.assertEqual(self.guest.run("cat").output, "")

    def test_large_output_arrives_whole(self):
        self.assertEqual(self.guest.run("seq 1 20000").output, "".join(f"{n}\n" for n in range(1, 20001)))

    def test_a_failing_command_is_an_error_that_shows_what_it_printed(self):
        with self.assertRaisesRegex(CommandFailed, "ended with status 1: cat: can't open '/nowhere'") as caught:
            self.guest.run("cat /nowhere")
        self.assertEqual(caught.exception.result.status, 1)

    def test_commands_that_the_terminal_would_change_are_refused(self):
        with self.assertRaises(ValueError):
            self.guest.run("echo " + "x" * 5000)
        with self.assertRaises(ValueError):
            self.guest.run("echo \x03")

    def test_files_scripts_modules_and_dynamic_programs_of_the_recipe_are_there(self):
        self.assertEqual(self.guest.run("cat /tmp/copied").output, "hello\n")
        self.assertIn("virtio_pci", self.guest.run("cat /proc/modules").output)
        self.assertIn("GNU coreutils", self.guest.run("/bin/env --version").output)

    def test_what_is_typed_on_the_console_runs_and_is_waited_for(self):
        before = self.guest.console.position
        self.guest.send("echo typed $((6 * 7))")
        self.assertEqual(self.guest.wait_for(re.compile(r"typed (\d+)"), 10, since=before).group(1), "42")

    def test_a_wait_that_fails_says_for_what_how_long_and_shows_the_console(self):
        self.guest.run("echo the last thing that happened")
        start = time.monotonic()
        with self.assertRaisesRegex(
            GuestTimeout, r"(?s)^guest: waited 0\.5 s for 'godot' on its console\n.*\| the last thing that happened"
        ):
            self.guest.wait_for("godot", 0.5)
        self.assertLess(time.monotonic() - start, 5)

    def test_qmp_executes_commands_reports_refusals_and_waits_for_events(self):
        qmp = self.guest.qmp
        self.assertTrue(qmp.execute("query-status")["running"])
        with self.assertRaisesRegex(QmpError, "QEMU refused no-such-command"):
            qmp.execute("no-such-command")
        qmp.execute("stop")
        qmp.execute("cont")
        qmp.wait_event("RESUME", 10)  # passes over STOP, which stays
        qmp.wait_event("STOP", 10)
        start = time.monotonic()
        with self.assertRaisesRegex(GuestTimeout, r"QMP: waited 0\.3 s for event STOP"):
            qmp.wait_event("STOP", 0.3)
        self.assertLess(time.monotonic() - start, 5)


class EndOfAGuest(unittest.TestCase):
    def test_power_off_ends_qemu_with_status_0_and_later_commands_fail_at_once(self):
        with Guest(basic_initramfs()) as guest:
            self.assertEqual(guest.poweroff(), 0)
            with self.assertRaisesRegex(GuestEnded, r"QEMU ended \(status 0\) while"):
                guest.run("true", timeout=60)

    def test_a_hanging_command_is_given_up_at_its_deadline_and_the_guest_can_be_killed(self):
        with Guest(basic_initramfs()) as guest:
            start = time.monotonic()
            with self.assertRaisesRegex(GuestTimeout, "waited 1 s for the end of command 'echo started; while :"):
                guest.run("echo started; while :; do :; done", timeout=1)
            self.assertIn("started", guest.console_text)
            self.assertEqual(guest.kill(), -9)
            self.assertLess(time.monotonic() - start, 15)

    def test_a_panic_is_reported_with_its_reason_to_whoever_waits(self):
        with Guest(basic_initramfs()) as guest:
            start = time.monotonic()
            guest.send("echo c >/proc/sysrq-trigger")
            with self.assertRaisesRegex(GuestPanicked, r"(?s)kernel panicked.*sysrq triggered crash"):
                guest.wait_for("something else", 60)
            with self.assertRaises(GuestPanicked):
                guest.wait_exit()
            self.assertLess(time.monotonic() - start, 30)

    def test_a_recipe_whose_script_fails_ends_the_boot_at_once(self):
        recipe = basic_initramfs().add_script("echo about to fail\nfalse\necho never printed")
        with self.assertRaisesRegex(GuestEnded, "script ended with status 1") as caught:
            with Guest(recipe):
                self.fail("the guest counts as booted")
        self.assertIn("about to fail", str(caught.exception))
        self.assertNotIn("never printed", str(caught.exception))

    def test_arguments_that_qemu_refuses_are_reported_in_its_words(self):
        with self.assertRaisesRegex(GuestEnded, "(?s)QEMU ended.*QEMU said: .*no-such-device"):
            with Guest(basic_initramfs(), arguments=["-device", "no-such-device"]):
                self.fail("the guest counts as booted")

    def test_a_folder_too_deep_for_unix_sockets_is_one_clear_line(self):
        with tempfile.TemporaryDirectory(prefix="x" * 100) as deep, self.environment(TMPDIR=deep):
            with self.assertRaisesRegex(SetUpError, "too long for a Unix socket; set TMPDIR"):
                with Guest(basic_initramfs()):
                    self.fail("the guest counts as booted")

    def test_leaving_the_block_by_a_failed_assertion_prints_the_console(self):
        errors = io.StringIO()
        with self.assertRaises(AssertionError), contextlib.redirect_stderr(errors):
            verbose = "earlyprintk=ttyS0 ignore_loglevel"
            with Guest(basic_initramfs(), wait_for_shell=False, command_line=verbose) as guest:
                guest.wait_for("ignoring loglevel setting.\n", 60)
                raise AssertionError("something is wrong")
        self.assertRegex(errors.getvalue(), r"(?s)last lines of the guest's console:.*\| .*ignoring loglevel")

    def environment(self, **values):
        return mock.patch.dict("os.environ", values)


if __name__ == "__main__":
    unittest.main()
