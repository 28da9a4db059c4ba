"""AF_VSOCK between a guest and its host, over the kernel's vhost-vsock."""

import tempfile
import unittest

from guestlab import INNER_CONSOLE, INNER_ENDED, INNER_LINE, INNER_READY, GuestEnded, nested_vsock_guest
from vsock_echo import build_vsock_echo

BOOT_SECONDS = 180  # of the inner guest; ten on an idle machine


class VsockNested(unittest.TestCase):
    def test_a_guest_reaches_its_host_as_cid_2_and_the_host_sees_the_cid_it_gave_the_guest(self):
        with tempfile.TemporaryDirectory() as folder:
            echo = build_vsock_echo(folder)
            with nested_vsock_guest(
                outer_programs=[echo],
                inner_programs=[echo],
                inner_script="vsock-echo connect 2 5000 'from inside'",
                inner_cid=42,
            ) as host:
                host.run("vsock-echo listen 5000 >/tmp/log 2>&1 &")
                host.run("until grep -q listening /tmp/log; do sleep 0.1; done")
                host.run("start-inner")
                print(f"transport: vhost-vsock of the outer guest's kernel, outer guest under {host.accelerator}")
                host.wait_for(INNER_LINE + "vsock-echo: CID 2 port 5000 answered 'from inside'", BOOT_SECONDS)
                self.assertIn("peer CID 42\n", host.run("cat /tmp/log").output)

                # The inner console is a shell that the host can type on, here to listen for the host.
                host.wait_for(INNER_READY, 30)
                host.run(f"echo 'vsock-echo listen 6000 &' >{INNER_CONSOLE}")
                host.wait_for(INNER_LINE + "vsock-echo: listening on port 6000", 30)
                host.run("vsock-echo connect 42 6000 'from outside'")
                host.wait_for(INNER_LINE + "vsock-echo: peer CID 2", 10)

                host.run(f"echo 'poweroff -f' >{INNER_CONSOLE}")
                host.wait_for(INNER_ENDED, 30)

                # The same host serves the next boot of the guest.
                second_boot = host.console.position
                host.run("start-inner")
                host.wait_for("answered 'from inside'", BOOT_SECONDS, since=second_boot)

    def test_an_outer_guest_that_cannot_virtualise_says_so_at_boot(self):
        with self.assertRaisesRegex(GuestEnded, "set-up failed: loading kvm-amd.ko"):
            with nested_vsock_guest(arguments=["-cpu", "max,svm=off"]):
                self.fail("the guest counts as booted")


if __name__ == "__main__":
    unittest.main()
