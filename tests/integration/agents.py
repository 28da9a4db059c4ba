"""The real postern-agent with a real host end over a Unix socket, below a folder of its own; for the tests of the agent.

By the arguments of a test: where the agent is, and host-end.
"""
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import lab as labs

AGENT, HOST_END = sys.argv[1], sys.argv[2]
PATIENCE = 20


class Lines:
    """The lines of a stream, as they come."""

    def __init__(self, stream):
        self.all = []
        self.arrived = queue.Queue()
        self.thread = threading.Thread(target=self.read, args=(stream,), daemon=True)
        self.thread.start()

    def read(self, stream):
        for line in stream:
            self.all.append(line.rstrip("\n"))
            self.arrived.put(line.rstrip("\n"))
        stream.close()
        self.arrived.put(None)

    def wait_for(self, pattern, seconds=PATIENCE):
        """The next line that has not been waited past and matches."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.arrived.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} within {seconds} s; there were:\n" + "\n".join(self.all))
            if line is None:
                self.arrived.put(None)
                raise AssertionError(f"the end, and no line with {pattern!r}; there were:\n" + "\n".join(self.all))
            if re.search(pattern, line):
                return line


class Program:
    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, **options)
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.out.thread.join(PATIENCE)
        self.err.thread.join(PATIENCE)
        return status


class AgentCase(unittest.TestCase):
    """A folder with a guest's root, and the programs that a test starts."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="postern-agent-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.root = os.path.join(self.folder, "root")
        self.socket = os.path.join(self.folder, "socket")
        os.makedirs(os.path.join(self.root, "etc/postern"))
        self.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self.programs = []
        self.addCleanup(self.end_all)

    def end_all(self):
        for program in self.programs:
            if program.process.poll() is None:
                program.end(signal.SIGKILL)
            else:
                program.end()

    def path(self, name):
        return os.path.join(self.root, name)

    def write(self, name, text, mode=0o600):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as file:
            file.write(text)
        os.chmod(self.path(name), mode)

    def start_host(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        host = Program([HOST_END, self.socket])
        self.programs.append(host)
        host.out.wait_for("^listening")
        return host

    def offer(self, host, grants=""):
        host.say("offer " + grants)
        return host.out.wait_for("^bundle ").split(" ", 1)[1]

    def start_agent(self, *arguments, **options):
        command = [AGENT, "--root", self.root, "--connect", "unix:" + self.socket, *arguments]
        agent = Program(command, **options)
        self.programs.append(agent)
        return agent

    def enrolled_pair(self, *arguments):
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host) + "\n")
        agent = self.start_agent(*arguments)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^session 1")
        host.out.wait_for("^heartbeat 1")
        agent.err.wait_for('"event":"enrolled"')
        return host, agent

    def agent_pid(self, agent):
        """Of the process that holds the link: the broker's child that is not a probe."""
        find = lambda: labs.children_with(agent.process.pid, "--agent-process")
        return labs.wait_until(find, "the broker has no agent")[0]

    def wait_gone(self, pid, seconds=PATIENCE):
        labs.wait_until(lambda: not labs.is_alive(pid), f"process {pid} is still there", seconds)

    def join(self, bundle, *arguments):
        return subprocess.run([AGENT, "--root", self.root, "join", *arguments], input=bundle, text=True,
                              capture_output=True, timeout=PATIENCE)
