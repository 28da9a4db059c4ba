"""What the real postern-agent does for its host and its guest: files, services and consumers.

usage: agent-work-test.py AGENT HOST-END [unittest arguments]
"""
import contextlib
import json
import os
import pwd
import re
import signal
import socket
import sys
import threading
import time
import unittest

import lab as labs
from agents import AgentCase, PATIENCE


class AgentWorkTest(AgentCase):
    # Files ----------------------------------------------------------------------------------------------------------

    def allow_files(self, folder):
        """A policy for `folder`, as whom this test runs."""
        os.mkdir(folder)
        run_as = 'run-as = "root"' if os.geteuid() == 0 else ""
        self.write("etc/postern/agent.toml", f'''policy = 1
[[allow]]
id = "files"
call = ["file.*"]
args = {{ path = ["{folder}", "{folder}/**"] }}
{run_as}
''')

    def openers(self, agent):
        return labs.children_with(agent.process.pid, "--opener")

    def test_files_go_into_the_guest_and_back(self):
        inside, source, back = (os.path.join(self.folder, name) for name in ("inside", "source", "back"))
        self.allow_files(inside)
        os.mkdir(back)
        os.makedirs(os.path.join(source, "tree/deep"))
        contents = {f"tree/{i}": os.urandom(i * 211) for i in range(300)}
        contents["tree/deep/large"] = os.urandom(24 << 20)
        for name, content in contents.items():
            with open(os.path.join(source, name), "wb") as file:
                file.write(content)
        host, agent = self.enrolled_pair()
        pid = self.agent_pid(agent)
        for _ in range(2):  # the second finds everything there
            host.say(f"put {source} tree {inside}")
            self.assertEqual(host.out.wait_for("^cop"), "copied 301 files, 0 failures")
        host.say(f"get {inside}/tree {back}")
        self.assertEqual(host.out.wait_for("^cop"), "copied 301 files, 0 failures")
        for name, content in contents.items():
            for place in (inside, back):
                with open(os.path.join(place, name), "rb") as file:
                    self.assertEqual(file.read(), content, name)
        host.say(f"put {source} tree /etc")
        self.assertIn("no rule", host.out.wait_for("^copy failed"))
        self.assertEqual(self.agent_pid(agent), pid, "the agent died of it")
        with open(f"/proc/{pid}/status") as file:
            peak = int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))
        self.assertLess(peak, 32 << 10, "KiB of the agent at its largest")
        end = time.monotonic() + PATIENCE
        while self.openers(agent) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(self.openers(agent), [])
        self.assertEqual(agent.end(), 0)
        for line in agent.err.all:
            self.assertRegex(json.loads(line)["event"], "^[a-z-]+$")

    def test_a_killed_agent_takes_its_openers_along_and_copies_again(self):
        inside, source = (os.path.join(self.folder, name) for name in ("inside", "source"))
        self.allow_files(inside)
        os.makedirs(source)
        with open(os.path.join(source, "large"), "wb") as file:
            file.truncate(2 << 30)
            file.seek(1 << 29)
            for _ in range(64):
                file.write(os.urandom(1 << 20))
        host, agent = self.enrolled_pair()
        host.say(f"put {source} large {inside}")
        end = time.monotonic() + PATIENCE
        while not self.openers(agent) and time.monotonic() < end:
            time.sleep(0.005)
        opener = self.openers(agent)[0]
        os.kill(self.agent_pid(agent), signal.SIGKILL)
        # By its channel, or by the call that ordered it, when that was not answered yet.
        host.out.wait_for("^(copy failed|failed)")
        self.wait_gone(opener)
        self.assertNotIn("large", os.listdir(inside))
        host.out.wait_for("^session 2")
        os.truncate(os.path.join(source, "large"), 1 << 20)
        host.say(f"put {source} large {inside}")
        self.assertEqual(host.out.wait_for("^cop"), "copied 1 files, 0 failures")
        self.assertEqual(os.path.getsize(os.path.join(inside, "large")), 1 << 20)

    # Channels -------------------------------------------------------------------------------------------------------

    def configure(self, services, rules='[[allow]]\nid = "s"\nfrom = "user:alice"\ncall = ["service.*"]\n'):
        self.write("etc/postern/agent.toml", f"policy = 1\n{rules}{services}")

    def echo_target(self):
        """A TCP port that sends back what it gets."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.addCleanup(listening.close)

        def serve(connection):
            with connection, contextlib.suppress(ConnectionError):
                while data := connection.recv(65536):
                    connection.sendall(data)

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return "tcp:127.0.0.1:%d" % listening.getsockname()[1]

    def reload(self, agent, host):
        """Once it is in force in both processes."""
        agent.process.send_signal(signal.SIGHUP)
        agent.err.wait_for('"event":"reload"')
        time.sleep(0.5)

    def consume(self, path, data=b"ping"):
        """What a program gets back; empty if it is cut."""
        with socket.socket(socket.AF_UNIX) as program:
            program.settimeout(PATIENCE)
            program.connect(path)
            try:
                program.sendall(data)
                program.shutdown(socket.SHUT_WR)
                got = b""
                while part := program.recv(65536):
                    got += part
                return got
            except (ConnectionResetError, BrokenPipeError):
                return b""

    def test_services_are_reached_by_who_may_and_a_program_runs_for_each(self):
        user = f'user = "{pwd.getpwuid(os.geteuid()).pw_name}"'
        self.configure(f'''[service.echo]
target = "{self.echo_target()}"
[service.shell]
target = ["/bin/sh", "-c", "read -r line; echo $POSTERN_PEER $POSTERN_SERVICE $line $$"]
{user}
[service.down]
target = "unix:/nonexistent.sock"
{user}
''')
        host, agent = self.enrolled_pair()
        pid = self.agent_pid(agent)
        for number in range(3):
            host.say("connect echo")
            self.assertEqual(host.out.wait_for("^channel"), "channel echo: hello , finished")
            host.say("connect shell")
            said = host.out.wait_for("^channel").split()
            self.assertEqual(said[:5], ["channel", "shell:", "user:alice", "shell", "hello"])
            self.wait_gone(int(said[5].rstrip(",")))
        host.say("connect echo mallory")
        self.assertIn("refused, denied: ", host.out.wait_for("^channel"))
        host.say("connect nothing")
        self.assertIn("refused, unsupported: ", host.out.wait_for("^channel"))
        host.say("connect down")
        self.assertIn("refused, failed: ", host.out.wait_for("^channel"))
        self.assertIn("service.down for user:alice", agent.err.wait_for("service-refused"))
        self.assertEqual(self.agent_pid(agent), pid, "the agent died of it")
        self.assertEqual(agent.end(), 0)

    def test_a_thousand_channels_are_open_and_a_reload_cuts_those_it_forbids(self):
        target = self.echo_target()
        services = f'[service.echo]\ntarget = "{target}"\n[service.other]\ntarget = "{target}"\n'
        self.configure(services)
        host, agent = self.enrolled_pair()
        pid = self.agent_pid(agent)
        host.say("hold other 5")
        host.out.wait_for("^held 5")
        host.say("hold echo 1000")
        host.out.wait_for("^held 1000")
        self.reload(agent, host)
        self.assertNotIn("channel ended", host.out.all)
        self.configure(services, '[[allow]]\nid = "s"\ncall = ["service.other"]\n')
        self.reload(agent, host)
        end = time.monotonic() + PATIENCE
        while host.out.all.count("channel ended") < 1000 and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(host.out.all.count("channel ended"), 1000)
        with open(f"/proc/{pid}/status") as file:
            peak = int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))
        print(f"agent: {peak} KiB at its largest with 1,005 channels")
        self.assertLess(peak, 32 << 10)
        self.assertEqual(self.agent_pid(agent), pid, "the agent died of it")
        host.say("connect other")
        self.assertEqual(host.out.wait_for("^channel other"), "channel other: hello , finished")
        self.assertNotIn("session 2", host.out.all)

    def test_consumers_reach_the_host_or_are_cut(self):
        listen = os.path.join(self.folder, "db.sock")
        consume = f'[[consume]]\nlisten = "unix:{listen}"\nfrom = "db1"\nservice = "postgres"\nmode = "0666"\n'
        self.configure(consume)
        host, agent = self.enrolled_pair()
        pid = self.agent_pid(agent)
        self.assertEqual(os.stat(listen).st_mode & 0o777, 0o666)
        self.assertEqual(self.consume(listen), b"")
        self.assertEqual(host.out.wait_for("^connect"), "connect db1 postgres")
        self.assertIn("denied", agent.err.wait_for("consume-denied"))
        host.say("serve")
        host.out.wait_for("^did serve")
        data = os.urandom(3 << 20)
        self.assertEqual(self.consume(listen, b"small"), b"small")
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(listen)
            writer = threading.Thread(target=lambda: (program.sendall(data), program.shutdown(socket.SHUT_WR)))
            writer.start()
            got = b""
            while part := program.recv(65536):
                got += part
            writer.join()
        self.assertEqual(got, data)
        with socket.socket(socket.AF_UNIX) as stays:
            stays.settimeout(PATIENCE)
            stays.connect(listen)
            stays.sendall(b"x")
            self.assertEqual(stays.recv(1), b"x")
            # One that is new, and one whose address is taken; neither harms the first.
            second = os.path.join(self.folder, "second.sock")
            taken = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(taken.close)
            port = taken.getsockname()[1]
            self.configure(consume + "".join(
                f'[[consume]]\nlisten = "{address}"\nfrom = "host"\nservice = "apt"\n'
                for address in (f"tcp:127.0.0.1:{port}", "unix:" + second)))
            self.reload(agent, host)
            self.assertIn(str(port), [line for line in agent.err.all if "consume-failed" in line][0])
            taken.close()
            agent.err.wait_for(f'"consume".*{port}')
            with socket.create_connection(("127.0.0.1", port)) as program:
                program.settimeout(PATIENCE)
                program.sendall(b"z")
                self.assertEqual(program.recv(1), b"z", "the agent has not got it")
            self.assertEqual(len([line for line in agent.err.all if "consume-failed" in line]), 1)
            stays.sendall(b"y")
            self.assertEqual(stays.recv(1), b"y")
            self.assertEqual(self.consume(second), b"ping")
            self.assertEqual(self.agent_pid(agent), pid, "the agent died of it")
            # A killed agent leaves the sockets to the next one.
            os.kill(pid, signal.SIGKILL)
            self.assertEqual(stays.recv(1), b"")
        host.out.wait_for("^session 2")
        host.out.wait_for("^heartbeat")  # the agent knows of it, too
        self.assertEqual(self.consume(second), b"ping")
        self.configure(consume)
        self.reload(agent, host)
        self.assertFalse(os.path.exists(second))
        self.assertEqual(self.consume(listen), b"ping")
        self.assertEqual(agent.end(), 0)
        self.assertFalse(os.path.exists(listen))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
