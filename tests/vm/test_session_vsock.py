"""Real sessions over AF_VSOCK: inside one guest, and between a guest and its host over the kernel's vhost-vsock."""

import re
import unittest

from guestlab import INNER_LINE, nested_vsock_guest, vsock_loopback_guest
from host_probe import program

BOOT_SECONDS = 180  # of the inner guest, should it be emulated twice; usually ten


class VsockSession(unittest.TestCase):
    def test_inside_one_guest_over_loopback(self):
        probe = program("probe/link-probe")
        with vsock_loopback_guest(programs=[probe]) as guest:
            print(f"transport: vsock loopback, guest under {guest.accelerator}")
            guest.run("link-probe host vsock:any --listen --rounds 10 --timeout 60 >/tmp/host.log 2>&1 &")
            guest.run("until grep -q listening /tmp/host.log; do sleep 0.1; done")
            guest.run("link-probe guest vsock:1 --timeout 60 >/tmp/guest.log 2>&1 &")
            guest.run("until grep -qE 'done|timed out' /tmp/host.log; do sleep 0.2; done", timeout=70)
            log = guest.run("cat /tmp/host.log").output
            self.assertIn("round 10 ok", log)
            self.assertNotIn("WRONG", log)
            # The agent is root here, so it has a port that other programs of the guest cannot have.
            port = int(re.search(r"session 1 from cid 1 port (\d+)", log)[1])
            self.assertLess(port, 1024)

    def test_between_a_guest_and_its_host_over_vhost_vsock(self):
        probe = program("probe/link-probe")
        with nested_vsock_guest(
            outer_programs=[probe],
            inner_programs=[probe],
            inner_script="link-probe guest vsock:host --timeout 100 &",
            inner_cid=42,
        ) as host:
            host.run("link-probe host vsock:any --listen --rounds 10 --timeout 170 >/tmp/host.log 2>&1 &")
            host.run("until grep -q listening /tmp/host.log; do sleep 0.1; done")
            host.run("start-inner")
            print(f"transport: vhost-vsock, outer guest under {host.accelerator}, inner guest under kvm on emulated SVM")
            host.wait_for(INNER_LINE + "session 1 from cid 2 port 9700", BOOT_SECONDS)
            host.run("until grep -qE 'done|timed out' /tmp/host.log; do sleep 0.2; done", timeout=120)
            log = host.run("cat /tmp/host.log").output
            self.assertRegex(log, r"session 1 from cid 42 port \d+")
            self.assertIn("round 10 ok", log)
            self.assertNotIn("WRONG", log)


if __name__ == "__main__":
    unittest.main()
