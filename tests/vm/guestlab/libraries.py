"""The shared libraries of a program, the dynamic loader among them."""

import re
import subprocess

from .errors import SetUpError

LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$")


def shared_libraries(program):
    """Absolute paths, as the loader will look for them. Empty for a static program.

    Sees what a program is linked with, not what it opens later by name (dlopen, NSS): those are added by hand.
    """
    done = subprocess.run(["ldd", str(program)], env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    if "not a dynamic executable" in done.stdout + done.stderr or "statically linked" in done.stdout:
        return []
    if done.returncode != 0:
        raise SetUpError(f"ldd cannot read {program}: {(done.stderr or done.stdout).strip()}")
    missing = re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)
    if missing:
        raise SetUpError(f"{program} needs libraries that are not installed: {', '.join(missing)}")
    matches = (LIBRARY.match(line) for line in done.stdout.splitlines())
    return [match.group(1) for match in matches if match]
