"""What a comparison runs on: the build, how much of it, and which of the programs it needs are there."""

import os
import pathlib
import shutil

INSTALL = "packaging/install-dependencies --comparison"
SYSTEM_PATH = "/usr/sbin:/sbin"
BUILT = ("host/posternd", "host/postern-session", "host/postern", "guest-agent/postern-agent", "tests/bench/bare-copy")
SFTP_SERVER = "/usr/lib/openssh/sftp-server"


class Missing(Exception):
    """The comparison cannot be made here; says what to do."""


class Setting:
    def __init__(self, build, runs, quick, postern):
        self.build = pathlib.Path(build).resolve()
        self.runs = runs
        self.quick = quick
        self.postern = postern  # False: the peers alone

    def require_programs(self, names=BUILT):
        absent = [name for name in names if not os.access(self.build / name, os.X_OK)]
        if absent:
            raise Missing(
                f"{self.build} has no {', '.join(absent)}: cmake --preset release && "
                "cmake --build --preset release, or --build TREE"
            )

    def built(self, name):
        """A program of this build, by its path below the tree."""
        return str(self.build / name)

    def amount(self, full, quick):
        return quick if self.quick else full

    def without(self, *programs, root=False):
        """Why a peer cannot run here, or None: it needs programs, or root.

        A quick run does without such a peer. Another one ends, since its table would lack what it is for; only rows that
        need root are left out, and the table says so.
        """
        absent = [name for name in programs if not find(name)]
        if absent:
            text = f"{' and '.join(absent)} not installed ({INSTALL})"
            if not self.quick:
                raise Missing(text)
            return text
        if root and os.geteuid() != 0:
            return "sshd needs root"
        return None


def find(program):
    """A program's path, also where only root's PATH looks; None if it is not installed."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
