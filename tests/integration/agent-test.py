"""The real postern-agent with a real host end over a Unix socket, below a folder of its own.

usage: agent-test.py AGENT HOST-END [unittest arguments]
"""
import contextlib
import json
import os
import pwd
import queue
import re
import resource
import shutil
import signal
import socket
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


class AgentTest(unittest.TestCase):
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

    # Enrolment ------------------------------------------------------------------------------------------------------

    def test_enrols_with_a_bundle_heartbeats_and_says_goodbye(self):
        host, agent = self.enrolled_pair()
        host.out.wait_for("^heartbeat 2")
        self.assertFalse(os.path.exists(self.path("etc/postern/bundle")), "a used bundle is removed")
        self.assertEqual(os.stat(self.path("var/lib/postern-agent/state")).st_mode & 0o777, 0o600)
        self.assertEqual(agent.end(), 0)
        host.out.wait_for("^goodbye 0")
        host.out.wait_for("^session over: closed by the peer .goodbye")

    def test_comes_back_with_its_keys_and_no_bundle(self):
        host, agent = self.enrolled_pair()
        self.assertEqual(agent.end(), 0)
        self.start_agent()
        host.out.wait_for("^session 2")
        self.assertNotIn("enrolled", host.out.all[host.out.all.index("session 1"):])

    def test_every_line_of_its_log_is_json_with_an_event(self):
        _, agent = self.enrolled_pair()
        self.assertEqual(agent.end(), 0)
        for line in agent.err.all:
            entry = json.loads(line)
            self.assertRegex(entry["event"], "^[a-z-]+$")
            self.assertIn(entry["process"], ("broker", "agent"))

    def test_a_bundle_option_is_used_and_left(self):
        host = self.start_host()
        bundle = os.path.join(self.folder, "mine")
        with open(bundle, "w") as file:
            file.write(self.offer(host))
        self.start_agent("--bundle-file", bundle)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^heartbeat 1")
        self.assertTrue(os.path.exists(bundle))

    def test_a_systemd_credential_is_a_bundle(self):
        host = self.start_host()
        credentials = os.path.join(self.folder, "credentials")
        os.mkdir(credentials)
        with open(os.path.join(credentials, "postern.bundle"), "w") as file:
            file.write(self.offer(host))
        self.start_agent(env={**os.environ, "CREDENTIALS_DIRECTORY": credentials})
        host.out.wait_for("^enrolled")

    def test_a_truncated_bundle_is_told_and_the_agent_waits_for_another(self):
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host)[:-5])
        agent = self.start_agent()
        self.assertIn("etc/postern/bundle", agent.err.wait_for("bundle-unusable"))
        agent.err.wait_for("no-bundle")
        self.write("etc/postern/bundle", self.offer(host))
        agent.process.send_signal(signal.SIGHUP)
        host.out.wait_for("^enrolled")

    def test_a_bundle_that_the_host_does_not_know_is_refused_and_a_good_one_helps(self):
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host))
        good = self.offer(host)  # replaces the first offer
        agent = self.start_agent()
        agent.err.wait_for("enrolment-refused")
        self.write("etc/postern/bundle", good)
        agent.process.send_signal(signal.SIGHUP)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^heartbeat")

    def test_grants_of_the_bundle_become_the_policy(self):
        host = self.start_host()
        grants = os.path.join(self.folder, "grants")
        with open(grants, "w") as file:
            file.write('policy = 1\n[[allow]]\nid = "grant"\ncall = ["ping"]\n')
        self.write("etc/postern/bundle", self.offer(host, grants))
        agent = self.start_agent()
        agent.err.wait_for("grants-adopted")
        host.say("ping alice")
        host.out.wait_for("^ping ok")
        self.assertTrue(os.path.exists(self.path("var/lib/postern-agent/grants.toml")))
        self.assertEqual(agent.end(), 0)
        self.start_agent()
        host.out.wait_for("^session 2")
        host.say("ping alice")
        host.out.wait_for("^ping ok")

    def test_grants_do_not_replace_an_administrators_policy(self):
        host = self.start_host()
        grants = os.path.join(self.folder, "grants")
        with open(grants, "w") as file:
            file.write('policy = 1\n[[allow]]\nid = "grant"\ncall = ["ping"]\n')
        self.write("etc/postern/agent.toml", "policy = 1\n")
        self.write("etc/postern/bundle", self.offer(host, grants))
        agent = self.start_agent()
        self.assertIn("not adopted", agent.err.wait_for("bundle-settled.*grants"))
        host.out.wait_for("^session 1")
        host.say("ping alice")
        host.out.wait_for("^ping denied")

    def test_a_new_bundle_rekeys_and_a_refused_one_leaves_the_old_identity(self):
        host, agent = self.enrolled_pair()
        stale = self.offer(host)
        fresh = self.offer(host)
        self.write("etc/postern/bundle", stale)
        agent.process.send_signal(signal.SIGHUP)
        agent.err.wait_for("enrolment-refused")
        host.out.wait_for("^session 2")
        self.write("etc/postern/bundle", fresh)
        agent.process.send_signal(signal.SIGHUP)
        host.out.wait_for("^enrolled")
        host.out.wait_for("^heartbeat")

    # join -----------------------------------------------------------------------------------------------------------

    def join(self, bundle, *arguments):
        return subprocess.run([AGENT, "--root", self.root, "join", *arguments], input=bundle, text=True,
                              capture_output=True, timeout=PATIENCE)

    def test_join_gives_a_bundle_to_a_running_agent(self):
        host = self.start_host()
        agent = self.start_agent()
        agent.err.wait_for("no-bundle")
        done = self.join(self.offer(host))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("enrols now", done.stdout)
        host.out.wait_for("^enrolled")

    def test_join_waits_for_an_agent_that_is_not_there_yet(self):
        host = self.start_host()
        done = self.join(self.offer(host))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.stat(self.path("etc/postern/bundle")).st_mode & 0o777, 0o600)
        self.start_agent()
        host.out.wait_for("^enrolled")

    def test_join_refuses_what_is_no_bundle_and_an_enrolled_guest(self):
        host, agent = self.enrolled_pair()
        refused = self.join("postern-bundle-1:xyz")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("the bundle", refused.stderr)
        bundle = self.offer(host)
        refused = self.join(bundle)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("enrolled already", refused.stderr)
        self.assertIn("--force", refused.stderr)
        self.assertEqual(self.join(bundle, "--force").returncode, 0)
        host.out.wait_for("^enrolled")

    def test_join_with_force_enrols_as_another_vm(self):
        _, agent = self.enrolled_pair()
        agent.end()
        other = self.start_host()  # another VM's
        bundle = self.offer(other)
        agent = self.start_agent()
        agent.err.wait_for("session-refused")
        self.write("etc/postern/bundle", bundle)
        agent.process.send_signal(signal.SIGHUP)
        self.assertIn("is not taken", agent.err.wait_for("bundle-ignored"))
        os.unlink(self.path("etc/postern/bundle"))
        done = self.join(bundle, "--force")
        self.assertEqual(done.returncode, 0, done.stderr)
        other.out.wait_for("^enrolled")

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

    # Healing --------------------------------------------------------------------------------------------------------

    def test_a_killed_agent_is_started_again_within_five_seconds(self):
        host, agent = self.enrolled_pair()
        for session in (2, 3, 4):
            began = time.monotonic()
            os.kill(self.agent_pid(agent), signal.SIGKILL)
            agent.err.wait_for("agent-died.*signal 9")
            host.out.wait_for(f"^session {session}", 5)
            self.assertLess(time.monotonic() - began, 5)

    def test_a_killed_broker_takes_the_agent_along_and_a_new_one_heals(self):
        host, agent = self.enrolled_pair()
        child = self.agent_pid(agent)
        agent.end(signal.SIGKILL)
        self.wait_gone(child, 2)
        self.start_agent()
        host.out.wait_for("^session 2", 5)

    def test_a_cut_link_and_a_restarted_host_heal(self):
        host, agent = self.enrolled_pair()
        host.say("drop")
        host.out.wait_for("^session 2", 5)
        # Away for a while, and back with the same keys: nobody at the socket is not an error of keys.
        agent.process.send_signal(signal.SIGSTOP)
        host.say("drop")
        host.out.wait_for("^did drop")
        agent.process.send_signal(signal.SIGCONT)
        host.out.wait_for("^session 3", 5)

    def test_a_host_that_does_not_answer_heartbeats_is_left_and_found_again(self):
        host, agent = self.enrolled_pair()
        host.say("mute")
        agent.err.wait_for('"event":"disconnected".*heartbeat', 10)
        host.say("answer")
        host.out.wait_for("^session 2", 10)

    def test_a_host_that_refuses_is_asked_less_and_less_and_told_once(self):
        host, agent = self.enrolled_pair()
        host.say("refuse")
        host.out.wait_for("^did refuse")
        host.say("drop")
        agent.err.wait_for("session-refused")
        time.sleep(3)
        refusals = host.out.all.count("refused")
        self.assertGreaterEqual(refusals, 2)
        self.assertLess(refusals, 10)
        self.assertEqual(sum("session-refused" in line for line in agent.err.all), 1)
        host.say("accept")
        host.out.wait_for("^session 2", 10)

    def test_the_host_sets_the_interval(self):
        host, agent = self.enrolled_pair()
        host.say("interval 200")
        agent.err.wait_for("heartbeat-interval.*200 ms")
        before = sum(line.startswith("heartbeat") for line in host.out.all)
        time.sleep(2)
        after = sum(line.startswith("heartbeat") for line in host.out.all)
        self.assertGreaterEqual(after - before, 6)
        self.assertLessEqual(after - before, 14)

    # Configuration --------------------------------------------------------------------------------------------------

    def test_reload_takes_a_good_file_and_keeps_the_old_one_on_errors(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[[allow]]\nid = "p"\ncall = ["ping"]\n')
        host, agent = self.enrolled_pair()
        host.say("ping alice")
        host.out.wait_for("^ping ok")
        for text, complaint in (('policy = 1\n[agent]\nconect = "auto"\n', r"agent\.toml:3: .*conect.*did you mean 'connect'"),
                                ('policy = 1\n[[allow]]\nid = "p"\ncall = ["pin"]\n', r"agent\.toml:\d+: .*pin"),
                                ("policy = \n", r"agent\.toml:1: ")):
            self.write("etc/postern/agent.toml", text)
            agent.process.send_signal(signal.SIGHUP)
            self.assertRegex(agent.err.wait_for("reload-refused"), complaint)
            host.say("ping alice")
            host.out.wait_for("^ping ok")
        self.write("etc/postern/agent.toml", "policy = 1\n")
        agent.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 5
        while True:
            host.say("ping alice")
            if "denied" in host.out.wait_for("^ping (ok|denied)"):
                break
            self.assertLess(time.monotonic(), end, "the reload was not taken")
        self.assertNotIn("session 2", host.out.all, "a reload cuts no link")

    def test_does_not_start_with_a_bad_file(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\nheartbeat = 5\n')
        agent = self.start_agent()
        self.assertRegex(agent.err.wait_for("configuration-refused"), r"agent\.toml:3: .*200 to 60000")
        self.assertEqual(agent.process.wait(PATIENCE), 1)

    def test_check_config_says_what_is_wrong(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\npower = "off"\n')
        command = [AGENT, "--root", self.root, "--check-config"]
        bad = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(bad.returncode, 1)
        self.assertRegex(bad.stderr, r"agent\.toml:3: ")
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\npower = "auto"\n')
        good = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((good.returncode, good.stderr), (0, ""))

    def test_a_missing_user_is_named(self):
        self.write("etc/postern/agent.toml", 'policy = 1\n[agent]\nuser = "no-such-user"\n')
        agent = self.start_agent()
        agent.err.wait_for("there is no user 'no-such-user'")
        self.assertEqual(agent.process.wait(PATIENCE), 1)

    def test_wrong_options_are_usage_errors(self):
        for arguments in (["--nonsense"], ["--connect", "telnet:x"], ["--root", "relative"], ["--connect", "hybrid:/x:1"]):
            done = subprocess.run([AGENT, *arguments], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertTrue(done.stderr, arguments)

    # The machine ----------------------------------------------------------------------------------------------------

    def test_a_second_agent_on_one_root_is_refused(self):
        host, agent = self.enrolled_pair()
        second = self.start_agent()
        self.assertIn(str(agent.process.pid), second.err.wait_for("already-running"))
        self.assertEqual(second.process.wait(PATIENCE), 1)
        host.out.wait_for("^heartbeat")

    def test_a_lock_left_by_a_dead_agent_is_taken_over(self):
        host, agent = self.enrolled_pair()
        agent.end(signal.SIGKILL)
        self.start_agent()
        host.out.wait_for("^session 2", 5)

    def test_an_identity_that_was_copied_to_another_machine_is_not_used(self):
        host, agent = self.enrolled_pair()
        agent.end()
        self.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n")
        agent = self.start_agent()
        self.assertRegex(agent.err.wait_for("identity-unusable"), "another machine.*join --force")
        time.sleep(1)
        self.assertNotIn("session 2", host.out.all)
        self.assertIsNone(agent.process.poll(), "it stays, and waits for a person")
        bundle = self.offer(host)
        self.assertEqual(self.join(bundle, "--force").returncode, 0)
        host.out.wait_for("^enrolled")

    def spoiled(self, spoil, complaint):
        host, agent = self.enrolled_pair()
        agent.end()
        spoil(self.path("var/lib/postern-agent/state"))
        agent = self.start_agent()
        line = agent.err.wait_for("identity-unusable")
        self.assertRegex(line, "var/lib/postern-agent/state: .*" + complaint)
        time.sleep(0.5)
        self.assertNotIn("session 2", host.out.all)
        self.assertEqual(agent.end(), 0)

    def test_a_damaged_state_file_is_told(self):
        def spoil(path):
            with open(path, "r+b") as file:
                file.write(b"x" * 8192)
        self.spoiled(spoil, "damaged.*enrol again")

    def test_a_state_file_that_others_can_read_is_told(self):
        self.spoiled(lambda path: os.chmod(path, 0o640), "chmod 600")

    def test_a_state_file_that_is_a_link_is_told(self):
        def spoil(path):
            os.rename(path, path + ".real")
            os.symlink(path + ".real", path)
        self.spoiled(spoil, "symbolic link")

    def test_a_full_disk_is_told_and_heals(self):
        # A file size limit is how one process's disk is full.
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host))
        agent = self.start_agent(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)))
        self.assertIn("disk full", agent.err.wait_for("identity-unusable|state-file"))
        agent.end()
        self.start_agent()
        host.out.wait_for("^enrolled")

    # The sandbox and what it costs ----------------------------------------------------------------------------------

    def test_the_agent_has_no_rights_and_stays_small(self):
        host, agent = self.enrolled_pair()
        host.out.wait_for("^heartbeat 3")
        with open(f"/proc/{self.agent_pid(agent)}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            if os.geteuid() == 0 or name != "CapBnd":
                self.assertEqual(int(status[name], 16), 0, name)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Seccomp"], "2")
        resident = int(status["VmRSS"].split()[0])
        print(f"agent: {resident} KiB resident, {status['RssAnon'].strip()} of its own")
        self.assertLess(resident, 8192)

    def test_an_idle_agent_wakes_for_its_heartbeats_alone(self):
        host, agent = self.enrolled_pair()
        pid = self.agent_pid(agent)

        def switches():
            with open(f"/proc/{pid}/status") as file:
                return int(re.search(r"^voluntary_ctxt_switches:\t(\d+)", file.read(), re.M).group(1))
        host.out.wait_for("^heartbeat 3")
        before = switches()
        for number in range(4, 10):
            host.out.wait_for(f"^heartbeat {number}")
        each = (switches() - before) / 6
        print(f"agent: {each:.1f} wake-ups a heartbeat")
        # The timer, the answer, and what a Unix socket tells of the peer having read.
        self.assertLessEqual(each, 5)

    def test_tells_systemd_and_pulses_only_while_the_agent_lives(self):
        address = os.path.join(self.folder, "notify")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notify.close)
        notify.bind(address)
        notify.settimeout(PATIENCE)

        def wait_for(text):
            while text not in notify.recv(4096).decode().split("\n"):
                pass
        host = self.start_host()
        self.write("etc/postern/bundle", self.offer(host))
        agent = self.start_agent(env={**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"})
        wait_for("READY=1")
        wait_for("WATCHDOG=1")
        wait_for("WATCHDOG=1")
        agent.process.send_signal(signal.SIGHUP)
        wait_for("RELOADING=1")
        wait_for("READY=1")
        wait_for("WATCHDOG=1")
        pid = self.agent_pid(agent)
        os.kill(pid, signal.SIGSTOP)
        notify.settimeout(1)
        with self.assertRaises(TimeoutError, msg="pulses although the agent hangs"):
            for _ in range(10):
                notify.recv(4096)
        notify.settimeout(PATIENCE)
        os.kill(pid, signal.SIGCONT)
        wait_for("WATCHDOG=1")
        self.assertEqual(agent.end(), 0)
        wait_for("STOPPING=1")

    def test_help_and_version(self):
        for option, text in (("--help", "--connect"), ("--version", "postern-agent ")):
            done = subprocess.run([AGENT, option], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0)
            self.assertIn(text, done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
