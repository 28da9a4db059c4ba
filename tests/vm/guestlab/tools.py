"""The system's own programs, as set-up steps use them."""

import os
import shutil
import subprocess

from .errors import SetUpError

NETWORK_TOOLS = ("apt-get", "mmdebstrap")
SYSTEM_PATH = "/usr/sbin:/sbin"  # depmod's folder is not on every user's PATH


def unpack_package(package, scratch, folder):
    """Downloads a Debian package into `scratch` and unpacks it to `folder`, without installing it. Gives the archive."""
    # apt would otherwise complain that its own user cannot write here.
    run_tool("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=scratch)
    archives = list(scratch.glob("*.deb"))
    if len(archives) != 1:
        raise SetUpError(f"apt-get downloaded {len(archives)} files for {package}, expected one")
    run_tool("dpkg", "-x", str(archives[0]), str(folder))
    return archives[0]


def run_tool(name, *arguments, cwd=None):
    """What a program of the system says; SetUpError with its reason unless it ends with 0."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if not program:
        raise SetUpError(f"{name} is not installed: run packaging/install-dependencies")
    environment = dict(os.environ, LC_ALL="C")
    done = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = lines[0] if lines else "no message"
        hint = "; is the network there, did 'apt-get update' run?" if name in NETWORK_TOOLS else ""
        raise SetUpError(f"{name} {' '.join(arguments)} failed ({reason}){hint}")
    return done.stdout
