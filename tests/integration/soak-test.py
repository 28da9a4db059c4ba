"""The soak: fifty VMs at random work for a while, amid kills and reloads; nothing grows, and nobody undisturbed notices.

usage: soak-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

One posternd; every VM with its session process, broker and agent. Copies in, out and between, with -a, and channels from
host to guest, guest to guest and guest to host, all compared; agents, brokers, session processes and posternd killed;
settings and policy reloaded, ports blocked. A third of the VMs is never killed: theirs is one session from begin to end.
A few of those are busy: they have half of the work.

In rounds, after each of which everything comes to rest and is measured. A process's first quarter of the rounds is its
warm-up. From the quarter behind that to its last one it may grow by no more than the bounds below; the least of each quarter
counts, since malloc takes and gives back. posternd is killed in the first quarter only, so that one and the same process is
measured over the rest.

POSTERN_SOAK_SECONDS (120; with POSTERN_TEST_FULL=1 1200), POSTERN_SOAK_VMS (50), POSTERN_SOAK_SEED (printed): as it says.
"""
import json
import os
import random
import sys
import time
import unittest

import lab as labs
import soaking

PROGRAMS = labs.Programs(*sys.argv[1:5])
FULL = os.environ.get("POSTERN_TEST_FULL") == "1"
SECONDS = int(os.environ.get("POSTERN_SOAK_SECONDS", 1200 if FULL else 120))
VMS = int(os.environ.get("POSTERN_SOAK_VMS", 50))
SEED = os.environ.get("POSTERN_SOAK_SEED") or str(random.randrange(1 << 32))
ROUND_SECONDS = 20 if FULL else 8
WORKERS = 4
BUSY = 4
# The pools of an idle link are given back after a second; what malloc keeps is what the bounds are for.
REST_SECONDS = 2.5
# posternd's: it keeps the last 4,096 events.
GROWTH_KIB = {"posternd": 1024, "session": 1024, "agent": 2048, "broker": 2048}
# One that is not busy may have its first copy or channel after its warm-up: how much more than any busy one it may use.
ABOVE_BUSY_KIB = 1024
# A link that was full once keeps a second descriptor of its socket, to wait for room (transport/fd-pipe.cpp).
MORE_DESCRIPTORS = {"posternd": 0, "session": 1, "agent": 1, "broker": 0}
IS_ROOT = os.geteuid() == 0
# What a VM that nothing happened to is never said to be. A new posternd calls each `yellow` for as long as it knows it.
TROUBLE = ("yellow", "red", "gray", "lost", "connected", "session-gone", "goodbye")
JUST_CONNECTED = "it has just connected"


class Measurements:
    """Memory and descriptors of every process, by what it is and its pid, a line for each round."""

    def __init__(self, lab):
        self.lab, self.series = lab, {}

    def take(self):
        """At rest. Gives the most memory of each kind of process."""
        sessions = self.lab.session_pids()
        time.sleep(REST_SECONDS)
        found = [("posternd", "", self.lab.posternd.pid)]
        for name, vm in self.lab.vms.items():
            found += [("session", name, sessions[name]), ("agent", name, vm.guest.agent_pid()),
                      ("broker", name, vm.guest.program.pid)]
        for process in found:
            self.series.setdefault(process, []).append(self.of(*process))
        return {what: max(self.series[process][-1][0] for process in found if process[0] == what) for what in GROWTH_KIB}

    @staticmethod
    def of(what, _, pid):
        # A session process is not dumpable: only root sees what it has open.
        return labs.memory_kib(pid), labs.descriptors_of(pid) if IS_ROOT or what != "session" else 0

    def grown(self, quarter):
        """(what, VM, pid, KiB, descriptors) more than at first, of each that was there for three quarters."""
        for process, seen in self.series.items():
            if len(seen) >= 3 * quarter:
                first, last = seen[quarter:2 * quarter], seen[-quarter:]
                yield (*process, *(min(now) - min(then) for now, then in zip(zip(*last), zip(*first))))


class SoakTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        print(f"POSTERN_SOAK_SEED={SEED}, {VMS} VMs, {SECONDS} s", file=sys.stderr, flush=True)
        self.lab = soaking.SoakLab(PROGRAMS)
        self.addCleanup(self.lab.close)
        self.names = self.lab.build(VMS)
        self.steady = self.names[::3]
        self.busy = self.steady[:BUSY]
        self.measurements = Measurements(self.lab)
        self.did = {}

    def round(self, number, kills_posternd):
        dice = soaking.dice_of(SEED, number)
        victims = [name for name in self.names if name not in self.steady]
        actors = [soaking.Worker(self.lab, self.names, self.busy, soaking.dice_of(SEED, number, i), i) for i in range(WORKERS)]
        actors.append(soaking.Disturber(self.lab, self.names, dice, victims, kills_posternd))
        for actor in actors:
            actor.start()
        time.sleep(ROUND_SECONDS)
        for actor in actors:
            actor.stop()
        for actor in actors:
            self.assertEqual(actor.failures, [], f"round {number}")
            for what, count in actor.did.items():
                self.did[what] = self.did.get(what, 0) + count

    def rest(self):
        self.lab.all_green()
        labs.wait_until(lambda: self.lab.live() == [], lambda: f"channels live on: {self.lab.live()}", 20, 0.2)

    def troubles(self):
        """What posternd's log has of the steady VMs that it should not have."""
        found, met = [], set()
        for line in self.lab.posternd.said().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            kind, vm = event.get("event"), event.get("vm")
            if kind == "ready":
                met = set()
            if vm not in self.steady or kind not in TROUBLE:
                continue
            if kind == "yellow" and event["text"] == JUST_CONNECTED and vm not in met:
                met.add(vm)
                continue
            found.append(line)
        return found

    def check_steady(self, began):
        for name, (sessions, pid, sequence, at) in began.items():
            vm = self.lab.vm(name)
            self.assertEqual((vm["sessions"], vm["sessionPid"]), (sessions, pid), name)
            passed = int(time.monotonic() - at)
            self.assertGreaterEqual(self.lab.sequence(name), sequence + passed - 2, name)

    def test_fifty_vms_at_work_amid_kills_and_reloads_leave_nothing_behind(self):
        began = {name: (self.lab.vm(name)["sessions"], self.lab.session_pid(name), self.lab.sequence(name), time.monotonic())
                 for name in self.steady}
        skip = len(self.troubles())  # each connected, once
        rounds = max(8, int(SECONDS / (ROUND_SECONDS + REST_SECONDS + 1)))
        for number in range(rounds):
            self.round(number, kills_posternd=number < rounds // 4)
            self.rest()
            most = self.measurements.take()
            self.check_steady(began)
            self.assertEqual(self.troubles()[skip:], [])
            self.lab.verify_audit()
            print(f"round {number + 1} of {rounds}: {self.did}, KiB at most {most}", file=sys.stderr, flush=True)
        self.check_growth(rounds // 4)

    def check_growth(self, quarter):
        grown = list(self.measurements.grown(quarter))
        for what, bound in GROWTH_KIB.items():
            ours = [one for one in grown if one[0] == what]
            busy = [one for one in ours if one[1] in ("", *self.busy)]
            print(f"{what}: {len(busy)} busy grew by {max(one[3] for one in busy)} KiB, all {len(ours)} by "
                  f"{max(one[4] for one in ours)} descriptors at most", file=sys.stderr)
            self.assertEqual([one for one in busy if one[3] >= bound], [])
            self.assertEqual([one for one in ours if one[4] > MORE_DESCRIPTORS[what]], [])
            # A broker that is not busy does other work: it starts its killed agent again.
            if what in ("session", "agent"):
                self.check_others(what)

    def check_others(self, what):
        series = {process: [memory for memory, _ in seen] for process, seen in self.measurements.series.items()
                  if process[0] == what}
        level = max(max(seen) for (_, name, _), seen in series.items() if name in ("", *self.busy))
        self.assertEqual([process for process, seen in series.items() if seen[-1] > level + ABOVE_BUSY_KIB], [])


if __name__ == "__main__":
    labs.main()
