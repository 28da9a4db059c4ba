"""posternd and the agents of two VMs on this machine, and bare-channel's programs at both ends of their channels."""

import json
import os
import subprocess

import channels
import lab

SECONDS = 120
KINDS = ("echo", "greet", "sink")


class NativeChannels:
    """Everything is gone at the end of a `with` block.

    `doors` are paths of Unix sockets, by (way, kind): the ways are "host to guest", "guest to host" and "VM to VM", the kinds
    bare-channel's. `relay` leads through one process more to an `echo`, `direct` to a `sink` without any.
    """

    def __init__(self, setting):
        self._bare = setting.built("tests/bench/bare-channel")
        agent = setting.built("guest-agent/postern-agent")
        self._programs = lab.Programs(os.path.dirname(setting.built("host/posternd")), agent, None, None)

    def __enter__(self):
        self.lab = channels.ChannelLab(self._programs)
        try:
            self._start()
        except BaseException:
            self.lab.close()
            raise
        return self

    def __exit__(self, *error):
        self.lab.close()

    def measure(self, what, *arguments):
        """What bare-channel says of it."""
        command = [self._bare, what, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def begin(self, what, *arguments):
        """A measurement that goes on; for communicate()."""
        command = [self._bare, what, *map(str, arguments)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def _start(self):
        lab = self.lab
        served = {kind: self._serve(kind) for kind in KINDS}
        web, db = lab.vm_of("web1"), lab.vm_of("db1")
        doors = {}
        for kind, path in served.items():
            lab.export(kind, target=f"unix:{path}")
            web.export(kind, target=f"unix:{path}")
            db.export(kind, target=f"unix:{path}")
            doors["guest to host", kind] = web.consume("host", kind)
            doors["VM to VM", kind] = web.consume("db1", kind)
        lab.policy(*channels.HURRIED_RULES)
        lab.start_posternd()
        web.start()
        db.start()
        for kind in KINDS:
            doors["host to guest", kind] = lab.forward("web1", kind)[1]
        for address in doors.values():
            channels.connect_to(address).close()
        self.doors = {name: address.removeprefix("unix:") for name, address in doors.items()}
        self.direct = served["sink"]
        self.relay = f"{lab.folder}/relay"
        lab.start("relay", [self._bare, "relay", self.relay, served["echo"]])
        lab_wait(self.relay)

    def _serve(self, kind):
        path = f"{self.lab.folder}/{kind}"
        self.lab.start(kind, [self._bare, "serve", path, kind])
        lab_wait(path)
        return path


def lab_wait(path):
    lab.wait_until(lambda: os.path.exists(path), f"nobody listens on {path}")
