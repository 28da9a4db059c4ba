#!/usr/bin/python3
"""Every test that vsock-suite.md names is there, and no case is without an answer.

usage: check-vsock-suite.py
"""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
CASES = 41


def main():
    rows = re.findall(r"^\| (SOCK_\S+ .+?) \| (.+) \|$", (HERE / "vsock-suite.md").read_text(), re.MULTILINE)
    assert len(rows) == CASES, f"{len(rows)} cases, not {CASES}"
    sources = "".join(file.read_text() for file in (HERE.parent / "integration").glob("channel-*-test.py"))
    for case, ours in rows:
        named = re.findall(r"`(test_\w+)`", ours)
        assert named or ours.startswith(("not applicable: ", "the same")), f"{case}: no answer"
        for name in named:
            assert f"    def {name}(self" in sources, f"{case}: there is no {name}"


if __name__ == "__main__":
    sys.exit(main())
