"""A copy of this machine to install packages in: its own root, processes and network, which is none; gone when the test is.

The root is an overlay over this machine's, in memory: dpkg finds the dependencies installed that a build machine has, asks
no archive, and changes nothing here. There is no systemd in it, so services are started by hand, as their units say.
"""
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g,mode=0755 none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$4,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount --rbind /dev dev
mount -t proc proc proc
mount --rbind /sys sys 2>/dev/null || true
mount -t tmpfs -o mode=0755 none run
mount -t tmpfs -o mode=1777 none tmp
mkdir tmp/packages
cp "$2"/* tmp/packages
cp -r "$3" tmp/test
exec chroot . sleep infinity
"""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "PYTHONDONTWRITEBYTECODE": "1"}


class Machine:
    """`test` is a folder that becomes /tmp/test, `packages` the one whose files are in /tmp/packages; `lower` a root that it is
    a copy of instead of this machine's."""

    def __init__(self, packages, test, lower="/"):
        self.folder = tempfile.mkdtemp(prefix="postern-machine-")
        command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", SET_UP, "sh", self.folder,
                   str(packages), str(test), str(lower)]
        self.outer = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.started = []
        self.pid = self.wait_for(self.find_first, "the machine did not start")

    def find_first(self):
        """Its process 1, once it sleeps."""
        if self.outer.poll() is not None:
            raise AssertionError(f"the machine did not start: status {self.outer.returncode}")
        try:
            children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
            for child in children:
                if pathlib.Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep\0"):
                    return int(child)
        except FileNotFoundError:
            pass
        return None

    @staticmethod
    def wait_for(condition, what, seconds=30):
        end = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(what() if callable(what) else what)
            time.sleep(0.05)

    def command(self, *words):
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd=/", *map(str, words)]

    def run(self, *words, status=0, env=None, **options):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
                              env={**ENVIRONMENT, **(env or {})}, **options)
        if status is not None and done.returncode != status:
            raise AssertionError(f"{words}: exit status {done.returncode}, not {status}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, script, **options):
        return self.run("sh", "-ec", script, **options).stdout

    def start(self, log, *words, env=None):
        """A process that goes on; what it says is in /tmp/LOG."""
        quoted = self.path(f"/tmp/{log}")
        with open(quoted, "ab") as output:
            process = subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       env={**ENVIRONMENT, **(env or {})})
        self.started.append(process)
        return process

    def path(self, inside):
        """Of a file in the machine, as seen from here."""
        return f"/proc/{self.pid}/root{inside}"

    def read(self, inside):
        with open(self.path(inside), errors="replace") as file:
            return file.read()

    def new_files(self):
        """Paths in it that this machine does not have, and everything in its /run."""
        upper = f"{self.folder}/upper"
        # Character devices are the overlay's marks of what was removed.
        command = ["nsenter", f"--target={self.pid}", "--mount", "find", upper, "!", "-type", "c", "-printf", "/%P\\n"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        return {file for file in found if not os.path.lexists(file)} | set(self.shell("find /run").splitlines())

    def processes(self, program):
        """Numbers, inside, of the processes of this program, replaced or not."""
        script = f'for p in /proc/[0-9]*; do case "$(readlink $p/exe)" in {program}|"{program} (deleted)") echo ${{p#/proc/}};; esac; done'
        return [int(word) for word in self.shell(script).split()]

    def close(self):
        # With its process 1 all of its processes end, and with them its mounts.
        self.outer.kill()
        self.outer.wait()
        for process in self.started:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
