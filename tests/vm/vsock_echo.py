"""Compiles vsock-echo.c for the guests that prove the vsock recipes."""

import pathlib
import subprocess

SOURCE = pathlib.Path(__file__).with_name("vsock-echo.c")


def build_vsock_echo(folder):
    """A static program in `folder`. To be run inside guests only."""
    program = pathlib.Path(folder) / "vsock-echo"
    command = ["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cannot compile {SOURCE.name}:\n{done.stderr}")
    return program
