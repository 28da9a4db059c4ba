#!/usr/bin/env python3
"""Fails when a C++ source is not as .clang-format has it."""

import pathlib
import subprocess
import sys

root = pathlib.Path(sys.argv[1]).resolve()
folders = ["protocol", "transport", "host", "guest-agent", "tests"]
files = sorted(str(p) for f in folders for p in (root / f).rglob("*") if p.suffix in (".h", ".cpp"))
if not files:
    sys.exit("no sources found: wrong folder?")
result = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=root)
print(f"{len(files)} sources")
sys.exit(result.returncode)
