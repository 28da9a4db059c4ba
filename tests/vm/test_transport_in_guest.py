"""guest-transport: transport/'s own tests that need a guest's kernel, run in one."""

import time
import unittest

from guestlab.recipes import AGENT_PORT
from guestlab import serial_guest, vsock_loopback_guest
from host_probe import program


class TransportInGuest(unittest.TestCase):
    def test_vsock(self):
        with vsock_loopback_guest(programs=[program("guest-transport")]) as guest:
            print(f"transport: vsock loopback, guest under {guest.accelerator}")
            guest.run("echo 'nobody:x:65534:65534::/:/bin/sh' >>/etc/passwd")
            guest.run("guest-transport -tc='vsock*'", timeout=90)

    def test_serial_device(self):
        # The program says what the host is to do next.
        with serial_guest(programs=[program("guest-transport")]) as guest:
            print(f"transport: virtio-serial, guest under {guest.accelerator}")
            begin = guest.console.position
            guest.send("guest-transport -nc -tc='serial*'")

            def step(words):
                nonlocal begin
                guest.wait_for("HOST: " + words, 30, since=begin)
                begin = guest.console.position

            step("connect")
            time.sleep(0.5)
            with guest.connect_port(AGENT_PORT) as host:
                step("read hello, send abc")
                self.assertEqual(host.recv(5), b"hello")
                host.sendall(b"abc")
                step("disconnect")
            step("connect, send def")
            with guest.connect_port(AGENT_PORT, timeout=2) as host:
                host.sendall(b"def")
                step("read some")
                received = 0
                try:
                    while received < 1 << 20:
                        received += len(host.recv(65536))
                except TimeoutError:
                    pass
                step("unplug")
                guest.qmp.execute("device_del", {"id": AGENT_PORT})
                guest.wait_for("Status: SUCCESS!", 30, since=begin)


if __name__ == "__main__":
    unittest.main()
