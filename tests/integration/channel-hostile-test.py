"""A guest with its VM's real keys that looks for neighbours, asks without end, or lies as a server (hostile-channels.cpp): it
learns nothing, and costs itself alone.

usage: channel-hostile-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import collections
import os
import re
import socket
import statistics
import struct
import sys
import time
import unittest

import channels
import lab as labs
from channels import allow, connect_to, is_over, is_refused

PROGRAMS = labs.Programs(*sys.argv[1:5])
MEMORY_KIB = 48 << 10
PROBES = 1000
FLOOD = 10_000
CROWD = 3000
# What may be told apart, of a denial's 100 ms.
SPREAD = 0.05
# Whether the program that connects is let in and stays; None: it may be either.
TRICKS = {"never-accepts": None, "never-answers": False, "refuses": False, "refuses-nonsense": False, "throws": False,
          "hangs-up": False, "never-reads": True, "resets-first": False, "resets-at-once": None, "resets-later": None,
          "finishes": True, "finishes-and-reads": True, "pours": True, "crumbles": True, "pours-and-refuses": False}


def control_characters(text):
    return sorted({hex(ord(c)) for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160})


class FloodTest(unittest.TestCase):
    def test_a_flood_of_questions_is_a_line_with_a_count(self):
        lab = channels.ChannelLab(PROGRAMS)
        self.addCleanup(lab.close)
        lab.policy(allow("other", "good", "host", "service.echo"))
        lab.start_posternd()
        lab.vm_of("good").start()
        hostile = labs.Hostile(lab.enroll("evil", grants=None))
        self.addCleanup(hostile.close)
        hostile.does("enrol")
        witness = labs.Witness(lab, "good")
        said, began = len(lab.posternd.said().splitlines()), time.monotonic()
        self.assertEqual(hostile.does(f"channel:flood:{FLOOD}:good:http"), FLOOD)
        took = time.monotonic() - began
        witness.look(self)
        port = lab.board("evil")
        labs.wait_until(lambda: lab.board("evil")["denied"] + lab.board("evil")["refused"] == FLOOD, lambda: port, 5)
        lines = labs.wait_until(lambda: self.all_of(lab.audit()), lambda: lab.audit()[-5:], 15)
        self.assertLessEqual(len(lines), 6, lines)
        self.assertLess(len(lab.posternd.said().splitlines()) - said, 40)
        print(f"{FLOOD} questions in {took:.1f} s, {len(lines)} lines", file=sys.stderr)
        witness.end(self)
        self.assertIn("whole", lab.verify_audit())

    @staticmethod
    def all_of(audit):
        """The lines about the flood, once they stand for all of it."""
        lines = [line for line in audit if line["who"] == "vm:evil"]
        counts = [re.search(r"\((\d+) more\)", line["outcome"]) for line in lines]
        return lines if sum(int(count.group(1)) if count else 1 for count in counts) == FLOOD else None


class ChannelHostileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab = channels.ChannelLab(PROGRAMS)
        cls.addClassCleanup(lab.close)
        cls.echo, cls.down = lab.export("echo"), lab.export("down")
        cls.down.listener.close()
        lab.policy(*channels.ALL_RULES)
        lab.start_posternd()
        cls.good = lab.vm_of("good")
        cls.service = cls.good.export("http")
        cls.good.export("own")
        cls.good.policy += '[[deny]]\nid = "mine"\nfrom = "any"\ncall = "service.own"\n'
        cls.to_evil = cls.good.consume("evil", "trap")
        cls.to_host = cls.good.consume("host", "echo")
        cls.good.start()
        lab.vm_of("blocked").start()
        lab.enroll("off", grants=None)
        lab.good("channel", "block", "blocked")
        cls.hostile = labs.Hostile(lab.enroll("evil", grants="ping"))
        cls.addClassCleanup(cls.hostile.close)
        cls.hostile.does("enrol")

    def setUp(self):
        self.lab.policy(*channels.ALL_RULES)
        self.witness = labs.Witness(self.lab, "good")

    def tearDown(self):
        self.assertIsNone(self.lab.posternd.process.poll(), self.lab.posternd.said()[-2000:])
        self.assertLess(labs.memory_kib(self.lab.posternd.pid, "VmHWM"), MEMORY_KIB)
        self.assertLess(labs.memory_kib(self.lab.session_pid("evil"), "VmHWM"), MEMORY_KIB)
        self.witness.end(self)

    # No discovery -------------------------------------------------------------------------------------------------------

    def probe(self, kinds):
        """Asks for each kind of target in turn; the answers by kind: how long they took, and by question: what they were."""
        folder = os.path.join(self.lab.folder, f"probe-{len(os.listdir(self.lab.folder))}")
        os.mkdir(folder)
        names = sorted(kinds)
        with open(os.path.join(folder, "plan"), "w") as plan:
            for number in range(PROBES):
                # Another place in each round, so that none is always the first to be answered.
                kind = names[(number + number // 32) % len(names)]
                plan.write(f"{kind} {kinds[kind][0]} {kinds[kind][1]}\n")
        self.assertEqual(self.hostile.does(f"channel:probe:{folder}"), PROBES)
        times, answers = collections.defaultdict(list), collections.defaultdict(set)
        with open(os.path.join(folder, "answers")) as lines:
            for line in lines:
                kind, question, nanoseconds, content = line.split()
                times[kind].append(int(nanoseconds))
                answers[question].add(content)
        return times, answers

    def same(self, kinds):
        for attempt in range(3):  # the times alone, should the machine have had something else to do
            times, answers = self.probe(kinds)
            self.assertEqual({len(found) for found in answers.values()}, {1}, "answers differ")
            self.assertEqual(len({len(content) for found in answers.values() for content in found}), 1)
            medians = {kind: statistics.median(taken) / 1e6 for kind, taken in times.items()}
            print({kind: f"{median:.2f} ms" for kind, median in medians.items()}, file=sys.stderr)
            if max(medians.values()) <= min(medians.values()) * (1 + SPREAD):
                break
        self.assertLessEqual(max(medians.values()), min(medians.values()) * (1 + SPREAD), medians)
        self.assertGreaterEqual(min(medians.values()), 99)

    def test_off_is_off_and_nothing_tells_targets_apart(self):
        self.lab.policy(allow("pair", "evil", "good", "service.http"), allow("other", "good", "host", "service.echo"),
                        allow("gap", "evil", "host", "service.nothing"), vm_to_vm=False)
        self.same({"unknown": ("nobody", "http"), "forbidden": ("blocked", "http"), "switched-off": ("good", "http"),
                   "not-exported": ("host", "nothing"), "forbidden-of-host": ("host", "echo"), "itself": ("evil", "http"),
                   "illegal": ("no/name", "http"), "illegal-service": ("good", "../http"), "long": ("n" * 300, "s" * 300)})
        self.assertTrue(self.service.is_quiet(0) and self.echo.is_quiet(0))

    def test_between_vms_no_reason_tells_itself_apart(self):
        self.lab.policy(allow("pair", "evil", ["good", "blocked", "off", "evil"], ["service.http-not", "service.own", "service.x"]),
                        allow("up", "evil", "host", "service.down"), vm_to_vm=True)
        self.same({"unknown": ("nobody", "x"), "forbidden": ("good", "http"), "not-exported": ("good", "http-not"),
                   "denied-by-guest": ("good", "own"), "blocked": ("blocked", "x"), "not-connected": ("off", "x"),
                   "target-down": ("host", "down"), "itself": ("evil", "x")})
        self.assertTrue(self.service.is_quiet(0))

    # Floods ---------------------------------------------------------------------------------------------------------------

    def test_offers_of_channels_that_are_none(self):
        for to, service in (("host", "echo"), ("good", "http"), ("nobody", "x")):
            self.assertGreater(self.hostile.does(f"channel:offers:{to}:{service}"), 0)
        while not self.echo.is_quiet(0.2):
            self.echo.accept().close()
        while not self.service.is_quiet(0.2):
            self.service.accept().close()
        self.assertTrue(labs.is_alive(self.lab.session_pid("evil")))

    def test_a_crowd_of_channels_takes_no_place_from_others(self):
        self.hostile.begin(f"channel:crowd:{CROWD}:host:echo", 30_000)
        held, deadline = [], time.monotonic() + 30
        while time.monotonic() < deadline and not self.echo.is_quiet(2 if held else 10):
            held.append(self.echo.accept())
            if len(held) >= 900:  # of this process's own descriptors
                held.pop(0).close()
        self.witness.look(self)
        with connect_to(self.to_host) as near, self.echo.accept() as far:
            near.sendall(b"x")
            self.assertEqual(far.recv(1), b"x")
        self.lab.good("status", "good")
        self.hostile.stop()
        print(f"{self.hostile.done()} channels of {CROWD}", file=sys.stderr)
        for connection in held:
            connection.close()
        self.lab.wait_board("evil", active=0, seconds=10)

    # Sockets that linger ---------------------------------------------------------------------------------------------------

    def lingering(self):
        """A TCP socket whose last close waits for a minute, since its other end is full."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            made = socket.create_connection(listener.getsockname())
            peer = listener.accept()[0]
        self.addCleanup(peer.close)
        made.setblocking(False)
        try:
            while True:
                made.send(bytes(1 << 16))
        except BlockingIOError:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
        return made

    def pass_lingering(self, to):
        """In two messages, the second with more than anyone takes. Each is the receiver's alone, or was refused."""
        for count in (1, 3):
            made = [self.lingering() for _ in range(count)]
            try:
                socket.send_fds(to, [b"x"], [one.fileno() for one in made])
            except PermissionError:  # Linux 6.16: the receiver takes none
                for one in made:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            for one in made:
                one.close()

    def test_sockets_that_linger_hold_up_nobody_to_whom_they_are_passed(self):
        began = time.monotonic()
        for address in (self.to_host, "unix:" + self.lab.control_socket):
            with connect_to(address) as near:
                self.pass_lingering(near)
                self.witness.look(self)
        self.echo.accept().close()
        with connect_to(self.to_host) as near, self.echo.accept() as far:
            near.sendall(b"x")
            self.pass_lingering(near)
            self.pass_lingering(far)
            self.witness.look(self)
        with self.lab.begin("connect", "good", "http") as program, self.service.accept() as far:
            self.pass_lingering(far)  # by a program that serves
            self.assertEqual(self.lab.good("ping", "good", "-c", "1")["count"], 1)
            program.terminate()
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(self.lab.good("ping", "good", "-c", "1")["count"], 1)
        self.lab.wait_board("good", active=0, seconds=10)

    # Lies of a server -------------------------------------------------------------------------------------------------------

    def test_a_server_that_lies_costs_its_own_channels(self):
        for trick, opens in TRICKS.items():
            with self.subTest(trick):
                sessions = self.lab.vm("evil")["sessions"]
                self.hostile.begin("channel:" + trick, 60_000)
                try:
                    labs.wait_until(lambda: self.lab.vm("evil")["sessions"] > sessions + 1, "its session", 15)
                    self.lab.green("evil", 15)
                    self.once(trick, opens)
                finally:
                    self.hostile.stop()
                    self.hostile.done()
                self.witness.look(self)
        self.lab.wait_board("good", active=0, seconds=10)

    def once(self, trick, opens):
        """One program of the host and one of a guest connect; no program hangs once it is told to stop."""
        program = self.lab.begin("connect", "evil", "trap")
        with connect_to(self.to_evil) as near:
            if opens:
                self.assertFalse(is_over(near, 0.3) and not trick.startswith("finishes"), trick)
            if opens is False:
                self.assertTrue(is_over(near, 10), trick)
                self.assertNotEqual(program.wait(15), 0)
        if program.poll() is None:
            program.terminate()
        out, err = program.communicate(timeout=10)
        self.assertEqual(control_characters(err.decode(errors="replace")), [], err)
        self.assertLess(len(err), 64 << 10)
        listed = self.lab.run("services", "evil")
        self.assertEqual(control_characters(listed.out + listed.err), [], repr(listed)[:2000])
        self.assertLess(len(listed.out), 64 << 10)
        if trick != "pours" and trick != "crumbles":
            self.assertEqual(out, b"")


if __name__ == "__main__":
    labs.main()
