"""Limits of rules and of ports on channels: they delay, and refuse where they say so; and what a mirror is sent.

usage: channel-limits-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

POSTERN_TEST_FULL=1: rates are measured over 10 s and have to be within 5 %; otherwise over 2 s, within 20 %.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

import channels
import lab as labs
from channels import MIB, allow, connect_to, is_over, is_refused, read_exactly

PROGRAMS = labs.Programs(*sys.argv[1:5])
FULL = os.environ.get("POSTERN_TEST_FULL") == "1"
SECONDS, TOLERANCE = (10, 0.05) if FULL else (2, 0.2)


class Flowing:
    """Bytes as fast as they go, until it is closed; `came` is how many have arrived."""

    def __init__(self, near, far):
        self.near, self.far, self.came = near, far, 0
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.send, self.receive)]
        for thread in self.threads:
            thread.start()

    def send(self):
        try:
            while True:
                self.near.sendall(bytes(MIB))
        except OSError:
            pass

    def receive(self):
        space = bytearray(MIB)
        try:
            while size := self.far.recv_into(space):
                self.came += size
        except OSError:
            pass

    def close(self):
        for end in (self.near, self.far):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(labs.PATIENCE)
        self.near.close()
        self.far.close()


class LimitsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab = channels.ChannelLab(PROGRAMS)
        cls.addClassCleanup(lab.close)
        cls.backup = lab.export("backup")
        lab.policy(*channels.ALL_RULES)
        lab.start_posternd()
        cls.web, cls.db = web, db = lab.vm_of("web1"), lab.vm_of("db1")
        cls.http, cls.postgres = web.export("http"), db.export("postgres")
        cls.to_db, cls.to_host = web.consume("db1", "postgres"), web.consume("host", "backup")
        web.policy += f'[[allow]]\nid = "files"\ncall = "file.*"\nrun-as = "{channels.ME}"\n'
        web.start()
        db.start()
        cls.to_web = lab.forward("web1", "http")[1]
        cls.doors = {"between": (cls.to_db, cls.postgres), "up": (cls.to_host, cls.backup), "down": (cls.to_web, cls.http)}

    def limited(self, limit="", port="", more=""):
        """Every rule with this limit; web1's port with that."""
        more = (f"limit = {{ {limit} }}\n" if limit else "") + more
        rules = [allow("people", "host", "any", "service.*", more), allow("uplink", "any", "host", "service.*", more),
                 allow("between", "any", "any", "service.*", more), allow("files", "host", "any", "file.*")]
        self.lab.policy(*rules, f"[port.web1]\n{port}\n" if port else "")
        self.lab.wait_board("web1", active=0)

    def pair(self, door):
        address, service = self.doors[door]
        service.turn_away()
        near = connect_to(address)
        far = service.accept()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        return near, far

    @staticmethod
    def close(*pairs):
        for pair in pairs:
            for end in pair:
                end.close()

    def flowing(self, door):
        flow = Flowing(*self.pair(door))
        self.addCleanup(flow.close)
        return flow

    def keeps(self, rate, *flows, seconds=SECONDS):
        """All of them together, once what went at the beginning has gone."""
        time.sleep(0.7)
        before, began = sum(flow.came for flow in flows), time.monotonic()
        time.sleep(seconds)
        got = (sum(flow.came for flow in flows) - before) / (time.monotonic() - began)
        self.assertLess(abs(got / rate - 1), TOLERANCE, f"{got / MIB:.2f} MiB/s, not {rate / MIB:.2f}")

    # Rates ------------------------------------------------------------------------------------------------------------

    def test_the_rate_of_a_rule_is_kept_by_all_its_channels_of_a_vm_together(self):
        self.limited('rate = "8 MiB/s", burst = "256 KiB"')
        self.keeps(8 * MIB, self.flowing("between"), self.flowing("between"))

    def test_the_rate_of_a_port_is_kept_by_all_that_passes_it_both_ways(self):
        self.limited(port='rate = "8 MiB/s"\nburst = "256 KiB"')
        flows = [self.flowing("between"), self.flowing("down")]
        near, far = self.pair("up")
        flows.append(Flowing(far, near))  # into the VM
        self.addCleanup(flows[-1].close)
        self.keeps(8 * MIB, *flows)
        self.assertGreater(self.lab.board("web1")["throttledNs"], 0)

    def test_a_burst_goes_at_once_and_at_its_peak(self):
        self.limited('rate = "1 MiB/s", burst = "8 MiB", peak = "16 MiB/s"')
        flow = self.flowing("between")
        time.sleep(1)
        self.assertGreater(flow.came, 6 * MIB)
        self.assertLess(flow.came, 12 * MIB)
        self.keeps(MIB, flow)

    def test_a_reload_changes_the_rate_of_what_is_under_way(self):
        self.limited('rate = "2 MiB/s", burst = "256 KiB"')
        flow = self.flowing("between")
        self.keeps(2 * MIB, flow)
        rules = channels.ALL_RULES[:2] + (allow("between", "any", "any", "service.*",
                                                'limit = { rate = "12 MiB/s", burst = "256 KiB" }\n'),)
        self.lab.policy(*rules)
        self.keeps(12 * MIB, flow)

    def test_files_and_channels_share_the_port(self):
        self.limited(port='rate = "8 MiB/s"\nburst = "256 KiB"')
        source, target = os.path.join(self.lab.folder, "f"), os.path.join(self.lab.folder, "g")
        with open(source, "wb") as file:
            file.write(os.urandom(6 * MIB))
        flow = self.flowing("between")
        time.sleep(0.5)
        before, began = flow.came, time.monotonic()
        self.lab.good("cp", source, f"web1:{target}")
        took = time.monotonic() - began
        got = (flow.came - before + 6 * MIB) / took
        self.assertLess(got, 8 * MIB * 1.3, f"{took} s")
        self.assertGreater(took, 0.9 * 6 / 8)

    # Bounds that refuse -------------------------------------------------------------------------------------------------

    def test_one_more_than_may_be_open_is_refused_and_told_to_the_host_alone(self):
        for where in ("limit", "port"):
            with self.subTest(where):
                self.limited(**{where: "open = 2"})
                held = [self.pair("between"), self.pair("between")]
                refused = self.lab.board("web1")["refused"]
                self.assertTrue(is_refused(self.to_db))
                self.lab.wait_board("web1", refused=refused + 1, active=2)
                self.close(held.pop())
                self.lab.wait_board("web1", active=1)
                held.append(self.pair("between"))
                self.close(*held)
        self.limited("open = 1")
        self.pair("down")
        result = self.lab.run("connect", "web1", "http", text=b"")
        self.assertNotIn(result.status, (0, 3), repr(result))
        self.assertIn("1", result.err)

    def test_more_than_an_hours_calls_are_refused(self):
        self.limited('calls = "3/h"', more="expires = 2091-01-01T00:00:00Z\n")
        for _ in range(3):
            self.close(self.pair("up"))
        self.assertTrue(is_refused(self.to_host))

    def test_a_limit_of_nothing_lets_nothing_through(self):
        for limit in ("open = 0", 'calls = "0/s"', 'rate = "0 B/s"', 'bytes = "0 B"'):
            for where in ("limit", "port"):
                with self.subTest(limit, where=where):
                    self.limited(**{where: limit})
                    for door in ("between", "up"):
                        self.assertTrue(is_refused(self.doors[door][0]), door)
                    self.assertNotEqual(self.lab.run("connect", "web1", "http").status, 0)

    def test_bytes_bound_what_has_come_in_and_was_not_taken(self):
        """Of all channels of the rule together: one whose reader stops holds up the others, until it reads again."""
        self.limited('bytes = "4 KiB"')  # less than any piece: what one channel's reader leaves fills it
        stopped, reader = self.pair("between")
        taken = channels.fill(stopped)
        near, far = self.pair("between")
        receiving, sending = channels.Receiving(far), channels.Sending(near, 4 * MIB)
        time.sleep(0.5)
        self.assertLess(receiving.size, MIB)
        read_exactly(reader, taken)
        self.assertEqual(receiving.digest(), sending.digest())
        self.close((stopped, reader), (near, far))
        self.limited()
        stopped, _ = self.pair("between")
        channels.fill(stopped)
        near, far = self.pair("between")
        receiving, sending = channels.Receiving(far), channels.Sending(near, 4 * MIB)
        self.assertEqual(receiving.digest(), sending.digest())


class Appliance:
    """Reads frames of a mirror, or does not."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "mirror")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o666)
        self.listener.listen(64)
        self.frames, self.reads = [], threading.Event()
        self.reads.set()
        self.serving = threading.Thread(target=self.serve, daemon=True)
        self.serving.start()

    def close(self):
        # Its thread must not be left with the number of a descriptor that becomes another appliance's.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.serving.join(labs.PATIENCE)
        self.listener.close()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.read, args=(connection,), daemon=True).start()

    def read(self, connection):
        with connection:
            try:
                while True:
                    self.reads.wait()
                    size = struct.unpack("<I", read_exactly(connection, 4))[0]
                    body = read_exactly(connection, size)
                    self.frames.append((body[0], struct.unpack("<Q", body[1:9])[0], body[9:]))
            except (AssertionError, OSError):
                pass

    def bytes_of(self, channel, kind):
        return b"".join(payload for number, which, payload in self.frames if (number, which) == (kind, channel))

    def of_kind(self, kind):
        return [(channel, payload) for number, channel, payload in self.frames if number == kind]


class MirrorTest(unittest.TestCase):
    def setUp(self):
        self.lab = lab = channels.ChannelLab(PROGRAMS)
        self.addCleanup(lab.close)
        self.appliance = Appliance(lab.folder)
        self.addCleanup(self.appliance.close)
        self.backup = lab.export("backup")
        lab.start_posternd()
        web, db = lab.vm_of("web1"), lab.vm_of("db1")
        self.http, self.postgres = web.export("http"), db.export("postgres")
        self.to_db, self.to_host = web.consume("db1", "postgres"), web.consume("host", "backup")
        web.start()
        db.start()

    def mirrored(self, copy, path=None):
        more = f'mirror = {{ to = "unix:{path or self.appliance.path}", copy = "{copy}" }}\n'
        self.lab.policy(allow("people", "host", "any", "service.*", more), allow("uplink", "any", "host", "service.*", more),
                        allow("between", "any", "any", "service.*", more))

    def conversations(self):
        """One of each way; what was said there and back."""
        forward = self.lab.forward("web1", "http")[1]
        for address, service in ((self.to_db, self.postgres), (self.to_host, self.backup), (forward, self.http)):
            near = connect_to(address)
            with near, service.accept() as far:
                near.sendall(b"question " + address.encode())
                read_exactly(far, 9 + len(address))
                far.sendall(b"answer")
                read_exactly(near, 6)
                yield "question " + address, "answer"

    def test_records_say_who_what_when_and_how_much(self):
        self.mirrored("meta")
        said = list(self.conversations())
        labs.wait_until(lambda: len(self.appliance.of_kind(3)) == 3, lambda: f"{self.appliance.frames} {self.lab.board('web1')}", 5)
        opened, closed = dict(self.appliance.of_kind(0)), dict(self.appliance.of_kind(3))
        self.assertEqual(opened.keys(), closed.keys())
        self.assertEqual({kind for kind, _, _ in self.appliance.frames}, {0, 3})
        for text in opened.values():
            record = json.loads(text)
            self.assertIn((record["who"], record["to"], record["service"]),
                          [("vm:web1", "vm:db1", "postgres"), ("vm:web1", "host", "backup"),
                           (f"user:{channels.ME}", "vm:web1", "http")])
        self.assertEqual(sorted(json.loads(text)["bytes-there"] for text in closed.values()),
                         sorted(len(there) for there, _ in said))
        explained = self.lab.run("policy", "explain", "--from", "web1", "--to", "db1", "--call", "service.postgres")
        self.assertIn(self.appliance.path, explained.out + explained.err)
        for line in self.lab.audit(outcome="channel.open"):
            self.assertIn(self.appliance.path, line["mirror"])

    def test_a_full_copy_has_every_byte(self):
        self.mirrored("full")
        said = sorted(self.conversations())
        labs.wait_until(lambda: len(self.appliance.of_kind(3)) == 3, lambda: f"{self.appliance.frames} {self.lab.board('web1')}", 5)
        numbers = dict(self.appliance.of_kind(0))
        got = sorted((self.appliance.bytes_of(number, 1).decode(), self.appliance.bytes_of(number, 2).decode())
                     for number in numbers)
        self.assertEqual(got, said)

    def test_an_appliance_that_does_not_read_delays_nothing_and_what_it_missed_is_counted(self):
        self.mirrored("full")
        self.appliance.reads.clear()
        near = connect_to(self.to_db)
        with near, self.postgres.accept() as far:
            began = time.monotonic()
            receiving, sending = channels.Receiving(far), channels.Sending(near, 32 * MIB)
            self.assertEqual(receiving.digest(), sending.digest())
            self.assertLess(time.monotonic() - began, 10)
            labs.wait_until(lambda: self.lab.board("web1")["mirrorDropped"] > 0, lambda: self.lab.board("web1"), 5)
            self.appliance.reads.set()
            labs.wait_until(lambda: self.appliance.frames, "frames", 5)
            time.sleep(0.3)
            far.sendall(b"end")
            read_exactly(near, 3)
        labs.wait_until(lambda: self.appliance.of_kind(4), lambda: [kind for kind, _, _ in self.appliance.frames], 5)
        lost = sum(struct.unpack("<Q", payload[:8])[0] for _, payload in self.appliance.of_kind(4))
        self.lab.wait_board("web1", active=0)
        self.assertEqual(lost, self.lab.board("web1")["mirrorDropped"])

    def test_an_appliance_that_is_not_there_costs_nothing_and_is_counted(self):
        self.mirrored("meta", path=self.lab.folder + "/nothing-here")
        self.assertEqual(len(list(self.conversations())), 3)
        labs.wait_until(lambda: self.lab.board("web1")["mirrorDropped"] > 0, lambda: self.lab.board("web1"), 5)

    def test_what_is_mirrored_is_off_by_default(self):
        self.lab.policy(*channels.ALL_RULES)
        self.assertEqual(len(list(self.conversations())), 3)
        time.sleep(0.3)
        self.assertEqual(self.appliance.frames, [])


if __name__ == "__main__":
    labs.main()
