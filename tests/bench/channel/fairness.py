"""Fifty busy channels on one link, and what they leave to others."""

import json

from filecopy.report import Sample

from .native_channels import NativeChannels

CHANNELS = 50
LEAST = f"share of the slowest of {CHANNELS}"
MOST = f"share of the fastest of {CHANNELS}"
PING = f"postern ping p99 beside {CHANNELS}"
FAIR = 0.2
PING_MS = 5
INTERVAL = 0.005


def measure(setting, section):
    milliseconds = setting.amount(5000, 300)
    section.title = f"{CHANNELS} channels, host to guest, for {milliseconds / 1000:g} s; shares are of the mean"
    with NativeChannels(setting) as native:
        for _ in range(setting.runs):
            busy = native.begin("share", native.doors["host to guest", "sink"], CHANNELS, milliseconds)
            count = max(10, int(milliseconds / 1000 / INTERVAL / 2))
            pings = native.lab.good("ping", "web1", "-c", count, "-i", INTERVAL)
            out, _ = busy.communicate()
            shares = json.loads(out)
            mean = sum(shares) / len(shares)
            section.add(LEAST, "", Sample(min(shares) / mean))
            section.add(MOST, "", Sample(max(shares) / mean))
            section.add(PING, "ms", Sample(pings["total"]["p99Ms"]))
            section.add("sum of all", "MB/s", Sample(sum(shares) / 1e3 / milliseconds))
    section.bound(LEAST, at_least=1 - FAIR)
    section.bound(MOST, at_most=1 + FAIR)
    section.bound(PING, at_most=PING_MS)
