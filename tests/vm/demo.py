"""The steps of ./demo, once everything is built: demo.py BUILD-FOLDER. Ends with status 1 at the first that is not as it should be."""

import getpass
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time

from agent_guest import agent_guest, agent_initramfs
from guestlab import GuestError, SetUpError
from host_side import HostSide, wait_until

VM = "web1"
GREEN_SECONDS = 60  # for a guest's boot, should the machine be busy; four seconds on an idle one
SOON_SECONDS = 30
SILENT_SECONDS = 3  # of heartbeats, then a VM is red
TOTAL_SECONDS = 180
GRANTS = "ping,info,power.shutdown,file:/srv/www"
# What the guest's owner has prepared: a folder that belongs to the agent's unprivileged user.
FOLDER = "mkdir -p /srv/www && chown postern-agent /srv/www"


class DemoFailed(Exception):
    """A step did not show what it should."""


class Narrator:
    """Says what happens, shows real commands and their output."""

    def __init__(self):
        self._began = time.monotonic()
        self._step = 0

    @property
    def seconds(self):
        return time.monotonic() - self._began

    def step(self, title, text):
        self._step += 1
        print(f"\n\033[1m{self._step}. {title}\033[0m" if sys.stdout.isatty() else f"\n{self._step}. {title}")
        print(textwrap.fill(text, 100, initial_indent="   ", subsequent_indent="   "), flush=True)

    def command(self, words, where="host"):
        prompt = "#" if where == "guest" else "$"
        print(f"   {where}{prompt} {shlex.join(words) if isinstance(words, list) else words}", flush=True)

    def output(self, text):
        print("".join(f"     {line}\n" for line in text.rstrip("\n").splitlines()), end="", flush=True)

    def note(self, text):
        print(f"   -> {text}", flush=True)


class Demo:
    def __init__(self, host, narrator):
        self.host = host
        self.tell = narrator
        self.processes = {}  # those that have to be gone at the end, by name

    # --- what a person types, on either side -------------------------------------------------------------------

    def postern(self, *arguments, status=0):
        """Runs and shows a postern command, which has to end with this status."""
        command = ["postern", "--root", str(self.host.root), *map(str, arguments)]
        self.tell.command(command)
        done = self.host.postern(*arguments, status=None)
        self.tell.output(done.out + done.err)
        if status:
            self.tell.note(f"exit status {done.status}")
        expect(done.status == status, f"`postern {arguments[0]}` ended with status {done.status}, not {status}")
        return done

    def in_guest(self, guest, command):
        self.tell.command(command, "guest")
        self.tell.output(guest.run(command).output)

    def wait_for(self, state, reason, timeout=SOON_SECONDS):
        began = time.monotonic()
        self.host.wait_for_status(VM, state, reason, timeout)
        self.tell.note(f"{state} ({reason}) after {time.monotonic() - began:.1f} s")
        self.postern("status")

    # --- the steps ---------------------------------------------------------------------------------------------

    def start_posternd(self):
        self.tell.command(["posternd", "--root", str(self.host.root)])
        self.host.start()
        self.tell.note(f"posternd runs, process {self.host.pid}")

    def run(self):
        tell, host = self.tell, self.host
        tell.step("The host service", "posternd starts in a temporary folder. It knows no VM, and denies everything.")
        self.start_posternd()
        self.postern("status")

        socket, qmp = host.folder / "web1.sock", host.folder / "web1.qmp"
        bundle = host.folder / "web1.bundle"
        tell.step(
            "Enrolment, before the VM boots",
            "One command registers the VM, makes its keys on this side, writes the rule that --grant asks for, and makes the "
            "bundle that proves the host to the guest and the guest to the host, once.",
        )
        self.postern(
            *["enroll", VM, "--transport", f"serial:{socket}", "--qmp", qmp, "--grant", GRANTS],
            *["--to", f"user:{getpass.getuser()}", "--bundle-file", bundle],
        )

        tell.step(
            "A real VM",
            "Debian's kernel, busybox and postern-agent in memory; one virtio-serial port, no network card. QEMU hands the "
            "bundle over as an SMBIOS string read from its file, so that no command line shows the secret.",
        )
        guest = agent_guest(
            agent_initramfs(host.programs, first=FOLDER),
            socket,
            qmp=qmp,
            arguments=["-nic", "none", "-smbios", f"type=11,path={bundle}"],
            wait_for_shell=False,
            description=VM,
        )
        with guest:
            tell.command(shown_command(guest.qemu_command))
            self.processes["QEMU"] = guest.pid
            expect(bundle.read_text().strip() not in " ".join(guest.qemu_command), "QEMU's command line shows the bundle")
            self.wait_for("green", "on-time", GREEN_SECONDS)
            self.postern("vm", "show", VM)
            guest.wait_for("the shell is ready", SOON_SECONDS)
            self.with_guest(guest)

        tell.step("The record", "Every decision and every operation is one line; each line carries the hash of the one before.")
        self.postern("audit", "tail", "--lines", "4")
        self.postern("audit", "verify")
        tell.step("The end", "posternd is told to end, with its sessions; the temporary folder goes.")
        self.processes.update({"posternd": host.pid, "postern-session": host.session_pid(VM)})
        tell.command(f"kill -INT {host.pid}")
        expect(host.end(signal.SIGINT) == 0, "posternd did not end in good order")

    def with_guest(self, guest):
        tell = self.tell
        tell.step("What is it?", "The guest answers; each probe has its own deadline.")
        info = self.postern("info", VM).out
        expect(re.search(r"host name +guest$", info, re.MULTILINE), "info does not show the guest's host name")
        tell.step("How far is it?", "`link` is from the VM's session process to its agent and back, `total` from this command.")
        self.postern("ping", VM, "--count", "5", "--interval", "0.2")

        self.copies(guest)

        tell.step("What is not granted is denied", "--grant did not name power.restart. The answer names the rule to write.")
        self.postern("restart", VM, status=3)
        self.postern("cp", self.site / "index.html", f"{VM}:/etc/index.html", status=3)

        tell.step("The agent is stopped in good order", "It says goodbye first: nothing is wrong, so the VM is gray, not red.")
        self.in_guest(guest, "agent-service stop")
        self.wait_for("gray", "agent-stopped")
        self.in_guest(guest, "agent-service start")
        self.wait_for("green", "on-time")

        tell.step(
            "The agent hangs",
            f"Its process is stopped in the middle of its work. No event can tell; after {SILENT_SECONDS} s without a heartbeat "
            "the VM is red. Then it goes on.",
        )
        self.in_guest(guest, "kill -STOP $(agent-service agent-pid)")
        self.wait_for("red", "silent")
        self.in_guest(guest, "kill -CONT $(agent-service agent-pid)")
        self.wait_for("green", "on-time")

        tell.step("The agent is killed", "The guest's init starts it again; a new session begins with the same keys.")
        before = self.sessions_made()
        self.in_guest(guest, "kill -9 $(agent-service agent-pid) $(agent-service pid)")
        wait_until(lambda: self.sessions_made() > before, SOON_SECONDS, "a new session", lambda: self.host.story(VM))
        self.wait_for("green", "on-time")

        tell.step(
            "The host service is killed and started again",
            "The VM's session process outlives it and keeps link and heartbeats; the new posternd finds it again.",
        )
        session, sessions = self.host.session_pid(VM), self.sessions_made()
        tell.command(f"kill -KILL {self.host.pid}")
        self.host.end(signal.SIGKILL)
        expect(os.path.exists(f"/proc/{session}"), "the session process ended with posternd")
        self.start_posternd()
        self.wait_for("green", "on-time")
        expect((self.host.session_pid(VM), self.sessions_made()) == (session, sessions), "it is another session now")
        tell.note(f"the same session process {session}, the same session {sessions}")

        tell.step("A clean shutdown", "Asked through the side door, said goodbye to, and confirmed by QEMU's own end.")
        self.postern("shutdown", VM, "--wait")
        status = guest.wait_exit(SOON_SECONDS)
        expect(status == 0, f"QEMU ended with status {status}")
        tell.note("QEMU has ended by itself, with status 0")
        self.postern("status")
        expect(self.host.status(VM)["state"] == "gray", "a VM that shut down is gray")
        self.postern("events", VM, "--last", "12")

    def copies(self, guest):
        tell = self.tell
        tell.step(
            "Files, both ways",
            "A tree goes in and comes back, each file hashed again on the disk where it arrived before it gets its name. In the "
            "guest the files are made by an unprivileged process that sees /srv/www and nothing else.",
        )
        self.site = self.host.folder / "site"
        make_site(self.site)
        self.postern_on_terminal("cp", "-a", "--verify", self.site, f"{VM}:/srv/www")
        self.in_guest(guest, "ls -l /srv/www/site | head -n 5; du -sh /srv/www/site")
        back = self.host.folder / "back"
        self.postern_on_terminal("cp", "-a", "--verify", f"{VM}:/srv/www/site", back)
        tell.command(["diff", "-r", str(self.site), str(back)])
        expect(subprocess.run(["diff", "-r", str(self.site), str(back)]).returncode == 0, "the two trees differ")
        tell.note("no difference")
        self.postern("ls", "-l", f"{VM}:/srv/www/site")

        tell.step("The same again", "What the guest has already is compared by hashes: what has not changed does not travel.")
        large = self.site / "video.bin"
        again = self.host.postern("--json", "cp", large, f"{VM}:/srv/www/site/video.bin")
        tell.command(["postern", "--root", str(self.host.root), "--json", "cp", str(large), f"{VM}:/srv/www/site/video.bin"])
        tell.output(again.out)
        sent = json.loads(again.out)["summary"]["sentBytes"]
        expect(sent < large.stat().st_size // 100, f"{sent} bytes of an unchanged file were sent")

    def postern_on_terminal(self, *arguments):
        """The same with a terminal, for the progress that people see: its last line is shown."""
        command = ["postern", "--root", str(self.host.root), *map(str, arguments)]
        self.tell.command(command)
        master, slave = os.openpty()
        process = subprocess.Popen(self.host.postern_command(*arguments), stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        seen = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the last writer has gone
                break
            if not piece:
                break
            seen += piece
        os.close(master)
        expect(process.wait() == 0, f"`postern {arguments[0]}` failed:\n{seen.decode(errors='replace')}")
        states = [line.strip() for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", seen.decode(errors="replace"))]
        for line in [line for line in states if line][-2:]:
            self.tell.output(line)

    def sessions_made(self):
        shown = self.host.postern("vm", "show", VM).out
        return int(re.search(r"sessions made\s+(\d+)", shown)[1])


def make_site(top):
    """A small web site: two hundred pages, a link, and one file that is large for it."""
    (top / "pages").mkdir(parents=True)
    for number in range(200):
        (top / "pages" / f"page-{number:03}.html").write_text(f"<h1>Page {number}</h1>\n" * (number + 1))
    (top / "index.html").write_text("<a href=pages/page-000.html>begin</a>\n")
    (top / "latest.html").symlink_to("pages/page-199.html")
    (top / "video.bin").write_bytes(os.urandom(8 << 20))


def shown_command(words):
    """QEMU's command line as it is, a line for each two words or so."""
    return textwrap.fill(shlex.join(words), 96, subsequent_indent="        ", break_long_words=False, break_on_hyphens=False)


def expect(condition, otherwise):
    if not condition:
        raise DemoFailed(otherwise)


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(number, frame):
    # Once: cleaning up takes a moment, and is not to be interrupted itself.
    for each in ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(programs):
    for each in ENDINGS:
        signal.signal(each, interrupted)
    narrator = Narrator()
    try:
        with HostSide(programs) as host:
            demo = Demo(host, narrator)
            demo.run()
        for name, pid in demo.processes.items():
            # A session whose first posternd was killed is pid 1's to bury.
            deadline = time.monotonic() + 5
            while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
                time.sleep(0.05)
            expect(not os.path.exists(f"/proc/{pid}"), f"{name}, process {pid}, is still there")
        expect(not host.folder.exists(), f"{host.folder} is still there")
        expect(narrator.seconds < TOTAL_SECONDS, f"it took {narrator.seconds:.0f} s")
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the VM, posternd and their files are gone", file=sys.stderr)
        return 130
    except (DemoFailed, AssertionError, GuestError, SetUpError) as failure:
        print(f"\ndemo: FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"\ndemo: every step showed what it should, in {narrator.seconds:.0f} s; nothing is left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
