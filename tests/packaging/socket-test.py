"""posternd with a control socket that a service manager passes (sd_listen_fds(3)).

usage: socket-test.py HOST-PROGRAMS-FOLDER AGENT [unittest arguments]
"""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
import lab as labs  # noqa: E402

# The descriptors of the leading arguments become 3, 4, ...; LISTEN_PID is the program's own.
PASS = """
import os, sys
numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
high = [os.dup2(number, 40 + i) for i, number in enumerate(numbers)]
for i, number in enumerate(high):
    os.dup2(number, 3 + i)
os.closerange(3 + len(high), 64)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)))
os.execv(sys.argv[1 + len(high)], sys.argv[1 + len(high):])
"""
PROGRAMS = labs.Programs(sys.argv[1], sys.argv[2], None, None)


class SocketTest(unittest.TestCase):
    def setUp(self):
        self.lab = labs.Lab(PROGRAMS)
        self.addCleanup(self.lab.close)
        os.makedirs(self.lab.path("run/postern"))

    def listen(self, path, kind=socket.SOCK_STREAM):
        listening = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(listening.close)
        listening.bind(path)
        if kind == socket.SOCK_STREAM:
            listening.listen()
        return listening

    def start(self, *sockets):
        """posternd as a service manager starts it."""
        numbers = [given.fileno() for given in sockets]
        command = [sys.executable, "-c", PASS, *map(str, numbers), PROGRAMS.posternd, "--root", self.lab.root]
        self.lab.posternd = self.lab.start("posternd", command, pass_fds=numbers)
        return self.lab.posternd

    def test_callers_wait_through_a_restart_and_the_socket_stays(self):
        listening = self.listen(self.lab.control_socket)
        inode = os.stat(self.lab.control_socket).st_ino
        # Nobody is there yet: this caller waits.
        early = subprocess.Popen(self.lab.command("--json", "vm", "list"), stdout=subprocess.PIPE, text=True)
        self.start(listening)
        out, _ = early.communicate(timeout=labs.PATIENCE)
        self.assertEqual(early.returncode, 0, out)
        self.lab.pair("web1")
        session = self.lab.session_pid("web1")

        self.assertEqual(self.lab.posternd.end(signal.SIGTERM), 0)
        self.assertEqual(os.stat(self.lab.control_socket).st_ino, inode)
        between = subprocess.Popen(self.lab.command("--json", "vm", "list"), stdout=subprocess.PIPE, text=True)
        self.start(listening)
        out, _ = between.communicate(timeout=labs.PATIENCE)
        self.assertEqual(between.returncode, 0, out)
        self.assertEqual(self.lab.session_pid("web1"), session)
        self.lab.green("web1")
        # Children have no part of it.
        with open(f"/proc/{session}/environ", "rb") as file:
            self.assertNotIn(b"LISTEN_FDS", file.read())

        self.assertEqual(self.lab.posternd.end(signal.SIGINT), 0)
        self.assertTrue(os.path.exists(self.lab.control_socket))

    def refuses(self, *sockets):
        posternd = self.start(*sockets)
        self.assertEqual(posternd.process.wait(labs.PATIENCE), 1, posternd.said())
        self.assertIn("start-failed", posternd.said())
        return posternd.said()

    def test_what_is_no_control_socket_is_refused(self):
        elsewhere = self.listen(os.path.join(self.lab.folder, "other.sock"))
        self.assertIn("no listening socket at", self.refuses(elsewhere))
        self.assertIn("no listening socket at", self.refuses(self.listen(self.lab.control_socket, socket.SOCK_DGRAM)))
        os.unlink(self.lab.control_socket)
        right = self.listen(self.lab.control_socket)
        self.assertIn("passed 2 descriptors", self.refuses(right, elsewhere))
        with open("/dev/null") as null:
            self.assertIn("no listening socket at", self.refuses(null))

    def test_another_processs_descriptors_are_not_taken(self):
        environment = {**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"}
        posternd = self.lab.start("posternd", [PROGRAMS.posternd, "--root", self.lab.root], env=environment)
        labs.wait_until(self.lab.answers, posternd.said)
        self.assertEqual(posternd.end(signal.SIGINT), 0)
        self.assertFalse(os.path.exists(self.lab.control_socket))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
