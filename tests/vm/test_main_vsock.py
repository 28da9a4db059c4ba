"""The main job over the kernel's vhost-vsock: posternd in a guest that plays the host, postern-agent in a guest of that."""

import json
import unittest

from agent_guest import agent_initramfs
from guestlab import INNER_CONSOLE, INNER_ENDED, INNER_LINE, INNER_READY, nested_vsock_guest
from host_probe import build_folder
from host_side import wait_until

VM = "web1"
CID = 42
BOOT_SECONDS = 240  # of the inner guest, should it be emulated twice; usually ten
SOON_SECONDS = 60
BUNDLE = "/run/web1.bundle"


class MainJobOverVsock(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        programs = build_folder()
        cls.outer = cls.enterClassContext(
            nested_vsock_guest(
                outer_programs=[programs / "host" / name for name in ("posternd", "postern-session", "postern")],
                inner_initramfs=agent_initramfs(programs),
                inner_cid=CID,
                inner_arguments=f"-fw_cfg name=opt/org.postern/bundle,file={BUNDLE}",
            )
        )
        cls.start_posternd()
        grants = ["--grant", "ping,info,power.shutdown", "--to", "user:root"]
        cls.postern("enroll", VM, "--transport", f"vsock:{CID}", "--bundle-file", BUNDLE, *grants)
        cls.outer.run("start-inner")
        cls.outer.wait_for(INNER_READY, BOOT_SECONDS)
        cls.wait_for_status("green", "on-time", BOOT_SECONDS)
        print(f"transport: vhost-vsock, outer guest under {cls.outer.accelerator}, inner guest under kvm on emulated SVM")

    @classmethod
    def start_posternd(cls):
        cls.outer.run("posternd >/tmp/posternd.log 2>&1 & echo $! >/run/posternd.pid")
        cls.outer.run("until grep -q '\"event\":\"ready\"' /tmp/posternd.log; do sleep 0.1; done")

    @classmethod
    def postern(cls, *words, status=0):
        done = cls.outer.run(f"postern {' '.join(words)}", timeout=120, check=False)
        if done.status != status:
            log = cls.outer.run("tail -n 30 /tmp/posternd.log").output
            raise AssertionError(f"postern {words[0]} ended with {done.status}, not {status}:\n{done.output}\n{log}")
        return done.output

    @classmethod
    def wait_for_status(cls, state, reason, timeout=SOON_SECONDS):
        seen = {}

        def shows():
            seen.update(json.loads(cls.postern("status", VM, "--json"))["vms"][0])
            return (seen["state"], seen["reason"]) == (state, reason)

        wait_until(shows, timeout, f"{state} ({reason})", lambda: f"{seen}\n{cls.postern('events')}")

    def in_inner(self, command):
        """Types a command in the inner guest and waits until it has run."""
        begin = self.outer.console.position
        self.outer.run(f"echo '{command}; echo typed-$((40 + 2))' >{INNER_CONSOLE}")
        self.outer.wait_for(f"{INNER_LINE}typed-42", SOON_SECONDS, since=begin)

    def test_the_main_job_from_green_to_shutdown(self):
        # One test: each step goes on from the one before.
        self.assertIn(f"up (cid {CID}", self.postern("vm", "show", VM))
        self.assertIn("link", self.postern("ping", VM, "-c", "2", "-i", "0"))
        wait_until(lambda: "guest" in self.postern("info", VM), SOON_SECONDS, "an answer to info")
        self.assertIn("the host", self.postern("restart", VM, status=3))

        self.in_inner("agent-service stop")
        self.wait_for_status("gray", "agent-stopped")
        self.in_inner("agent-service start")
        self.wait_for_status("green", "on-time")

        self.in_inner("kill -STOP $(agent-service agent-pid)")
        self.wait_for_status("red", "silent")
        self.in_inner("kill -CONT $(agent-service agent-pid)")
        self.wait_for_status("green", "on-time")

        # Over vsock a killed agent's link ends at once: late and silent are for serial.
        self.in_inner("touch /run/agent-stopped; kill -9 $(agent-service pid) $(agent-service agent-pid)")
        self.wait_for_status("red", "link-lost")
        self.in_inner("agent-service start")
        self.wait_for_status("green", "on-time")

        sessions = self.line_of("sessions made")
        session = self.line_of("session process")
        self.outer.run("kill -9 $(cat /run/posternd.pid)")
        self.start_posternd()
        self.wait_for_status("green", "on-time")
        self.assertEqual((self.line_of("sessions made"), self.line_of("session process")), (sessions, session))

        self.assertIn("gone (it said goodbye", self.postern("shutdown", VM, "--wait"))
        self.outer.wait_for(INNER_ENDED, SOON_SECONDS)
        self.wait_for_status("gray", "shut-down")
        self.postern("audit", "verify")

    def line_of(self, words):
        return next(line for line in self.postern("vm", "show", VM).splitlines() if words in line)


if __name__ == "__main__":
    unittest.main()
