"""postern-libvirt with the driver that libvirt has for tests, which needs no libvirtd and has one domain, "test".

usage: libvirt-test.py POSTERN-LIBVIRT [unittest arguments]
"""
import os
import socket
import subprocess
import sys
import tempfile
import unittest

import lab as labs

PROGRAM = sys.argv[1]
IS_ROOT = os.geteuid() == 0
MAX_LINE_BYTES = 512  # host/libvirt/door.h
STRANGERS = (65533, 65534)


class LibvirtTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        self.socket = os.path.join(folder.name, "libvirt.sock")
        self.log = os.path.join(folder.name, "log")
        command = [PROGRAM, "--connect", "test:///default", "serve", "--socket", self.socket]
        with open(self.log, "w") as log:
            program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        labs.wait_until(lambda: '"ready"' in self.said(), self.said)

    def said(self):
        with open(self.log) as log:
            return log.read()

    def ask(self, request):
        with socket.socket(socket.AF_UNIX) as conversation:
            conversation.settimeout(labs.PATIENCE)
            conversation.connect(self.socket)
            conversation.sendall(request + b"\n")
            answer = b""
            while piece := conversation.recv(4096):
                answer += piece
            return answer

    def knock(self, times):
        for _ in range(times):
            with socket.socket(socket.AF_UNIX) as knocking:
                knocking.connect(self.socket)
                knocking.recv(1)

    def knock_as(self, uid, times):
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                self.knock(times)
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_whatever_is_wrong_is_a_printable_line_that_posternd_takes(self):
        for request in (b"nonsense", b"monitor nobody", b"monitor " + b"x" * 480, b"channel " + b"x" * 480,
                        b"channel \x1b[31m\xff", b"channel test"):
            answer = self.ask(request)
            self.assertTrue(answer.startswith(b"ERROR "), answer)
            self.assertEqual(answer.find(b"\n"), len(answer) - 1, answer)
            self.assertLessEqual(len(answer), MAX_LINE_BYTES)
            self.assertTrue(answer[:-1].decode("ascii").isprintable(), answer)

    @unittest.skipUnless(IS_ROOT, "needs other users")
    def test_who_may_not_ask_writes_some_lines_and_then_a_count(self):
        for uid in STRANGERS:
            self.knock_as(uid, 500)
        for uid in STRANGERS:
            self.assertIn(self.said().count(f"uid {uid} is not posternd's"), range(1, 12))
        self.assertTrue(self.ask(b"nonsense").startswith(b"ERROR "))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:], verbosity=2)
