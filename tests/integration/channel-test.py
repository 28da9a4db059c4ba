"""Channels between programs of the host and of VMs: who may, who comes through, what the target is told, what is said to
whom when it does not work.

usage: channel-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

import channels
import lab as labs
from channels import ME, allow, connect_to, is_over, is_refused, read_exactly, read_to_end

PROGRAMS = labs.Programs(*sys.argv[1:5])
IS_ROOT = os.geteuid() == 0
PRINT_WHO = ["/bin/sh", "-c", 'echo "$POSTERN_PEER $POSTERN_SERVICE"']


class DefaultsTest(unittest.TestCase):
    def test_as_installed_no_channel_is_made_and_only_the_host_hears_why(self):
        lab = channels.ChannelLab(PROGRAMS)
        self.addCleanup(lab.close)
        host = lab.export("backup")
        lab.start_posternd()
        web, db = lab.vm_of("web1"), lab.vm_of("db1")
        inside, other = web.export("http"), db.export("postgres")
        doors = [web.consume("host", "backup"), web.consume("db1", "postgres"), web.consume("nobody", "postgres")]
        web.start(grants="ping")
        db.start(grants=None)
        for command in (["connect", "web1", "http"], ["forward", "web1", f"unix:{lab.folder}/f", "http"]):
            result = lab.run(*command)
            self.assertEqual(result.status, 3, repr(result))
            self.assertIn("the host's policy", result.err)
            self.assertIn('call = "service.http"', result.err)
        # A VM that he may not see is none; an administrator sees all.
        self.assertEqual(lab.run("connect", "db1", "postgres").status, 3 if IS_ROOT else 2)
        for door in doors:
            self.assertTrue(is_refused(door), door)
        for service in (host, inside, other):
            self.assertTrue(service.is_quiet(0), service.name)
        denied = {(line["who"], line.get("to", line.get("vm")), line["call"]): line for line in lab.audit(outcome="denied")}
        reasons = {("vm:web1", "host", "service.backup"): "no-rule", ("vm:web1", "vm:db1", "service.postgres"): "vm-to-vm-disabled",
                   ("vm:web1", "vm:nobody", "service.postgres"): "unknown-vm"}
        for asked, reason in reasons.items():
            self.assertEqual(denied[asked]["reason"], reason, denied)
        self.assertIn((f"user:{ME}", "web1", "service.http"), denied)
        self.assertEqual(lab.wait_board("web1", opened=0, active=0)["opened"], 0)
        self.assertGreaterEqual(lab.board("web1")["denied"], 3)
        self.assertEqual(lab.good("ping", "web1", "-c", "1")["count"], 1)


class ChannelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab = channels.ChannelLab(PROGRAMS)
        cls.addClassCleanup(lab.close)
        cls.backup = lab.export("backup")
        cls.backup_tcp = lab.export("backup-tcp", kind="tcp", more='proxy = "v2"')
        lab.export("who", target=PRINT_WHO)
        lab.export("down", target=f"unix:{lab.folder}/nobody-listens")
        lab.policy(*channels.ALL_RULES)
        lab.start_posternd()
        cls.web, cls.db = web, db = lab.vm_of("web1"), lab.vm_of("db1")
        cls.http, cls.tcp = web.export("http"), web.export("http-tcp", kind="tcp")
        cls.proxied = web.export("proxied", more='proxy = "v2"')
        web.export("who", target=PRINT_WHO)
        web.export("cat", target=["/bin/cat"])
        web.export("fails", target=["/bin/sh", "-c", "exit 3"])
        web.export("down", target=f"unix:{lab.folder}/nobody-listens")
        cls.postgres = db.export("postgres")
        db.export("who", target=PRINT_WHO)
        cls.doors = {name: web.consume("host", name) for name in ("backup", "who", "down", "nothing")}
        cls.doors["backup-tcp"] = web.consume("host", "backup-tcp", kind="tcp")
        cls.to_db = {name: web.consume("db1", name) for name in ("postgres", "who", "nothing")}
        cls.to_db_tcp = web.consume("db1", "postgres", kind="tcp")
        cls.to_self = web.consume("web1", "http")
        cls.to_web = db.consume("web1", "proxied")
        web.start()
        db.start()

    def setUp(self):
        # Rules that a test before has left.
        self.lab.policy(*channels.ALL_RULES)

    def talk(self, near, far):
        """One conversation, each direction ended by itself."""
        with near, far:
            near.sendall(b"question")
            self.assertEqual(read_exactly(far, 8), b"question")
            near.shutdown(socket.SHUT_WR)
            self.assertEqual(far.recv(1), b"")
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            self.assertEqual(read_to_end(near), b"answer")

    # Each way -------------------------------------------------------------------------------------------------------

    def test_connect_carries_standard_input_and_output(self):
        for name, service in (("http", self.http), ("http-tcp", self.tcp)):
            with self.subTest(name), self.lab.begin("connect", "web1", name) as program, service.accept() as far:
                program.stdin.write(b"question")
                program.stdin.close()
                self.assertEqual(read_to_end(far), b"question")
                far.sendall(b"answer")
                far.close()
                self.assertEqual(program.stdout.read(), b"answer")
                self.assertEqual(program.wait(labs.PATIENCE), 0, program.stderr.read())

    def test_connect_of_large_input_is_complete(self):
        content = os.urandom(3 << 20)
        done = subprocess.run(self.lab.command("connect", "web1", "cat"), input=content, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout == content, done.stderr), (0, True, b""))

    def test_forward_serves_many_and_leaves_no_socket(self):
        for kind in ("unix", "tcp"):
            program, address = self.lab.forward("web1", "http", kind)
            pairs = []
            for _ in range(5):
                near = connect_to(address)
                pairs.append((near, self.http.accept()))
            for near, far in reversed(pairs):
                self.talk(near, far)
            near = connect_to(address)
            with self.http.accept() as far:
                self.assertIn(program.end(signal.SIGINT), (0, 130), program.said())
                self.assertTrue(is_over(far, 5))
            near.close()
            if kind == "unix":
                self.assertFalse(os.path.exists(address[5:]))

    def test_guest_to_host_by_unix_and_tcp(self):
        near = connect_to(self.doors["backup"])
        self.talk(near, self.backup.accept())

    def test_guest_to_guest(self):
        for address in (self.to_db["postgres"], self.to_db_tcp):
            near = connect_to(address)
            self.talk(near, self.postgres.accept())

    def test_services_are_what_both_policies_grant(self):
        listed = self.lab.good("services", "web1")["services"]
        self.assertEqual([entry["service"] if isinstance(entry, dict) else entry for entry in listed],
                         sorted(self.web.exports))
        self.lab.policy(allow("one", "host", "web1", ["service.http", "service.who"]))
        self.assertIn("http", self.lab.run("services", "web1").out)
        self.assertNotIn("cat", self.lab.run("services", "web1").out)
        self.lab.policy()
        self.assertEqual(self.lab.run("services", "web1").status, 3)

    # What a target is told ------------------------------------------------------------------------------------------

    def test_a_program_has_the_peers_proven_name_in_its_environment(self):
        done = subprocess.run(self.lab.command("connect", "web1", "who"), input=b"", capture_output=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, f"user:{ME} who\n"), done.stderr)
        for address in (self.doors["who"], self.to_db["who"]):
            with connect_to(address) as near:
                self.assertEqual(read_to_end(near), b"vm:web1 who\n")

    def test_a_program_that_fails_ends_its_channel(self):
        done = subprocess.run(self.lab.command("connect", "web1", "fails"), input=b"", capture_output=True, timeout=30)
        self.assertEqual(done.stdout, b"")

    def proxy_header(self, connection):
        head = read_exactly(connection, 16)
        self.assertEqual(head[:14], b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x00]))
        body = read_exactly(connection, struct.unpack("!H", head[14:])[0])
        found = {}
        while body:
            kind, size = struct.unpack_from("!BH", body)
            found[kind] = body[3:3 + size].decode()
            body = body[3 + size:]
        return found

    def test_proxy_headers_say_who_and_what(self):
        with connect_to(self.to_web) as near, self.proxied.accept() as far:
            self.assertEqual(self.proxy_header(far), {0xE0: "vm:db1", 0xE1: "proxied"})
            near.sendall(b"x")
            self.assertEqual(far.recv(10), b"x")
        with connect_to(self.doors["backup-tcp"]) as near, self.backup_tcp.accept() as far:
            self.assertEqual(self.proxy_header(far), {0xE0: "vm:web1", 0xE1: "backup-tcp"})
        with self.lab.begin("connect", "web1", "proxied") as program, self.proxied.accept() as far:
            self.assertEqual(self.proxy_header(far), {0xE0: f"user:{ME}", 0xE1: "proxied"})
            far.close()
            program.stdin.close()
            program.wait(labs.PATIENCE)

    # Rules between VMs ------------------------------------------------------------------------------------------------

    def test_between_vms_the_master_switch_the_rule_and_the_guest_have_each_to_agree(self):
        between = allow("pair", "web1", "db1", "service.postgres")
        self.lab.policy(between, vm_to_vm=False)
        self.assertTrue(is_refused(self.to_db["postgres"]))
        explained = self.lab.run("policy", "explain", "--from", "web1", "--to", "db1", "--call", "service.postgres")
        self.assertIn("vm-to-vm", explained.out + explained.err)
        self.lab.policy(allow("pair", "db1", "web1", "service.postgres"))
        self.assertTrue(is_refused(self.to_db["postgres"]))
        self.lab.policy(between)
        self.db.policy = channels.AGENT_POLICY.replace('from = "any"', 'from = "other"')
        self.db.reload()
        self.assertTrue(is_refused(self.to_db["postgres"]))
        self.assertTrue(self.postgres.is_quiet())
        self.db.policy = channels.AGENT_POLICY
        self.db.reload()
        near = connect_to(self.to_db["postgres"])
        self.talk(near, self.postgres.accept())

    def test_a_segment_decides_by_membership(self):
        for members, passes in (('promiscuous = "web1"\nisolated = ["db1"]', True),
                                ('promiscuous = "other"\nisolated = ["web1", "db1"]', False),
                                ('community = { a = ["web1", "db1"] }', True),
                                ('community = { a = ["web1", "other"], b = ["db1", "another"] }', False)):
            self.lab.policy(f'[[segment]]\nid = "net"\ncall = "service.postgres"\n{members}\n')
            if passes:
                near = connect_to(self.to_db["postgres"])
                self.talk(near, self.postgres.accept())
            else:
                self.assertTrue(is_refused(self.to_db["postgres"]), members)
        self.assertTrue(self.postgres.is_quiet())

    def test_a_vm_does_not_reach_itself(self):
        self.assertTrue(is_refused(self.to_self))
        self.assertTrue(self.http.is_quiet())

    # What goes wrong --------------------------------------------------------------------------------------------------

    def test_a_program_of_the_host_hears_what_is_wrong(self):
        self.lab.policy(*channels.ALL_RULES, allow("no", "host", "any", "service.forbidden", kind="deny"))
        taken = channels.free_port()
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", taken))
            holder.listen()
            cases = ((["connect", "web1", "nothing"], 6, "nothing"), (["connect", "web1", "down"], None, "down"),
                     (["connect", "web1", "no/name"], 2, "name"), (["connect", "web1", "x" * 70], None, ""),
                     (["connect", "nobody", "http"], 2, "nobody"), (["connect", "web1", "forbidden"], 3, "'no'"),
                     (["forward", "web1", f"tcp:127.0.0.1:{taken}", "http"], 1, str(taken)),
                     (["forward", "web1", "tcp:nowhere:80", "http"], 2, "nowhere"),
                     (["forward", "web1", "here", "http"], 2, "here"))
            for command, status, word in cases:
                with self.subTest(command):
                    result = self.lab.run(*command)
                    self.assertIn(result.status, [status] if status else [1, 2, 6], repr(result))
                    self.assertEqual(len(result.err.strip().splitlines()) > 0 and result.out, "", repr(result))
                    self.assertTrue(result.err.startswith("postern: "), repr(result))
                    self.assertIn(word, result.err)

    def test_a_program_of_a_guest_hears_nothing_but_the_end(self):
        for door in (self.doors["down"], self.doors["nothing"], self.to_db["nothing"]):
            self.assertTrue(is_refused(door), door)

    def test_a_vm_that_is_not_connected_is_told_and_one_that_goes_ends_its_channels(self):
        guest = self.lab.vm_of("gone1")
        service = guest.export("http")
        far_door = self.web.consume("gone1", "http")
        self.web.reload()
        guest.start()
        with connect_to(far_door) as near, service.accept() as far, self.lab.begin("connect", "gone1", "http") as program:
            with service.accept() as second:
                near.sendall(b"x")
                self.assertEqual(far.recv(1), b"x")
                for pid in [guest.guest.program.pid] + labs.descendants_of(guest.guest.program.pid):
                    self.lab.kill_pid(pid)
                began = time.monotonic()
                self.assertTrue(is_over(near, 3))
                self.assertNotEqual(program.wait(5), 0)
                self.assertTrue(program.stderr.read().startswith(b"postern: "))
                self.assertLess(time.monotonic() - began, 5)
                self.assertTrue(is_over(second, 1) and is_over(far, 1))
        labs.wait_until(lambda: self.lab.run("connect", "gone1", "http").status == 4, "status 4", 10)
        self.assertTrue(is_refused(far_door))
        self.lab.wait_board("web1", active=0)

    def test_two_consumers_of_one_address_are_a_mistake_and_a_taken_one_costs_only_itself(self):
        good = self.web.consumers[:]
        self.addCleanup(lambda: (setattr(self.web, "consumers", good), self.web.reload()))
        address = self.web.consume("db1", "again")
        self.web.consume("host", "again", address=address)
        self.web.guest.write("etc/postern/agent.toml", self.web.settings())
        said = len(self.web.guest.program.said())
        self.web.guest.program.send(signal.SIGHUP)
        labs.wait_until(lambda: address in self.web.guest.program.said()[said:], "a line about it")
        near = connect_to(self.to_db["postgres"])
        self.talk(near, self.postgres.accept())
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            self.web.consumers = good[:]
            taken = self.web.consume("db1", "postgres", address=f"tcp:127.0.0.1:{holder.getsockname()[1]}")
            self.web.reload()
            self.web.guest.program.wait_for(taken)
            near = connect_to(self.to_db["postgres"])
            self.talk(near, self.postgres.accept())


if __name__ == "__main__":
    labs.main()
