"""Live channels under the host's hand: what is forbidden ends and nothing else does; what has passed is counted and written
down, whoever restarts meanwhile.

usage: channel-cut-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import signal
import socket
import sys
import time
import unittest

import channels
import lab as labs
from channels import ALL_RULES, CUT_SECONDS, allow, connect_to, is_over, is_refused, read_exactly

PROGRAMS = labs.Programs(*sys.argv[1:5])


class Live:
    """A channel that is in use: says whether it still is."""

    def __init__(self, name, near, far):
        self.name, self.near, self.far = name, near, far
        self.there = self.back = 0
        self.use()

    def use(self):
        self.near.sendall(b"there")
        assert read_exactly(self.far, 5) == b"there"
        self.far.sendall(b"and back")
        assert read_exactly(self.near, 8) == b"and back"
        self.there += 5
        self.back += 8

    def close(self):
        self.near.close()
        self.far.close()


class CutTest(unittest.TestCase):
    def setUp(self):
        self.lab = lab = channels.ChannelLab(PROGRAMS)
        self.addCleanup(lab.close)
        self.rules = [allow("people", "host", "any", "service.*"), allow("uplink", "any", "host", "service.*"),
                      allow("to-db", "web1", "db1", "service.*"), allow("to-web", "db1", "web1", "service.*")]
        services = {"backup": lab.export("backup")}
        lab.policy(*self.rules)
        lab.start_posternd()
        self.web, self.db = web, db = lab.vm_of("web1"), lab.vm_of("db1")
        services["http"], services["postgres"] = web.export("http"), db.export("postgres")
        doors = {"web1 to host": (web.consume("host", "backup"), "backup"),
                 "db1 to host": (db.consume("host", "backup"), "backup"),
                 "web1 to db1": (web.consume("db1", "postgres"), "postgres"),
                 "db1 to web1": (db.consume("web1", "http"), "http")}
        web.start()
        db.start()
        doors["host to web1"] = (lab.forward("web1", "http")[1], "http")
        doors["host to db1"] = (lab.forward("db1", "postgres")[1], "postgres")
        self.services, self.doors = services, doors

    def open(self, name):
        address, service = self.doors[name]
        near = connect_to(address)
        live = Live(name, near, self.services[service].accept())
        self.addCleanup(live.close)
        return live

    def open_all(self):
        return {name: self.open(name) for name in self.doors}

    def cuts(self, live, forbidden, deed):
        """The deed ends the forbidden channels soon, and the others go on."""
        deed()
        began = time.monotonic()
        for name in forbidden:
            self.assertTrue(is_over(live[name].near) and is_over(live[name].far), f"{name} goes on")
        self.assertLess(time.monotonic() - began, CUT_SECONDS, forbidden)
        time.sleep(0.15)
        for name, other in live.items():
            if name not in forbidden:
                other.use()
        labs.wait_until(lambda: len(self.lab.live()) == len(live) - len(forbidden), lambda: self.lab.live(), 5)
        for name in forbidden:
            if not name.startswith("host"):
                self.assertTrue(is_refused(self.doors[name][0]), name)

    # Who cuts what ------------------------------------------------------------------------------------------------------

    def test_a_reload_cuts_what_it_forbids_and_nothing_else(self):
        live = self.open_all()
        rest = [rule for rule in self.rules if '"to-db"' not in rule]
        self.cuts(live, ["web1 to db1"], lambda: self.lab.policy(*rest))
        live.pop("web1 to db1")
        deny = allow("no", "host", "db1", "service.*", kind="deny")
        self.cuts(live, ["host to db1"], lambda: self.lab.policy(*rest, deny))

    def test_the_master_switch_cuts_what_is_between_vms_and_nothing_else(self):
        live = self.open_all()
        self.cuts(live, ["web1 to db1", "db1 to web1"], lambda: self.lab.policy(*self.rules, vm_to_vm=False))

    def test_a_blocked_port_has_no_channel_until_it_is_unblocked(self):
        live = self.open_all()
        of_db = [name for name in live if "db1" in name]
        self.cuts(live, of_db, lambda: self.lab.good("channel", "block", "db1"))
        self.assertTrue(self.lab.stats("db1")["blockedByHand"])
        self.assertEqual(self.lab.wait_board("db1", blocked=2, active=0)["blocked"], 2)
        refused = self.lab.run("connect", "db1", "postgres")
        self.assertEqual(refused.status, 3, repr(refused))
        # It is remembered.
        self.lab.posternd.end(signal.SIGTERM)
        self.lab.start_posternd()
        self.lab.green("db1")
        self.assertTrue(is_refused(self.doors["web1 to db1"][0]))
        self.lab.good("channel", "unblock", "db1")
        self.open("web1 to db1").use()

    def test_a_policy_may_block_a_port(self):
        live = self.open_all()
        of_db = [name for name in live if "db1" in name]
        self.cuts(live, of_db, lambda: self.lab.policy(*self.rules, "[port.db1]\nblocked = true\n"))
        self.assertEqual(self.lab.board("db1")["blocked"], 1)

    def test_one_channel_is_closed_by_its_number(self):
        live = self.open_all()
        listed = [channel for channel in self.lab.live() if channel["from"] == "vm:web1" and channel["to"] == "vm:db1"]
        self.assertEqual(len(listed), 1, self.lab.live())
        self.assertEqual((listed[0]["service"], listed[0]["rule"]), ("postgres", "to-db"))
        self.lab.good("channel", "close", str(listed[0]["id"]))
        for end in (live["web1 to db1"].near, live["web1 to db1"].far):
            self.assertTrue(is_over(end))
        for name, other in live.items():
            if name != "web1 to db1":
                other.use()
        labs.wait_until(lambda: len(self.lab.live()) == len(live) - 1, lambda: self.lab.live(), 5)
        for number in (str(listed[0]["id"]), "no-number"):
            again = self.lab.run("channel", "close", number)
            self.assertEqual(again.status, 2, repr(again))
            self.assertIn(number, again.err)

    def test_a_channel_that_is_being_closed_is_none_to_close_again(self):
        live = self.open("web1 to db1")
        number = self.lab.live()[0]["id"]
        sessions = [self.lab.session_pid(name) for name in ("web1", "db1")]
        for pid in sessions:
            self.lab.kill_pid(pid, signal.SIGSTOP)
        first, again = [self.lab.run("channel", "close", str(number)) for _ in range(2)]
        for pid in sessions:
            self.lab.kill_pid(pid, signal.SIGCONT)
        self.assertEqual((first.status, again.status), (0, 2), (first, again))
        self.assertIn(f"there is no channel {number}", again.err)
        self.assertTrue(is_over(live.near) and is_over(live.far))
        self.assertEqual(len(self.lab.audit("channel.cut")), 1)

    def test_a_rule_that_expires_cuts_what_it_allowed_and_nothing_else(self):
        # So that what posternd looks at once a second comes far from the full second, at which rules expire.
        self.lab.posternd.end(signal.SIGTERM)
        time.sleep((0.4 - time.time()) % 1)
        self.lab.start_posternd()
        self.lab.green("web1")
        self.lab.green("db1")
        expires = int(time.time()) + 4
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
        rest = [rule for rule in self.rules if '"to-db"' not in rule]
        self.lab.policy(*rest, allow("to-db", "web1", "db1", "service.*", f"expires = {date}\n"))
        live = {name: self.open(name) for name in ("web1 to db1", "db1 to web1", "web1 to host")}
        time.sleep(expires - 0.2 - time.time())
        late = []

        def expire():
            live["web1 to db1"].use()
            self.assertTrue(is_over(live["web1 to db1"].near, 2))
            late.append(time.time() - expires)

        self.cuts(live, ["web1 to db1"], expire)
        self.assertLess(late[0], 0.5)

    def test_a_removed_vms_channels_go_with_it(self):
        live = self.open_all()
        of_db = [name for name in live if "db1" in name]
        self.lab.good("vm", "remove", "db1")
        for name in of_db:
            self.assertTrue(is_over(live[name].near) and is_over(live[name].far), name)
        for name in live:
            if name not in of_db:
                live[name].use()
        self.assertTrue(is_refused(self.doors["web1 to db1"][0]))

    def test_a_guest_cuts_what_its_own_settings_forbid(self):
        live = self.open_all()
        self.db.policy = channels.AGENT_POLICY.replace('from = "any"', 'from = "other"')
        self.db.reload()
        for end in (live["web1 to db1"].near, live["web1 to db1"].far):
            self.assertTrue(is_over(end, 3))
        # A service that leads elsewhere, and a consumer that is gone.
        self.web.export("http-new")
        self.web.exports["http"] = self.web.exports.pop("http-new")
        self.web.consumers = [text for text in self.web.consumers if "postgres" not in text]
        self.web.reload()
        for name in ("host to web1", "db1 to web1"):
            self.assertTrue(is_over(live[name].near, 3), name)
        for name in ("web1 to host", "db1 to host", "host to db1"):
            live[name].use()
        with self.assertRaises((AssertionError, ConnectionRefusedError, FileNotFoundError)):
            connect_to(self.doors["web1 to db1"][0], seconds=0.3).close()

    # Deaths -------------------------------------------------------------------------------------------------------------

    def test_channels_live_through_the_death_of_posternd(self):
        live = self.open_all()
        numbers = {channel["id"] for channel in self.lab.live()}
        self.lab.posternd.kill()
        for channel in live.values():
            channel.use()
        self.lab.start_posternd()
        self.lab.green("web1")
        self.lab.green("db1")
        for channel in live.values():
            channel.use()
        labs.wait_until(lambda: {channel["id"] for channel in self.lab.live()} == numbers, lambda: self.lab.live(), 5)
        self.cuts(live, ["web1 to db1", "db1 to web1"], lambda: self.lab.policy(*self.rules, vm_to_vm=False))

    def test_a_forward_goes_on_with_the_next_posternd_which_writes_its_channels_down(self):
        name, http = "host to web1", self.services["http"]
        live = [self.open(name)]
        self.lab.posternd.end(signal.SIGTERM)
        labs.wait_until(lambda: self.lab.posternd.said().count("posternd-lost") == 2, "the sessions notice")
        self.assertTrue(is_refused(self.doors[name][0]))
        self.assertTrue(http.is_quiet(), "a channel was opened that nobody has granted")
        self.lab.start_posternd()
        for count in (1, 2):
            live.append(self.open(name))
            labs.wait_until(lambda: len(self.lines("channel.open")) == 1 + count, lambda: self.lab.audit())
        time.sleep(channels.QUIET_SECONDS)
        for channel in live:
            channel.use()
        self.assertEqual({line["channel"] for line in self.lines("channel.open")},
                         {channel["id"] for channel in self.lab.live()})

    def test_the_last_bytes_of_a_channel_that_outlived_posternd_arrive(self):
        live = self.open("web1 to db1")
        self.lab.posternd.kill()
        self.lab.start_posternd()
        self.lab.green("web1")
        self.lab.green("db1")
        live.far.shutdown(socket.SHUT_WR)
        self.assertEqual(live.near.recv(1), b"")
        sending = channels.Sending(live.near, 4 << 20)
        time.sleep(0.5)
        self.assertEqual(channels.Receiving(live.far, rate=4 << 20).digest(), sending.digest())

    def test_a_posternd_that_comes_back_cuts_what_is_forbidden_now(self):
        live = self.open_all()
        self.lab.posternd.kill()
        self.lab.posternd = None
        self.lab.policy(*[rule for rule in self.rules if '"to-db"' not in rule])
        live["web1 to db1"].use()
        self.lab.start_posternd()
        self.assertTrue(is_over(live["web1 to db1"].near, 5) and is_over(live["web1 to db1"].far, 5))
        for name in live:
            if name != "web1 to db1":
                live[name].use()

    def test_a_posternd_that_stood_still_holds_it_against_nobody(self):
        posternd, session = self.lab.posternd.pid, self.lab.session_pid("web1")

        def stands_still(stopped, goes_on, seconds=0.3):
            self.lab.kill_pid(stopped, signal.SIGSTOP)
            self.lab.kill_pid(goes_on, signal.SIGCONT)
            time.sleep(seconds)

        self.lab.kill_pid(posternd, signal.SIGSTOP)
        near = connect_to(self.doors["web1 to host"][0])
        time.sleep(0.3)
        stands_still(session, posternd)  # which asks it whether its limits let the channel in
        stands_still(posternd, session, 2.5)  # which says so
        self.lab.kill_pid(posternd, signal.SIGCONT)
        Live("web1 to host", near, self.services["backup"].accept(5)).close()

    def killed(self, pid, of, fresh):
        live = self.open_all()
        self.lab.kill_pid(pid)
        for name in of:
            self.assertTrue(is_over(live[name].near, 5) and is_over(live[name].far, 5), name)
        for name in live:
            if name not in of:
                live[name].use()
        labs.wait_until(lambda: self.lab.status("db1")["state"] == "green" and fresh(), "db1 is back", 15)

        def comes_through():
            with connect_to(self.doors["web1 to db1"][0]) as near:
                near.settimeout(0.5)
                near.sendall(b"x")
                return not self.services["postgres"].is_quiet(1)

        labs.wait_until(comes_through, "a new channel", 10)
        self.services["postgres"].accept().close()
        self.open("db1 to host").use()

    def test_a_killed_agent_costs_its_channels_and_new_ones_work(self):
        old = self.db.guest.agent_pid()
        self.killed(old, [name for name in self.doors if "db1" in name], lambda: self.db.guest.agent_pid() != old)

    def test_a_killed_session_process_costs_its_channels_and_new_ones_work(self):
        old = self.lab.session_pid("db1")
        self.killed(old, [name for name in self.doors if "db1" in name], lambda: self.lab.vm("db1")["sessionPid"] not in (0, old))

    # What is counted ------------------------------------------------------------------------------------------------------

    def test_counters_are_exact_on_the_board_in_stats_and_in_the_audit(self):
        lab = self.lab
        between, up, down = self.open("web1 to db1"), self.open("web1 to host"), self.open("host to web1")
        between.near.sendall(bytes(100_000))
        read_exactly(between.far, 100_000)
        between.far.sendall(bytes(7))
        read_exactly(between.near, 7)
        expected = {"web1": {"bytesOut": between.there + 100_000 + up.there + down.back,
                             "bytesIn": between.back + 7 + up.back + down.there, "opened": 3, "active": 3},
                    "db1": {"bytesOut": between.back + 7, "bytesIn": between.there + 100_000, "opened": 1, "active": 1}}
        for name, wanted in expected.items():
            lab.wait_board(name, **wanted)
            port = lab.stats(name)
            self.assertEqual((port["opened"], port["active"]), (wanted["opened"], wanted["active"]), port)
            self.assertEqual((port["bytesOut"], port["bytesIn"]), (wanted["bytesOut"], wanted["bytesIn"]), port)
        rules = lab.rules("web1")
        self.assertEqual((rules["to-db"]["bytesThere"], rules["to-db"]["bytesBack"]),
                         (between.there + 100_000, between.back + 7), rules)
        self.assertEqual((rules["uplink"]["bytesThere"], rules["people"]["bytesThere"]), (up.there, down.there), rules)
        for channel in (between, up, down):
            channel.near.shutdown(socket.SHUT_WR)
            channel.far.close()
        for name in expected:
            lab.wait_board(name, active=0, bytesOut=expected[name]["bytesOut"], bytesIn=expected[name]["bytesIn"])
        labs.wait_until(lambda: len(self.lines("channel.close")) >= 3, lambda: lab.audit()[-4:], 5)
        opened, closed = self.lines("channel.open"), self.lines("channel.close")
        self.assertEqual({line["channel"] for line in opened}, {line["channel"] for line in closed})
        line = next(line for line in closed if line["call"] == "service.postgres")
        self.assertEqual((line["bytes-there"], line["bytes-back"]), (between.there + 100_000, between.back + 7), line)
        self.assertEqual((line["who"], line["rule"]), ("vm:web1", "to-db"), line)
        self.assertIn("whole", lab.verify_audit())

    def lines(self, what):
        return [line for line in self.lab.audit() if line["outcome"] == what]

    def test_denials_are_counted_with_the_rule_that_denied_last(self):
        self.lab.policy(*self.rules, allow("no-backup", "web1", "host", "service.backup", kind="deny"))
        for _ in range(3):
            self.assertTrue(is_refused(self.doors["web1 to host"][0]))
        self.assertEqual(self.lab.wait_board("web1", denied=3, lastDenied="no-backup")["opened"], 0)
        self.lab.policy(*self.rules, vm_to_vm=False)
        self.assertTrue(is_refused(self.doors["web1 to db1"][0]))
        self.lab.wait_board("web1", denied=4, lastDenied="vm-to-vm-disabled")

    def test_counters_go_on_over_the_restart_of_a_session(self):
        first = self.open("web1 to db1")
        self.lab.wait_board("db1", bytesIn=first.there, bytesOut=first.back)
        self.lab.kill_pid(self.lab.session_pid("db1"))
        self.assertTrue(is_over(first.near, 5))
        labs.wait_until(lambda: not is_refused(self.doors["db1 to host"][0]) or True, "")
        self.lab.green("db1", 15)
        second = self.open("host to db1")
        self.lab.wait_board("db1", bytesIn=first.there + second.there, bytesOut=first.back + second.back, opened=2, active=1)


if __name__ == "__main__":
    labs.main()
