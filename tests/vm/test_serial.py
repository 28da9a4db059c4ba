"""Virtio-serial between a guest and the host, in QEMU's words and in the guest's."""

import socket
import tempfile
import unittest

from guestlab import Guest, VirtioPort, basic_initramfs, serial_guest

PORT = "org.postern.agent.0"


class SerialPort(unittest.TestCase):
    def test_bytes_pass_both_ways_and_qemu_reports_the_guests_opens_and_closes(self):
        with serial_guest() as guest:
            print(f"transport: virtio-serial, QEMU listening, guest under {guest.accelerator}")
            with guest.connect_port(PORT) as host:
                host.sendall(b"from the host\n")
                self.assertEqual(guest.run(f"head -n 1 /dev/virtio-ports/{PORT}").output, "from the host\n")
                guest.qmp.wait_event("VSERPORT_CHANGE", 10, id=PORT, open=True)
                guest.qmp.wait_event("VSERPORT_CHANGE", 10, id=PORT, open=False)

                guest.run(f"printf 'from the guest' >/dev/virtio-ports/{PORT}")
                self.assertEqual(receive(host, 14), b"from the guest")

    def test_qemu_can_be_the_one_that_connects_and_a_guest_can_have_several_ports(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/agent.sock")
            listener.listen()
            listener.settimeout(10)
            recipe = basic_initramfs("virtio_pci", "virtio_console")
            ports = [VirtioPort(PORT, connect_to=f"{folder}/agent.sock"), VirtioPort("second")]
            with Guest(recipe, ports=ports) as guest, guest.connect_port("second") as second:
                agent, _ = listener.accept()
                with agent:
                    agent.settimeout(10)
                    guest.run(f"echo one >/dev/virtio-ports/{PORT}; echo two >/dev/virtio-ports/second")
                    self.assertEqual((receive(agent, 4), receive(second, 4)), (b"one\n", b"two\n"))


def receive(connection, count):
    data = b""
    while len(data) < count and (chunk := connection.recv(count - len(data))):
        data += chunk
    return data


if __name__ == "__main__":
    unittest.main()
