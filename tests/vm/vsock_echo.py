"""Compiles vsock-echo.c and vsock-flood.c for guests. To be run inside guests only."""

import pathlib
import subprocess


def build_vsock_echo(folder):
    """A static program in `folder`."""
    return _build(folder, "vsock-echo")


def build_vsock_flood(folder):
    """A static program in `folder`."""
    return _build(folder, "vsock-flood")


def _build(folder, name):
    source = pathlib.Path(__file__).with_name(f"{name}.c")
    program = pathlib.Path(folder) / name
    command = ["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"cannot compile {source.name}:\n{done.stderr}")
    return program
