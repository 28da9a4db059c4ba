"""A channel as a stream of bytes, each way that there is: exact, in order, each direction with an end of its own, and a reset
that is one for both sides. tests/channel/vsock-suite.md says which cases of the kernel's own suite for vsock are here.

usage: channel-stream-test.py HOST-PROGRAMS-FOLDER AGENT HOSTILE-GUEST HOSTILE-CALLER [unittest arguments]
"""
import os
import select
import socket
import struct
import sys
import time
import unittest

import channels
import lab as labs
from channels import MIB, Receiving, Sending, connect_to, is_over, read_exactly, read_to_end

PROGRAMS = labs.Programs(*sys.argv[1:5])
FULL = os.environ.get("POSTERN_TEST_FULL") == "1"
# What a channel may hold of what nobody reads: a window a hop, and what kernels keep for sockets on the way.
WINDOW = MIB
SOCKETS = 3 * MIB // 2


class StreamTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab = channels.ChannelLab(PROGRAMS)
        cls.addClassCleanup(lab.close)
        on_host, on_host_tcp = lab.export("host"), lab.export("host-tcp", kind="tcp")
        lab.policy(*channels.ALL_RULES)
        lab.start_posternd()
        cls.web, cls.db = web, db = lab.vm_of("web1"), lab.vm_of("db1")
        inside, inside_tcp = web.export("in"), web.export("in-tcp", kind="tcp")
        cls.peer, cls.peer_tcp = db.export("db"), db.export("db-tcp", kind="tcp")
        doors = {"guest to host": (web.consume("host", "host"), on_host, 1),
                 "guest to host, tcp": (web.consume("host", "host-tcp", kind="tcp"), on_host_tcp, 1),
                 "guest to guest": (web.consume("db1", "db"), cls.peer, 2),
                 "guest to guest, tcp": (web.consume("db1", "db-tcp", kind="tcp"), cls.peer_tcp, 2)}
        web.start()
        db.start()
        doors["host to guest"] = (lab.forward("web1", "in")[1], inside, 1)
        doors["host to guest, tcp"] = (lab.forward("web1", "in-tcp", kind="tcp")[1], inside_tcp, 1)
        cls.ways = doors

    def setUp(self):
        for _, service, _ in self.ways.values():
            service.turn_away()

    def pair(self, way):
        """The two programs' sockets of a new channel."""
        address, service, _ = self.ways[way]
        near = connect_to(address)
        far = service.accept()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        return near, far

    def each(self, work, kind=None):
        """With the ends of a new channel of each way, and the same from the other end."""
        for way in self.ways:
            if kind is not None and way.endswith("tcp") != (kind == "tcp"):
                continue
            for turned in (False, True):
                with self.subTest(way, turned=turned):
                    near, far = self.pair(way)
                    work(*((far, near) if turned else (near, far)))

    def writes_fail(self, connection, seconds=5):
        """That writing ends in EPIPE or a reset, sooner or later."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                connection.send(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            time.sleep(0.01)
        return False

    # Exact bytes ------------------------------------------------------------------------------------------------------

    def test_large_bursts_both_ways_at_once_are_exact(self):
        for way, size in (("guest to guest", 64 * MIB), ("host to guest", 64 * MIB), ("guest to host, tcp", 16 * MIB)):
            with self.subTest(way):
                near, far = self.pair(way)
                ends = [(Sending(near, size, seed=1), Receiving(far)), (Sending(far, size, seed=2), Receiving(near))]
                for sending, receiving in ends:
                    self.assertEqual(receiving.digest(), sending.digest())

    def test_odd_sizes_are_exact(self):
        near, far = self.pair("guest to guest")
        receiving = Receiving(far)
        sending = Sending(near, 3 * MIB + 7, piece=65472 + 1)
        self.assertEqual(receiving.digest(), sending.digest())

    def test_writes_of_one_byte_are_exact(self):
        def work(a, b):
            receiving = Receiving(b)
            sending = Sending(a, 20_000, piece=1)
            self.assertEqual(receiving.digest(), sending.digest())

        self.each(work, "unix")

    def test_a_slow_reader_gets_everything(self):
        near, far = self.pair("guest to guest")
        receiving = Receiving(far, rate=4 * MIB)
        sending = Sending(near, 6 * MIB)
        self.assertEqual(receiving.digest(), sending.digest())

    def test_small_packets_until_nothing_more_is_taken_then_all_of_them_arrive(self):
        near, far = self.pair("guest to guest")
        near.setblocking(False)
        sent = 0
        while sent < 4 * MIB and channels.is_ready(near, select.POLLOUT, 0.5):
            try:
                sent += near.send(bytes([sent % 251]))
            except BlockingIOError:
                pass
        self.assertLess(sent, 2 * WINDOW + SOCKETS)
        got = read_exactly(far, sent)
        self.assertEqual(got, bytes(i % 251 for i in range(sent)))
        near.settimeout(labs.PATIENCE)
        near.sendall(b"more")
        self.assertEqual(read_exactly(far, 4), b"more")

    def test_a_read_of_a_part_loses_nothing_of_what_comes_behind(self):
        def work(a, b):
            a.sendall(b"HELLO")
            self.assertEqual(read_exactly(b, 2), b"HE")
            a.sendall(b"WORLD")
            self.assertEqual(read_exactly(b, 8), b"LLOWORLD")
            self.assertFalse(channels.is_ready(b, select.POLLIN, 0.05))

        self.each(work)

    def test_one_byte_more_than_was_let_in_arrives_when_half_is_read(self):
        near, far = self.pair("guest to guest")
        taken = channels.fill(near)
        read_exactly(far, taken // 2)
        near.sendall(b"\xff")
        self.assertEqual(read_exactly(far, taken - taken // 2 + 1)[-1:], b"\xff")

    # Ends -------------------------------------------------------------------------------------------------------------

    def test_each_direction_ends_by_itself(self):
        def work(a, b):
            a.sendall(b"last")
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(read_to_end(b), b"last")
            with self.assertRaises(BrokenPipeError):
                a.send(b"x")
            for word in (b"one", b"two"):
                b.sendall(word)
                self.assertEqual(read_exactly(a, 3), word)
            b.shutdown(socket.SHUT_WR)
            self.assertEqual(read_to_end(a), b"")

        self.each(work)

    def test_the_last_bytes_arrive_however_late_they_are_read(self):
        def work(a, b):
            b.shutdown(socket.SHUT_WR)
            self.assertEqual(a.recv(1), b"")
            sending = Sending(a, 2 * MIB)
            time.sleep(0.2)
            self.assertEqual(Receiving(b, rate=16 * MIB).digest(), sending.digest())

        self.each(work)

    def test_a_direction_may_end_before_anything_was_said(self):
        def work(a, b):
            a.shutdown(socket.SHUT_WR)
            self.assertEqual(b.recv(1), b"")
            b.sendall(b"x")
            b.shutdown(socket.SHUT_WR)
            self.assertEqual(read_to_end(a), b"x")

        self.each(work)

    def test_what_was_sent_before_a_close_is_read_and_writing_fails(self):
        def work(a, b):
            a.sendall(b"1")
            a.close()
            self.assertTrue(channels.is_ready(b, select.POLLIN, 5))
            self.assertTrue(self.writes_fail(b))
            self.assertEqual(b.recv(2), b"1")
            self.assertTrue(is_over(b))

        self.each(work, "unix")

    def test_who_reads_no_more_ends_the_writers_channel(self):
        def work(a, b):
            b.shutdown(socket.SHUT_RD)
            if b.family == socket.AF_INET:
                b.close()  # TCP tells nobody of SHUT_RD alone
            self.assertTrue(self.writes_fail(a))

        self.each(work)

    def test_a_reset_is_a_reset_on_the_other_side(self):
        def work(a, b):
            channels.reset(a)
            with self.assertRaises(ConnectionResetError):
                while b.recv(100):
                    pass
                raise AssertionError("an end in order")

        self.each(work, "tcp")

    def test_a_reset_in_the_middle_of_a_burst_ends_both_sides(self):
        def work(a, b):
            channels.fill(a, 2 * MIB)
            read_exactly(b, 1000)
            channels.reset(a)
            self.assertTrue(is_over(b, 5))
            self.assertTrue(self.writes_fail(b))

        self.each(work)

    def test_closing_with_what_the_other_side_did_not_read_does_not_wait(self):
        near, far = self.pair("guest to guest, tcp")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        near.sendall(b"1")
        began = time.monotonic()
        near.close()
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(read_to_end(far), b"1")

    # Beginnings -------------------------------------------------------------------------------------------------------

    def test_a_target_that_does_not_listen_is_a_reset_and_a_later_try_comes_through(self):
        address, service, _ = self.ways["guest to guest, tcp"]
        port = service.listener.getsockname()
        service.listener.close()
        try:
            for _ in range(2):
                with connect_to(address) as near, self.assertRaises(ConnectionResetError):
                    while near.recv(1):
                        pass
                    raise AssertionError("an end in order")
        finally:
            service.listen(port, backlog=None)
            # Bound only: still nobody.
            with connect_to(address) as near:
                self.assertTrue(is_over(near, 5))
            service.listener.listen(100)
        near, far = self.pair("guest to guest, tcp")
        near.sendall(b"x")
        self.assertEqual(far.recv(1), b"x")

    def test_a_name_is_used_again_at_once(self):
        for _ in range(5):
            for way in self.ways:
                near, far = self.pair(way)
                near.close()
                self.assertTrue(is_over(far))
                far.close()

    def test_a_hundred_channels_at_once_keep_apart(self):
        pairs = [self.pair("guest to guest") for _ in range(100)]
        for number, (near, far) in enumerate(pairs):
            (near if number % 2 else far).sendall(b"%4d" % number)
        for number, (near, far) in enumerate(pairs):
            self.assertEqual(read_exactly(far if number % 2 else near, 4), b"%4d" % number)

    def test_programs_that_come_and_go_at_once_leave_nothing(self):
        address, service, _ = self.ways["guest to guest"]
        pids = [self.lab.posternd.pid, self.web.guest.agent_pid(), self.db.guest.agent_pid()]
        self.lab.wait_board("web1", active=0)
        before = [labs.descriptors_of(pid) for pid in pids]
        for _ in range(200):
            connect_to(address).close()
        while not service.is_quiet(0.5):
            service.turn_away()
        self.lab.wait_board("web1", active=0, seconds=10)
        labs.wait_until(lambda: all(labs.descriptors_of(pid) <= had for pid, had in zip(pids, before)),
                        lambda: f"{before} {[labs.descriptors_of(pid) for pid in pids]}", 10)

    def test_a_target_that_comes_and_goes_leaves_nothing(self):
        address, service, _ = self.ways["guest to guest, tcp"]
        port = service.listener.getsockname()
        pids = [self.lab.posternd.pid, self.web.guest.agent_pid(), self.db.guest.agent_pid()]
        self.lab.wait_board("web1", active=0)
        before = [labs.descriptors_of(pid) for pid in pids]
        for _ in range(30):
            near = connect_to(address)
            service.listener.close()
            service.listen(port)
            near.close()
            service.turn_away()
        while not service.is_quiet():
            service.turn_away()
        self.lab.wait_board("web1", active=0, seconds=10)
        labs.wait_until(lambda: all(labs.descriptors_of(pid) <= had for pid, had in zip(pids, before)),
                        lambda: f"{before} {[labs.descriptors_of(pid) for pid in pids]}", 10)

    # Back-pressure ----------------------------------------------------------------------------------------------------

    def test_a_reader_that_stops_holds_up_its_own_channel_within_a_window_a_hop_and_no_other(self):
        for way, (_, _, hops) in self.ways.items():
            with self.subTest(way):
                near, far = self.pair(way)
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)  # the bound is not the reader's to move
                taken = channels.fill(near)
                slack = 24 * MIB if "tcp" in way else SOCKETS  # TCP's own buffers, of two connections, grow
                self.assertLess(taken, hops * WINDOW + slack)
                other, other_far = self.pair(way)
                receiving = Receiving(other_far)
                sending = Sending(other, 8 * MIB)
                self.assertEqual(receiving.digest(), sending.digest())
                self.assertEqual(self.lab.good("ping", "web1", "-c", "1")["count"], 1)
                near.shutdown(socket.SHUT_WR)
                self.assertEqual(len(read_to_end(far)), taken)


if __name__ == "__main__":
    labs.main()
