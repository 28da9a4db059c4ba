"""A guest with real keys that means ill (hostile-guest.cpp): it costs itself, and nobody else notices.

usage: hostile-guest-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
MAX_SESSION_KIB = 64 << 10
MAX_POSTERND_KIB = 64 << 10
# How long each deed goes on. POSTERN_TEST_FULL=1: ten times as long.
DEED_MS = 1500 * (10 if os.environ.get("POSTERN_TEST_FULL") else 1)


def control_characters(text):
    return sorted({hex(ord(c)) for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or ord(c) > 0xd7ff
                   or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"})


class HostileGuestTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = labs.Lab(PROGRAMS)
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start_posternd()
        cls.lab.pair("good")
        cls.hostile = labs.Hostile(cls.lab.enroll("evil"))
        cls.addClassCleanup(cls.hostile.close)
        cls.hostile.does("enrol")
        cls.posternd = cls.lab.posternd.pid

    def setUp(self):
        self.witness = labs.Witness(self.lab, "good")
        self.session = self.lab.session_pid("evil")

    def assert_safe(self, result):
        """What the command line printed harms no terminal, and its JSON is JSON."""
        self.assertEqual(control_characters(result.out + result.err), [], repr(result)[:2000])
        self.assertLess(len(result.out) + len(result.err), 2 << 20)

    def look(self):
        """While it goes on, and after: everybody else is well."""
        self.assertIsNone(self.lab.posternd.process.poll(), self.lab.posternd.said()[-2000:])
        self.assertEqual(self.lab.posternd.pid, self.posternd)
        self.witness.look(self)
        if labs.is_alive(self.session):
            self.assertLess(labs.memory_kib(self.session), MAX_SESSION_KIB)
        self.assertLess(labs.memory_kib(self.posternd), MAX_POSTERND_KIB)
        for command in (["status"], ["events", "-n", "50"], ["vm", "show", "evil"], ["vm", "list"]):
            self.assert_safe(self.lab.run(*command))
        self.assert_safe(self.lab.run("--json", "vm", "show", "evil"))
        self.lab.good("status", "evil")

    def during(self, deed, *commands, milliseconds=DEED_MS):
        """Looks while the deed goes on; how often it was done, and how the commands ended."""
        self.hostile.begin(deed, 60_000 if commands else milliseconds)
        end = time.monotonic() + milliseconds / 1000
        results = []
        time.sleep(0.5)
        for command in commands:
            self.lab.green("evil", 15)
            results.append(self.lab.run(*command))
            self.assert_safe(results[-1])
        while time.monotonic() < end:
            self.look()
            time.sleep(0.1)
        if commands:
            self.hostile.stop()
        times = self.hostile.done()
        self.look()
        self.witness.end(self)
        self.lab.verify_audit()
        if labs.is_alive(self.session):
            self.assertLess(labs.memory_kib(self.session, "VmHWM"), MAX_SESSION_KIB, deed)
        self.assertEqual(self.lab.good("ping", "good", "-c", "1")["count"], 1)
        print(f"{deed}: {times} times in {milliseconds} ms", file=sys.stderr)
        return times, results

    def test_floods_of_heartbeats(self):
        times, _ = self.during("heartbeats")
        self.assertGreater(times, 10_000)

    def test_nonsense_in_every_number_and_giant_texts(self):
        times, _ = self.during("nonsense")
        self.assertGreater(times, 5)
        status = self.lab.status("evil")
        self.assertLessEqual(len(status["agentVersion"]), 32)
        self.assertGreaterEqual(status["uptimeSeconds"], 0)

    def test_floods_of_goodbyes(self):
        self.during("goodbyes")

    def test_floods_of_pings(self):
        times, _ = self.during("pings")
        self.assertGreater(times, 5_000)

    def test_bulk_channels_that_nobody_offered(self):
        self.during("bulk")

    def test_bytes_on_the_link_that_are_no_frame(self):
        times, _ = self.during("garbage")
        self.assertGreater(times, 3)
        self.assertIn("lost", self.lab.event_kinds("evil"))

    def test_rpc_messages_in_every_wrong_order(self):
        times, _ = self.during("rpc", milliseconds=2 * DEED_MS)
        self.assertGreater(times, 16)

    def test_calls_that_are_never_finished(self):
        times, _ = self.during("leaks")
        self.assertGreater(times, 1_000)

    def test_methods_and_interfaces_that_are_not_there(self):
        self.during("unknown")

    def test_answers_that_are_not_read(self):
        times, _ = self.during("unread")
        self.assertGreater(times, 1_000)

    def test_connections_of_strangers(self):
        self.during("strangers")

    # Last by name: the host takes it for cloned after that, for a while.
    def test_zz_storms_of_reconnections_with_other_agents_ids_and_counters_that_go_back(self):
        times, _ = self.during("reconnects")
        self.assertGreater(times, 2)
        kinds = self.lab.event_kinds("evil")
        self.assertIn("rollback", kinds)

    # What callers hear from it -----------------------------------------------------------------------------------------

    CALLS = (["ping", "evil", "-c", "1", "--timeout", "1"], ["info", "evil", "--timeout", "1"],
             ["shutdown", "evil", "--timeout", "1"], ["--json", "info", "evil", "--timeout", "1"],
             ["--json", "shutdown", "evil", "--timeout", "1"])

    def each_call(self, mood, statuses):
        _, results = self.during(mood, *self.CALLS, milliseconds=DEED_MS // 2)
        for result in results:
            self.assertIn(result.status, statuses, repr(result)[:2000])
            if "--json" in result.command:
                document = result.json()
                self.assertIsInstance(document, dict)
            elif result.status:
                self.assertTrue(result.err.strip(), repr(result))
        return results

    def test_no_answer_at_all(self):
        self.each_call("silent", (5,))

    def test_giant_answers(self):
        results = self.each_call("giant", (0, 1, 5, 6))
        self.assertEqual(results[0].status, 0, repr(results[0]))

    def test_terminal_sequences_in_refusals(self):
        results = self.each_call("escapes", (1, 3, 6))
        self.assertNotEqual(results[0].status, 0)

    def test_thousands_of_progress_steps(self):
        results = self.each_call("steps", (0, 1, 5, 6))
        for result in results:
            self.assertLess(len(result.out), 100_000)

    def test_hanging_up_in_the_middle_of_a_call(self):
        self.each_call("hangs-up", (1, 4, 5))

    def test_exceptions(self):
        results = self.each_call("throws", (1, 5, 6))
        for result in results:
            self.assertNotIn("exception", result.err + result.out)


if __name__ == "__main__":
    labs.main()
