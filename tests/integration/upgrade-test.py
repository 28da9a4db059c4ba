"""An upgrade: a posternd that finds session processes of another build replaces them one by one, while they are idle.

usage: upgrade-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
# The head of the note that the linker writes, before the 20 bytes of the build's id (elf(5)).
BUILD_ID = re.compile(rb"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0(.{20})", re.DOTALL)
# One VM every two seconds, and a guest that connects again.
REPLACED_WITHIN = 15
# Silence of 8 s, and 5 s to answer.
HUNG_WITHIN = 25


def other_build(program, to):
    """A copy that does the same and is of another build."""
    with open(program, "rb") as file:
        content = bytearray(file.read())
    found = BUILD_ID.search(content)
    content[found.start(1)] ^= 0xFF
    with open(to, "wb") as file:
        file.write(content)
    os.chmod(to, 0o755)


class UpgradeTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        # Installed where an upgrade can replace it.
        self.program = self.lab.path("postern-session")
        shutil.copy(os.path.join(os.path.dirname(PROGRAMS.posternd), "postern-session"), self.program)
        self.lab.write("etc/postern/postern.toml", f'session-program = "{self.program}"\n')
        self.lab.start_posternd()

    def install(self, put):
        """As dpkg does: another file by the same name, and posternd started again."""
        put(self.program + ".new")
        os.rename(self.program + ".new", self.program)
        self.assertEqual(self.lab.posternd.end(signal.SIGTERM), 0)
        self.lab.start_posternd()

    def upgrade(self):
        self.install(lambda to: other_build(self.program, to))

    def ping_for_ever(self, name):
        ping = subprocess.Popen(self.lab.command("ping", name, "-i", "0.2", "-c", "0"), stdout=subprocess.PIPE, text=True)
        self.addCleanup(ping.stdout.close)
        self.addCleanup(ping.wait)
        self.addCleanup(ping.kill)
        self.assertIn("ping 1", ping.stdout.readline())
        return ping

    def replaced(self, name, old, seconds=REPLACED_WITHIN):
        labs.wait_until(lambda: self.lab.vm(name)["sessionPid"] not in (0, old), f"{name} keeps the old process", seconds)

    def test_sessions_are_replaced_one_by_one_and_one_that_is_in_use_when_it_is_idle(self):
        names = ("web1", "web2", "web3")
        for name in names:
            self.lab.pair(name)
        old = {name: self.lab.session_pid(name) for name in names}
        ping = self.ping_for_ever("web2")
        self.upgrade()
        for name in ("web1", "web3"):
            self.replaced(name, old[name])
            self.assertFalse(labs.is_alive(old[name]))
            self.lab.green(name)
            kinds = self.lab.event_kinds(name)
            self.assertIn("session-replaced", kinds)
            # Nobody died, and no guest has gone.
            self.assertFalse({"session-gone", "goodbye", "red"} & set(kinds), kinds)
        times = sorted(event["time"] for event in self.lab.events() if event["kind"] == "session-replaced")
        self.assertEqual(len(times), 2)
        self.assertNotEqual(times[0][:19], times[1][:19], "both in the same second")
        self.assertEqual(self.lab.session_pid("web2"), old["web2"])
        self.assertIsNone(ping.poll())
        ping.kill()
        self.replaced("web2", old["web2"])
        self.lab.green("web2")
        self.lab.verify_audit()

    def test_a_posternd_of_the_same_build_leaves_them_be_and_its_own_too(self):
        self.lab.pair("web1")
        self.upgrade()
        labs.wait_until(lambda: "session-replaced" in self.lab.event_kinds("web1"), "it is replaced", REPLACED_WITHIN)
        self.lab.green("web1")
        # The same bytes in another file, as a package that is installed again.
        self.install(lambda to: shutil.copy(self.program, to))
        self.lab.green("web1")
        witness = labs.Witness(self.lab, "web1")
        time.sleep(5)
        witness.end(self)

    def test_one_that_hangs_when_it_is_asked_has_died_and_so_has_one_that_is_killed_behind_it(self):
        self.lab.pair("web1")
        old = self.lab.session_pid("web1")
        self.upgrade()
        self.lab.posternd.wait_for("session-outdated")
        self.lab.kill_pid(old, signal.SIGSTOP)
        self.replaced("web1", old, HUNG_WITHIN)
        self.lab.green("web1")
        fresh = self.lab.session_pid("web1")
        self.lab.kill_pid(fresh)
        self.replaced("web1", fresh)
        kinds = self.lab.event_kinds("web1")
        self.assertEqual((kinds.count("session-gone"), kinds.count("session-replaced")), (2, 0), kinds)

    def test_a_build_that_does_not_work_costs_one_vm(self):
        self.lab.pair("web1")
        self.lab.pair("web2")
        old = {name: self.lab.session_pid(name) for name in ("web1", "web2")}
        self.install(lambda to: shutil.copy("/bin/false", to))
        self.lab.wait_colour("web1", "red", 30)
        witness = labs.Witness(self.lab, "web2")
        time.sleep(5)
        witness.end(self)
        self.assertEqual(self.lab.session_pid("web2"), old["web2"])


if __name__ == "__main__":
    labs.main()
