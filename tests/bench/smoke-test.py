#!/usr/bin/python3
"""postern-bench runs and prints every row. What the ratios are is not looked at.

usage: smoke-test.py path/to/postern-bench
"""

import json
import math
import subprocess
import sys

EXPECTED = [
    "bulk",
    "bulk, CPU of both ends",
    "bulk, send buffer 32 KiB",
    "bulk, send buffer default",
    "file",
    "file, CPU of both ends",
    "file, small ones",
    "rpc-pipelined, 64 calls",
    "rpc-pipelined, 256 calls",
    "ping, p50",
    "ping, p99",
    "ping, PING record p50",
    "ping, PING record p99",
    "ping-under-bulk, p99",
    "ping-under-bulk, p50 of both",
    "ping-under-bulk, p99 of both",
    "ping-under-bulk, stream",
    "ping-under-bulk, send buffer 32 KiB",
    "ping-under-bulk, send buffer default",
    "handshake, CPU of both ends",
    "memory, idle link, heap",
    "memory, idle link, private pages",
    "memory, wake-ups of idle links",
    "memory, half-open, nothing came",
    "memory, half-open, half a HELLO",
    "memory, half-open, HELLO only",
    "policy verdict, 1,000 rules",
    "policy verdict, against a scan",
    "product-ping, link p50",
    "product-ping, total p50",
    "product-ping, link p99",
    "product-ping, total p99",
]


def main():
    bench = sys.argv[1]
    out = subprocess.run([bench, "--runs", "1", "--quick", "--json"], check=True, stdout=subprocess.PIPE).stdout
    rows = json.loads(out)
    names = [row["name"] for row in rows]
    assert names == EXPECTED, names
    for row in rows:
        assert row["runs"] == 1, row
        for field in "reference", "ours", "ratio", "min", "max":
            # A quick run may see no growth of pages, or no wake-up, at all.
            assert math.isfinite(row[field]) and row[field] >= 0, row
        assert row["reference"] > 0, row

    # One measurement alone, as a table.
    out = subprocess.run([bench, "--runs", "2", "--quick", "--only", "handshake"], check=True, stdout=subprocess.PIPE)
    lines = out.stdout.decode().splitlines()
    assert len(lines) == 2 and lines[1].startswith("handshake"), lines

    for bad in ["--runs", "0"], ["--runs", "x"], ["--only", "nothing"]:
        result = subprocess.run([bench] + bad, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert result.returncode != 0, bad


main()
