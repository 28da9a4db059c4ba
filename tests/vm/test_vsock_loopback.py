"""AF_VSOCK inside one guest."""

import tempfile
import unittest

from guestlab import vsock_loopback_guest
from vsock_echo import build_vsock_echo


class VsockLoopback(unittest.TestCase):
    def test_a_guest_reaches_itself_as_cid_1_and_sees_that_as_the_peer(self):
        with tempfile.TemporaryDirectory() as folder, vsock_loopback_guest([build_vsock_echo(folder)]) as guest:
            print(f"transport: vsock loopback (CID 1) in one guest under {guest.accelerator}")
            guest.run("vsock-echo listen 5000 >/tmp/log 2>&1 &")
            guest.run("until grep -q listening /tmp/log; do sleep 0.1; done")
            self.assertIn("answered 'side door'", guest.run("vsock-echo connect 1 5000 'side door'").output)
            self.assertIn("peer CID 1\n", guest.run("cat /tmp/log").output)

            refused = guest.run("vsock-echo connect 1 5001 'nobody there'", check=False)
            self.assertEqual(refused.status, 1)
            self.assertIn("Connection reset by peer", refused.output)


if __name__ == "__main__":
    unittest.main()
