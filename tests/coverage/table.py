#!/usr/bin/env python3
"""The share of lines that ran, by folder, from what a build with --coverage has counted.

usage: table.py BUILD-FOLDER
"""
import collections
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRODUCT = ("protocol", "transport", "host", "guest-agent")


def counted(notes):
    """{(file, line): how often it ran}, of the product's own sources."""
    lines = collections.Counter()
    for file in notes:
        command = ["gcov", "--json-format", "--stdout", file.name]  # with the .gcda beside it, if it ran at all
        report = subprocess.run(command, cwd=file.parent, capture_output=True, check=True).stdout
        for source in json.loads(report)["files"]:
            name = os.path.relpath(os.path.join(file.parent, source["file"]), ROOT)
            if name.split("/")[0] in PRODUCT:
                for line in source["lines"]:
                    lines[name, line["line_number"]] += line["count"]
    return lines


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    lines = counted(file for folder in PRODUCT for file in sorted((build / folder).rglob("*.gcno")))
    folders = collections.defaultdict(lambda: [0, 0])
    for (name, _), count in lines.items():
        parts = name.split("/")[:-1]
        for depth in range(1, min(len(parts), 2) + 1):
            total = folders["/".join(parts[:depth])]
            total[0] += 1
            total[1] += count > 0
    for folder, (total, ran) in sorted(folders.items()):
        print(f"{folder:30} {ran:6} of {total:6} lines {100 * ran / total:6.1f} %")


if __name__ == "__main__":
    main()
