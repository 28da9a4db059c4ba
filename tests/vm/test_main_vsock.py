"""The main job over the kernel's vhost-vsock: posternd in a guest that plays the host, the packaged postern-agent in a guest
of that."""

import contextlib
import datetime
import json
import pathlib
import re
import tempfile
import time
import unittest

from agent_guest import agent_initramfs, make_disk, packaged_agent
from guestlab import (
    INNER_CONSOLE,
    INNER_ENDED,
    INNER_LINE,
    INNER_MONITOR,
    INNER_READY,
    inner_vsock_device,
    nested_vsock_guest,
)
from host_probe import build_folder
from host_side import colours_of, wait_until
from vsock_echo import build_vsock_flood

VM = "web1"
# What the guest's owner has prepared: a folder that belongs to the agent's unprivileged user, a service, and a way to one of
# the host's.
FOLDER = "mkdir -p /srv/files && chown postern-agent /srv/files && ifconfig lo 127.0.0.1 up"
SETTINGS = """policy = 1
[[allow]]
id = "operations"
call = ["ping", "info.*", "power.*", "service.echo"]
[[allow]]
id = "files"
call = "file.*"
args = { path = ["/srv/files", "/srv/files/**"] }
[service.echo]
target = ["/bin/cat"]
user = "root"
[[consume]]
listen = "tcp:127.0.0.1:7000"
from = "host"
service = "echo"
"""
HOST_SETTINGS = """[service.echo]
target = ["/bin/cat"]
user = "root"
"""
HOST_POLICY = f"""policy = 1
[[allow]]
id = "up"
from = "{VM}"
to = "host"
call = "service.echo"
"""
CID = 42
PORT = 9700
BOOT_SECONDS = 240  # of the inner guest, should it be emulated twice; usually ten
SOON_SECONDS = 60
HEAL_SECONDS = 5
FLOOD_SECONDS = 10
BUNDLE = "/run/web1.bundle"
DISK = "/inner-disk"
QMP = "/run/inner-qmp"


class MainJobOverVsock(unittest.TestCase):
    """One boot for all of them: they run by name, and the last one shuts the inner guest down."""

    @classmethod
    def setUpClass(cls):
        programs = build_folder()
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="postern-vsock-")))
        agent = packaged_agent(folder / "package")
        files = {"/etc/postern/agent.toml": SETTINGS}
        inner = agent_initramfs(programs, agent=agent, disk=True, first=FOLDER, files=files)
        inner.add_program(build_vsock_flood(folder))
        for name, text in {"postern.toml": HOST_SETTINGS, "10-up.toml": HOST_POLICY}.items():
            (folder / name).write_text(text)
        cls.outer = cls.enterClassContext(
            nested_vsock_guest(
                outer_programs=[programs / "host" / name for name in ("posternd", "postern-session", "postern")],
                outer_files={
                    make_disk(folder / "disk"): DISK,
                    folder / "postern.toml": "/etc/postern/postern.toml",
                    folder / "10-up.toml": "/etc/postern/policy.d/10-up.toml",
                },
                inner_initramfs=inner,
                inner_cid=CID,
                inner_restarts=True,
                inner_arguments=f"-fw_cfg name=opt/org.postern/bundle,file={BUNDLE} -qmp unix:{QMP},server=on,wait=off "
                f"-drive file={DISK},format=raw,if=virtio",
            )
        )
        cls.start_posternd()
        grants = ["--grant", "ping,info,power.shutdown,power.restart,file:/srv/files,service.echo", "--to", "user:root"]
        cls.postern("enroll", VM, "--transport", f"vsock:{CID}", "--bundle-file", BUNDLE, *grants)
        cls.outer.run("start-inner")
        cls.outer.wait_for(INNER_READY, BOOT_SECONDS)
        cls.wait_for_status("green", "on-time", BOOT_SECONDS)
        print(f"transport: vhost-vsock, outer guest under {cls.outer.accelerator}, inner guest under kvm on emulated SVM")

    def setUp(self):
        self.wait_for_status("green", "on-time")
        self.since = self.mark()

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
    def status(cls):
        return json.loads(cls.postern("status", VM, "--json"))["vms"][0]

    @classmethod
    def wait_for_status(cls, state, reason, timeout=SOON_SECONDS):
        seen = {}

        def shows():
            seen.update(cls.status())
            return (seen["state"], seen["reason"]) == (state, reason)

        wait_until(shows, timeout, f"{state} ({reason})", lambda: f"{seen}\n{cls.postern('events')}")

    def in_inner(self, command):
        """Types a command in the inner guest and waits until it has run."""
        begin = self.outer.console.position
        self.outer.run(f"echo '{command}; echo typed-$((40 + 2))' >{INNER_CONSOLE}")
        self.outer.wait_for(f"{INNER_LINE}typed-42", SOON_SECONDS, since=begin)

    def monitor(self, command):
        """A command for the inner guest's QEMU; it answers into a pipe that nobody reads."""
        self.outer.run(f"echo '{command}' >{INNER_MONITOR}")

    # --- events ------------------------------------------------------------------------------------------------

    @classmethod
    def events(cls, since):
        lines = cls.postern("events", VM, "--last", "60", "--json").splitlines()
        return [event for event in map(json.loads, lines) if event["sequence"] > since]

    @classmethod
    def mark(cls):
        return max((event["sequence"] for event in cls.events(0)), default=0)

    def follow(self, *expected, timeout=SOON_SECONDS):
        """Waits until these (colour, reason) have come in this order; others may come between them. Gives all."""
        seen = []

        def came():
            seen[:] = colours_of(self.events(self.since))
            rest = iter(seen)
            return all(any(each == wanted for each in rest) for wanted in expected)

        wait_until(came, timeout, f"{expected} of {VM}", lambda: self.postern("events"))
        return seen

    def back_to_green(self, *before, timeout=SOON_SECONDS):
        return self.follow(*before, ("green", "on-time"), timeout=timeout)

    def check_healed(self, broken):
        """From the event `broken` to the next session; by their times, since asking takes its time here."""
        self.back_to_green()
        self.postern("ping", VM, "-c", "1")
        times = {}
        for event in self.events(self.since):
            times.setdefault(event["kind"], datetime.datetime.fromisoformat(event["time"]))
        took = (times["connected"] - times[broken]).total_seconds()
        print(f"healed after {took:.2f} s")
        self.assertLess(took, HEAL_SECONDS)

    @contextlib.contextmanager
    def watched_by_qmp(self):
        self.postern("vm", "set", VM, "--qmp", QMP)
        try:
            self.outer.run("until grep -q qmp-connected /tmp/posternd.log; do sleep 0.1; done")
            yield
        finally:
            self.postern("vm", "set", VM, "--qmp", "none")

    # --- states ------------------------------------------------------------------------------------------------

    def test_a_file_and_a_tree_travel_both_ways(self):
        self.outer.run("mkdir -p /tmp/tree/a/b && dd if=/dev/urandom of=/tmp/tree/large bs=1M count=4 2>/dev/null")
        self.outer.run("for i in $(seq 200); do echo $i >/tmp/tree/a/b/f$i; done; ln -s large /tmp/tree/link")
        self.postern("cp", "-a", "--verify", "/tmp/tree", f"{VM}:/srv/files")
        self.postern("cp", "-a", "--verify", f"{VM}:/srv/files/tree", "/tmp/back")
        self.outer.run("diff -r /tmp/tree /tmp/back && rm -r /tmp/tree")
        self.assertIn("denied", self.postern("cp", "/tmp/back/large", f"{VM}:/etc/large", status=3))
        self.postern("rm", "-r", f"{VM}:/srv/files/tree")
        self.outer.run("rm -r /tmp/back")

    def test_a_channel_each_way(self):
        self.assertEqual(self.outer.run(f"echo down | postern connect {VM} echo").output, "down\n")
        begin = self.outer.console.position
        self.in_inner("echo up | nc 127.0.0.1 7000 | sed s/^/came-/")
        self.outer.wait_for(f"{INNER_LINE}came-up", SOON_SECONDS, since=begin)
        passed = {"opened": 2, "active": 0, "bytesOut": 8, "bytesIn": 8}
        seen = {}

        def counted():
            seen.update(json.loads(self.postern("channel", "stats", VM, "--json"))["ports"][0])
            return passed.items() <= seen.items()

        wait_until(counted, SOON_SECONDS, f"counters {passed}", lambda: seen)

    def test_a_killed_broker_and_its_agent_heal(self):
        self.in_inner("kill -9 $(agent-service pid)")
        self.check_healed("lost")

    def test_a_killed_session_process_heals(self):
        self.outer.run(f"kill -9 {self.line_of('session process').split()[-1]}")
        self.check_healed("session-gone")

    def test_a_link_that_is_cut_is_lost_at_once_then_red_and_comes_back(self):
        self.monitor("device_del vsock")
        # Unplugging takes a moment, in which no heartbeat comes; then the kernel resets the connection.
        seen = self.follow(("red", "link-lost"))
        self.assertIn(seen[0], [("yellow", "link-lost"), ("yellow", "late")])
        self.assertIn("lost", [event["kind"] for event in self.events(self.since)])
        self.monitor(f"device_add {inner_vsock_device(CID)}")
        self.back_to_green()

    def test_a_paused_vm_is_silent_without_qmp_and_paused_with_it(self):
        self.monitor("stop")
        self.follow(("yellow", "late"), ("red", "silent"))
        self.monitor("cont")
        self.back_to_green()
        with self.watched_by_qmp():
            self.since = self.mark()
            self.monitor("stop")
            self.follow(("gray", "paused"))
            self.monitor("cont")
            seen = self.back_to_green(("yellow", "resumed"))
            self.assertNotIn("red", dict(seen))

    def test_a_restart_is_confirmed_by_a_new_boot(self):
        begin = self.outer.console.position
        done = self.outer.run(f"postern restart {VM} --wait --timeout 100 >/tmp/restart.log 2>&1", timeout=120, check=False)
        self.outer.wait_for(INNER_READY, BOOT_SECONDS, since=begin)
        said = self.outer.run("cat /tmp/restart.log").output
        self.assertEqual(done.status, 0, said)
        self.assertRegex(said, r"(?s)accepted.*stopping.*back \(a heartbeat with a new boot id")
        seen = self.back_to_green(("gray", "restarting"), ("yellow", "connected"), timeout=BOOT_SECONDS)
        self.assertNotIn("red", dict(seen))

    def test_a_vm_that_is_reset_is_lost_until_it_is_back(self):
        begin = self.outer.console.position
        self.monitor("system_reset")
        # What the inner guest says at its boot is in the middle of what commands of the outer one say.
        self.outer.wait_for(INNER_READY, BOOT_SECONDS, since=begin)
        seen = self.back_to_green(timeout=BOOT_SECONDS)
        self.assertIn(seen[0], [("yellow", "link-lost"), ("yellow", "late")])
        self.assertIn("booted", [event["kind"] for event in self.events(self.since)])

    def test_clocks_that_are_set_back_change_nothing(self):
        set_back = "date -s @$(($(date +%s) - 3600))"
        self.outer.run(set_back)
        self.in_inner(set_back)
        time.sleep(5)
        self.assertEqual(colours_of(self.events(self.since)), [])
        self.postern("ping", VM, "-c", "1")
        self.assertLess(self.status()["heartbeatSeconds"], 2.5)

    # --- hostile -----------------------------------------------------------------------------------------------

    def test_an_unprivileged_program_that_floods_the_port_turns_no_heartbeat_yellow(self):
        begin = self.outer.console.position
        self.in_inner(f"vsock-flood 2 {PORT} {FLOOD_SECONDS}")
        said = self.outer.wait_for(re.compile(r"vsock-flood: uid 65534 made (\d+) .*"), SOON_SECONDS, since=begin)
        print(said.group(0))
        self.assertGreater(int(said.group(1)), 1000)
        self.assertEqual(colours_of(self.events(self.since)), [])
        self.assertEqual([e for e in self.events(self.since) if e["kind"] in ("lost", "connected")], [])
        self.postern("ping", VM, "-c", "1")

    def test_the_main_job_from_green_to_shutdown(self):
        # One test: each step goes on from the one before. By its name it is the last.
        self.assertIn(f"up (cid {CID}", self.postern("vm", "show", VM))
        self.assertIn("link", self.postern("ping", VM, "-c", "2", "-i", "0"))
        wait_until(lambda: "guest" in self.postern("info", VM), SOON_SECONDS, "an answer to info")
        self.assertIn("the host", self.postern("suspend", VM, status=3))

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
