"""Real sessions over real virtio-serial: they come back after every way in which either end can die, with the right bytes."""

import random
import secrets
import statistics
import time
import unittest

from guestlab.recipes import AGENT_PORT
from guestlab import serial_guest
from host_probe import HostProbe, is_full, program

KILLS = 200 if is_full() else 20
STOPPED_SECONDS = 60 if is_full() else 5
# A killed agent or host is replaced by the test within a second; the handshake takes some 20 ms here. What may come on top
# is one deadline: 3 s for a handshake message or a ping that was lost with the old process.
RECOVERY_SECONDS = 15

RUN_AGENT = f"""
while true; do
  link-probe guest serial:/dev/virtio-ports/{AGENT_PORT} --timeout 3600
done >/tmp/agent.log 2>&1 &
"""


class SerialSession(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.guest = cls.enterClassContext(serial_guest(programs=[program("probe/link-probe")]))
        print(f"transport: virtio-serial, guest under {cls.guest.accelerator}")
        cls.endpoint = "serial:" + cls.guest.port_path(AGENT_PORT)
        cls.guest.run(RUN_AGENT)

    def check_bytes(self, host):
        self.assertNotIn("WRONG", host.text)

    def test_sessions_come_back_after_random_kills_of_either_end_and_both(self):
        seed = secrets.randbits(32)
        print(f"random seed {seed}")
        chance = random.Random(seed)
        times = []
        with HostProbe(self.endpoint, "--bytes", "100000") as host:
            host.wait_for_session(0, RECOVERY_SECONDS)
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, 0.25))
                victim = chance.choice(["guest", "host", "both"])
                since = host.position
                if victim != "guest":
                    host.kill()
                if victim != "host":
                    self.guest.run("kill -9 $(pidof link-probe)")
                if victim != "guest":
                    since = host.position
                    host.restart()
                times.append(host.wait_for_session(since, RECOVERY_SECONDS))
                self.check_bytes(host)
        print(f"{KILLS} kills; back after {statistics.median(times):.2f} s (median), {max(times):.2f} s (longest)")

    def test_a_megabyte_of_stale_bytes_is_passed_over(self):
        with self.guest.connect_port(AGENT_PORT) as stale:
            stale.sendall(random.Random(1).randbytes(1 << 20))
        with HostProbe(self.endpoint) as host:
            host.wait_for_session(0, RECOVERY_SECONDS)
            self.check_bytes(host)

    def test_a_host_that_does_not_read_is_waited_for(self):
        with HostProbe(self.endpoint) as host:
            host.wait_for_session(0, RECOVERY_SECONDS)
            host.stop()
            time.sleep(STOPPED_SECONDS)
            since = host.position
            host.resume()
            # In the session that was interrupted, if a ping's answer lay there in time, or else in a new one.
            host.wait_for_round(since, RECOVERY_SECONDS)
            self.check_bytes(host)

    def test_an_agent_without_a_host_does_not_spin(self):
        busy = "awk '{print $14 + $15}' /proc/$(pidof link-probe)/stat"
        before = int(self.guest.run(busy).output)
        time.sleep(4)
        ticks = int(self.guest.run(busy).output) - before
        self.assertLess(ticks, 40, "hundredths of a second of CPU in four seconds without a host")


if __name__ == "__main__":
    unittest.main()
