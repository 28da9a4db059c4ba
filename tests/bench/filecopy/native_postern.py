"""posternd and an agent on this machine with a Unix socket between them, and `postern cp` through them."""

import os
import pwd

import lab

from .processes import cpu_of_ended_children, cpu_seconds, timed

VM = "web1"
PING_SECONDS = 0.005
POLICY = """\
policy = 1

[[allow]]
id = "alive"
call = "ping"

[[allow]]
id = "compared"
call = "file.*"
args = {{ path = ["{folder}", "{folder}/**"] }}
run-as = "{user}"
"""


class NativePostern:
    """Everything is gone at the end of a `with` block. Files are copied below `data`, on either end."""

    def __init__(self, setting, data):
        agent = setting.built("guest-agent/postern-agent")
        self._programs = lab.Programs(os.path.dirname(setting.built("host/posternd")), agent, None, None)
        self._data = data

    def __enter__(self):
        self._lab = lab.Lab(self._programs)
        try:
            self._lab.start_posternd()
            self._guest = self._lab.enroll(VM, grants=f"ping,file:{self._data}/**")
            self._guest.write("etc/postern/agent.toml", policy(self._data))
            self._guest.start()
            self._lab.green(VM)
            self._session = self._lab.session_pid(VM)
            self._agent = self._guest.agent_pid()
        except BaseException:
            self._lab.close()
            raise
        return self

    def __exit__(self, *error):
        self._lab.close()

    def put(self, source, destination, *options):
        return self._copy(options, source, f"{VM}:{destination}")

    def get(self, source, destination, *options):
        return self._copy(options, f"{VM}:{source}", destination)

    def ping_p99(self, seconds):
        """Of `postern ping` in milliseconds, from the caller to the agent and back, over so many seconds."""
        count = max(20, int(seconds / PING_SECONDS))
        done = self._lab.good("ping", VM, "-c", count, "-i", PING_SECONDS)
        return done["total"]["p99Ms"]

    def _copy(self, options, source, destination):
        """Gives what the command took, with CPU seconds of the host's processes and of the guest's."""
        before = self._host_cpu(), self._guest_cpu()
        took = timed(self._lab.command("--json", "cp", *options, source, destination))
        return took, took.cpu + self._host_cpu() - before[0], self._guest_cpu() - before[1]

    def _host_cpu(self):
        return cpu_seconds(self._session) + cpu_seconds(self._lab.posternd.pid)

    def _guest_cpu(self):
        # The openers are the broker's children and have ended.
        broker = self._guest.program.pid
        return cpu_seconds(self._agent) + cpu_seconds(broker) + cpu_of_ended_children(broker)


def policy(folder, user=None):
    """A guest's own lock: file calls below the folder, as `user` (this one)."""
    return POLICY.format(folder=folder, user=user or pwd.getpwuid(os.getuid()).pw_name)
