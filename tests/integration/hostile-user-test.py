"""A user of the host without rights who floods the control socket: no heartbeat is late, nobody is locked out.

usage: hostile-user-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]

As root the hostile user is `nobody`; otherwise it is the same user as posternd's.
"""
import grp
import os
import pwd
import subprocess
import sys
import time
import unittest

import lab as labs

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
MAX_POSTERND_KIB = 96 << 10
DURING = 3 * (10 if os.environ.get("POSTERN_TEST_FULL") else 1)
PER_USER = 64  # host/daemon/control-server.h
ALTOGETHER = 512

# Another process of another user that connects, holds, and now and then says something. Lines: how many it holds.
HOLDER = r'''
import os, resource, socket, sys, time
path, count, noise, until = sys.argv[1], int(sys.argv[2]), sys.argv[3], time.monotonic() + float(sys.argv[4])
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
bytes_ = {"silent": b"", "half": b"\x00\x00\x00\x00\x05\x00\x00", "garbage": os.urandom(5000),
          "giant": b"\xff\x01\x00\x00" + b"\xff" * 2048, "endless": b"\x00\x00\x00\x00\xff\xff\xff\x0f" + b"A" * 60000}[noise]
held, told = [], False
while time.monotonic() < until:
    while len(held) < count:
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect(path)
            if bytes_: s.send(bytes_)
        except OSError:
            s.close()
            break
        held.append(s)
    if not told:
        print(len(held), flush=True)
        told = True
    alive = []
    for s in held:
        try:
            if s.recv(65536) == b"": s.close(); continue
        except BlockingIOError:
            pass
        except OSError:
            s.close(); continue
        alive.append(s)
    held = alive
    time.sleep(0.005)
'''


class HostileUserTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        if IS_ROOT:
            self.lab.write("etc/postern/postern.toml", f'group = "{grp.getgrgid(NOBODY.pw_gid).gr_name}"\n')
        self.lab.start_posternd()
        self.lab.pair("web1")
        self.witness = labs.Witness(self.lab, "web1")

    def hostile(self, *command, uid=NOBODY.pw_uid):
        if IS_ROOT:
            command = ["setpriv", f"--reuid={uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups", *command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def hold(self, count, noise, seconds, **options):
        holder = self.hostile(sys.executable, "-c", HOLDER, self.lab.control_socket, str(count), noise, str(seconds),
                              **options)
        self.assertTrue(holder.stdout.readline().strip().isdigit())
        return holder

    def look_until(self, end):
        slowest = 0.0
        while True:
            began = time.monotonic()
            self.witness.look(self)
            if IS_ROOT:
                self.lab.good("vm", "list")
                slowest = max(slowest, time.monotonic() - began)
            self.assertIsNone(self.lab.posternd.process.poll(), self.lab.posternd.said()[-2000:])
            self.assertLess(labs.memory_kib(self.lab.posternd.pid), MAX_POSTERND_KIB)
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        self.witness.end(self)
        return slowest

    def settled(self):
        """Nothing of it is left in posternd: descriptors, and rights of others."""
        labs.wait_until(lambda: labs.descriptors_of(self.lab.posternd.pid) < 40,
                        lambda: f"{labs.descriptors_of(self.lab.posternd.pid)} descriptors", 10)
        self.assertEqual(self.lab.good("ping", "web1", "-c", "1")["count"], 1)
        self.lab.verify_audit()

    def test_a_flood_of_calls_of_every_kind_turns_no_heartbeat_yellow(self):
        caller = self.hostile(PROGRAMS.caller, self.lab.control_socket, "8", str(DURING * 1000))
        slowest = self.look_until(time.monotonic() + DURING)
        out, err = caller.communicate(timeout=20)
        self.assertEqual(caller.returncode, 0, err)
        words = out.split()
        print(f"{out.strip()}; root's slowest two calls meanwhile: {slowest:.2f} s", file=sys.stderr)
        self.assertGreater(int(words[1]), 1000)
        if IS_ROOT:
            self.assertEqual([vm["vm"] for vm in self.lab.good("vm", "list")["vms"]], ["web1"])
        self.settled()

    def test_a_storm_of_connections_turns_no_heartbeat_yellow(self):
        for noise in ("silent", "half", "garbage", "giant", "endless"):
            with self.subTest(noise=noise):
                holder = self.hold(5000 if IS_ROOT else PER_USER // 2, noise, DURING / 2)
                self.look_until(time.monotonic() + DURING / 2)
                holder.wait(10)
        self.settled()

    @unittest.skipUnless(IS_ROOT, "needs other users")
    def test_a_user_that_holds_all_connections_it_may_locks_nobody_else_out(self):
        self.hold(PER_USER * 4, "silent", DURING + 2)
        labs.wait_until(lambda: labs.descriptors_of(self.lab.posternd.pid) > PER_USER, "that it holds them")
        self.assertLess(labs.descriptors_of(self.lab.posternd.pid), PER_USER + 60)
        self.look_until(time.monotonic() + 1)
        # Not even of the same rights.
        other = self.lab.run("--json", "vm", "list", user=65533, groups=[NOBODY.pw_gid])
        self.assertEqual(other.status, 0, repr(other))

    @unittest.skipUnless(IS_ROOT, "needs other users")
    def test_users_that_hold_all_connections_together_do_not_lock_root_out(self):
        for i in range(ALTOGETHER // PER_USER + 1):
            self.hold(PER_USER * 2, "silent", DURING + 6, uid=64000 + i)
        labs.wait_until(lambda: labs.descriptors_of(self.lab.posternd.pid) > ALTOGETHER - PER_USER, "that they hold them")
        self.look_until(time.monotonic() + 1)
        self.assertEqual(self.lab.good("ping", "web1", "-c", "1")["count"], 1)


if __name__ == "__main__":
    labs.main()
