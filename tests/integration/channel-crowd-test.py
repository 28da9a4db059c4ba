"""A thousand channels: at once, one after the other, and with readers that have stopped.

usage: channel-crowd-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

POSTERN_TEST_FULL=1: 10,000 are opened and closed.
"""
import os
import resource
import sys
import unittest

import channels
import lab as labs
from channels import MIB, connect_to, read_exactly

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
CROWD = 1000
OPENED_AND_CLOSED = 10_000 if os.environ.get("POSTERN_TEST_FULL") == "1" else 1000
WARM_UP = 300
# What a thousand of them may cost a process: 32 MB.
MEMORY_KIB = 32_000_000 >> 10
GROWTH_KIB = 512


class CrowdTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab = channels.ChannelLab(PROGRAMS)
        cls.addClassCleanup(lab.close)
        lab.policy(*channels.HURRIED_RULES)
        lab.start_posternd()
        web, db = lab.vm_of("web1"), lab.vm_of("db1")
        cls.service = db.export("postgres")
        cls.door = web.consume("db1", "postgres")
        web.start()
        db.start()
        # The programs began with what everybody has; this process holds both ends of each channel.
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], 16384), limits[1]))
        cls.pids = {"posternd": lab.posternd.pid}
        for vm in (web, db):
            cls.pids |= {f"session of {vm.name}": lab.session_pid(vm.name), f"agent of {vm.name}": vm.guest.agent_pid(),
                         f"broker of {vm.name}": vm.guest.program.pid}

        cls.idle = {name: labs.memory_kib(pid) for name, pid in cls.pids.items()}

    def setUp(self):
        self.witness = labs.Witness(self.lab, "db1")

    def memory(self):
        return {name: labs.memory_kib(pid) for name, pid in self.pids.items()}

    def cost(self):
        grown = {name: used - self.idle[name] for name, used in self.memory().items()}
        print(f"KiB more: {grown}", file=sys.stderr)
        for name, more in grown.items():
            self.assertLess(more, MEMORY_KIB, name)

    def descriptors(self):
        """A session process is not dumpable: only root sees what it has open."""
        return {name: labs.descriptors_of(pid) for name, pid in self.pids.items() if IS_ROOT or "session" not in name}

    def open(self, count, at_a_time=50):
        pairs = []
        while len(pairs) < count:
            nears = [connect_to(self.door) for _ in range(min(at_a_time, count - len(pairs)))]
            pairs += [(near, self.service.accept()) for near in nears]
        return pairs

    def close(self, pairs):
        for pair in pairs:
            for end in pair:
                end.close()
        self.lab.wait_board("web1", active=0, seconds=20)

    def test_a_thousand_at_once_are_each_its_own(self):
        pairs = self.open(CROWD)
        self.lab.wait_board("web1", active=CROWD)
        self.assertEqual(len(self.lab.live("web1")), CROWD)
        for number, (near, _) in enumerate(pairs):
            near.sendall(b"%6d" % number)
        # Which near end a far one belongs to is what it says.
        for _, far in pairs:
            far.sendall(read_exactly(far, 6))
        for number, (near, _) in enumerate(pairs):
            self.assertEqual(read_exactly(near, 6), b"%6d" % number)
        self.cost()
        self.assertEqual(self.lab.good("ping", "web1", "-c", "1")["count"], 1)
        self.close(pairs)
        self.witness.end(self)

    def test_programs_that_connect_all_at_once_wait_and_none_is_refused(self):
        self.close(self.open(900, at_a_time=900))
        self.witness.end(self)

    def test_what_was_opened_and_closed_leaves_nothing(self):
        def some(count):
            for done in range(0, count, 100):
                pairs = self.open(min(100, count - done))
                # In whatever order their targets were connected to.
                for near, _ in pairs:
                    near.sendall(b"x")
                for _, far in pairs:
                    far.recv(1)
                self.close(pairs)

        some(WARM_UP)
        memory, descriptors = self.memory(), self.descriptors()
        some(OPENED_AND_CLOSED)
        labs.wait_until(lambda: all(now <= descriptors[name] for name, now in self.descriptors().items()),
                        lambda: f"{descriptors} {self.descriptors()}", 10)
        for name, used in self.memory().items():
            self.assertLess(used - memory[name], GROWTH_KIB, f"{name}: {memory} {self.memory()}")
        self.witness.end(self)

    def test_a_thousand_readers_that_stop_cost_little(self):
        pairs = self.open(CROWD)
        taken = [channels.fill(near, 2 * MIB, pause=0) for near, _ in pairs]
        # Once more, for what has moved on meanwhile.
        for number, (near, _) in enumerate(pairs):
            taken[number] += channels.fill(near, 2 * MIB, pause=0.002)
        self.assertGreater(min(taken), 0)
        print(f"{sum(taken) / MIB:.0f} MiB taken", file=sys.stderr)
        self.cost()
        # One that reads is not held up by them.
        with connect_to(self.door) as near, self.service.accept() as far:
            receiving, sending = channels.Receiving(far), channels.Sending(near, 4 * MIB)
            self.assertEqual(receiving.digest(), sending.digest())
        self.assertEqual(self.lab.good("ping", "db1", "-c", "1")["count"], 1)
        self.close(pairs)
        self.witness.end(self)


if __name__ == "__main__":
    labs.main()
