"""What is shown and kept of it all: the status board, monitors' exit statuses, events, the audit log.

usage: status-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import json
import os
import signal
import stat
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])


class StatusTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.lab.start_posternd()

    def check(self, *names):
        return self.lab.run("status", *names, "--check").status

    def test_monitors_get_0_for_green_1_for_yellow_and_4_for_red_and_gray(self):
        guest = self.lab.pair("web1")
        self.lab.enroll("web2", None, None)
        self.assertEqual(self.check("web1"), 0)
        self.assertEqual(self.check("web2"), 4)
        self.assertEqual(self.lab.status("web2")["state"], "gray")
        self.assertEqual(self.check("web1", "web2"), 4)
        os.kill(guest.agent_pid(), signal.SIGSTOP)
        seen = set()
        labs.wait_until(lambda: seen.add((self.lab.status("web1")["state"], self.check("web1")))
                        or ("red", 4) in seen, lambda: seen, 15, 0.2)
        self.assertIn(("yellow", 1), seen)
        os.kill(guest.agent_pid(), signal.SIGCONT)
        self.lab.green("web1", 15)
        self.assertEqual(self.check("web1"), 0)
        guest.program.end()
        self.lab.wait_colour("web1", "gray")
        self.assertEqual(self.check("web1"), 4)
        self.assertEqual(self.lab.run("status", "--check", "web1", "web7").status, 2)

    def test_the_board_is_for_its_group_and_read_only_and_says_the_same_as_posternd(self):
        self.lab.pair("web1")
        board = self.lab.path("run/postern/board")
        self.assertEqual(stat.S_IMODE(os.stat(board).st_mode), 0o640)
        self.assertGreater(self.lab.sequence("web1"), 0)
        by_board = self.lab.status("web1")
        by_posternd = self.lab.vm("web1")["status"]
        for field in ("state", "reason", "agentVersion"):
            self.assertEqual(by_board[field], by_posternd[field])
        self.assertLess(abs(by_board["uptimeSeconds"] - by_posternd["uptimeSeconds"]), 3)

    def test_status_still_works_when_the_board_is_damaged_or_gone(self):
        self.lab.pair("web1")
        board = self.lab.path("run/postern/board")
        with open(board, "rb") as file:
            content = file.read()
        for damaged in (b"", content[:100], b"\xff" * len(content), content[:4096]):
            os.unlink(board)
            with open(board, "wb") as file:
                file.write(damaged)
            result = self.lab.run("--json", "status", "web1")
            self.assertEqual(result.status, 0, repr(result))
            self.assertEqual(result.json()["vms"][0]["state"], "green")
        os.unlink(board)
        self.assertEqual(self.check("web1"), 0)

    def test_watch_in_a_pipe_tells_changes_and_ends_with_130(self):
        guest = self.lab.pair("web1")
        with subprocess.Popen(self.lab.command("status", "--watch"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as watch:
            try:
                self.assertIn("web1: green", watch.stdout.readline())
                guest.program.end()
                self.assertIn("web1: gray", watch.stdout.readline())
                watch.send_signal(signal.SIGINT)
                self.assertEqual(watch.wait(5), 130)
            finally:
                watch.kill()
                watch.communicate()

    def test_events_follow_a_vm_from_its_enrolment_to_its_removal(self):
        with subprocess.Popen(self.lab.command("--json", "events", "--follow"), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as follower:
            try:
                guest = self.lab.pair("web1")
                guest.program.end()
                self.lab.wait_colour("web1", "gray")
                self.lab.good("vm", "remove", "web1")
                kinds = []
                while "removed" not in kinds:
                    event = json.loads(follower.stdout.readline())
                    if event["vm"] == "web1":
                        kinds.append(event["kind"])
                order = [kinds.index(kind) for kind in ("added", "enrolled", "connected", "green", "goodbye", "gray",
                                                        "removed")]
                self.assertEqual(order, sorted(order), kinds)
            finally:
                follower.kill()
                follower.communicate()
        self.assertEqual(self.lab.run("events", "-n", "5").status, 0)

    # Audit -----------------------------------------------------------------------------------------------------------

    def test_an_altered_dropped_or_moved_audit_line_is_found(self):
        self.lab.pair("web1")
        for _ in range(5):
            self.lab.run("info", "web1")
        self.lab.run("ping", "web1", "-c", "1")
        self.lab.posternd.end(signal.SIGINT)
        log = self.lab.path("var/log/postern/audit.log")
        self.assertEqual(stat.S_IMODE(os.stat(log).st_mode) & 0o037, 0)
        self.lab.verify_audit()
        with open(log) as file:
            lines = file.readlines()
        self.assertGreater(len(lines), 8)
        middle = len(lines) // 2
        forgeries = {
            "altered": lines[:middle] + [lines[middle].replace("root", "rook", 1).replace('"', '"', 1)
                                         if "root" in lines[middle] else lines[middle].replace("web1", "web2", 1)]
            + lines[middle + 1:],
            "dropped": lines[:middle] + lines[middle + 1:],
            "moved": lines[:middle] + [lines[middle + 1], lines[middle]] + lines[middle + 2:],
            "twice": lines[:middle] + [lines[middle]] + lines[middle:],
            "cut in the middle": lines[:middle] + [lines[middle][:40] + "\n"] + lines[middle + 1:],
        }
        for name, forged in forgeries.items():
            self.assertNotEqual(forged, lines, name)
            with open(log, "w") as file:
                file.writelines(forged)
            result = self.lab.run("audit", "verify")
            self.assertEqual(result.status, 1, f"{name}: {result!r}")
            self.assertRegex(result.err + result.out, rf"{middle}|{middle + 1}|{middle + 2}", name)
        with open(log, "w") as file:
            file.writelines(lines)
        self.lab.verify_audit()

    def test_the_audit_chain_goes_on_over_kills_of_posternd(self):
        for _ in range(5):
            self.lab.run("ping", "nobody-knows")
            self.lab.run("--json", "policy", "reload")
            self.lab.posternd.kill()
            self.lab.start_posternd()
        self.lab.verify_audit()
        calls = [line["call"] for line in self.lab.audit_log()]
        self.assertEqual(calls.count("posternd.start"), 6)
        self.assertEqual(calls.count("policy.reload"), 5)

    def test_everything_that_was_decided_is_in_the_audit_log_with_who_and_by_which_rule(self):
        self.lab.pair("web1", grants="ping")
        self.lab.run("ping", "web1", "-c", "3")
        self.lab.run("shutdown", "web1")
        time.sleep(0.3)
        tail = [json.loads(line) for line in self.lab.run("audit", "tail", "-n", "100").out.splitlines()]
        me = tail[1]["who"]
        found = {(line["call"], line["outcome"]): line for line in tail}
        self.assertEqual(found["ping", "allowed"]["rule"], "grant-web1")
        self.assertEqual(found["power.shutdown", "denied"]["who"], me)
        pinged = [line for line in tail if line["call"] == "ping" and "3 of them" in line["outcome"]]
        self.assertEqual([(line["who"], line["vm"]) for line in pinged], [(me, "web1")], tail)


if __name__ == "__main__":
    labs.main()
