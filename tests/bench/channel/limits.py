"""How well limits are kept."""

import json
import time

import channels
from filecopy.report import Sample

from .native_channels import NativeChannels

RATES = {"rule, 20 MiB/s": ('rate = "20 MiB/s", burst = "1 MiB"', "", 20 << 20),
         "port, 200 MiB/s": ("", 'rate = "200 MiB/s"\nburst = "8 MiB"', 200 << 20)}
FLOWS = 3
WARM_UP_MS = 1000
KEPT = 0.05


def measure(setting, section):
    milliseconds = setting.amount(10_000, 500)
    section.title = f"{FLOWS} streams between VMs for {milliseconds / 1000:g} s: their sum, of what the limit allows"
    with NativeChannels(setting) as native:
        for _ in range(setting.runs):
            for name, (limit, port, rate) in RATES.items():
                section.add(name, "", kept(native, limit, port, rate, milliseconds))
    for name in RATES:
        section.bound(name, at_most=1 + KEPT, at_least=1 - KEPT)


def kept(native, limit, port, rate, milliseconds):
    more = f"limit = {{ {limit} }}\n" if limit else ""
    rules = [*channels.ALL_RULES[:2], channels.allow("between", "any", "any", "service.*", more)]
    native.lab.policy(*rules, f"[port.web1]\n{port}\n" if port else "")
    flows = native.begin("share", native.doors["VM to VM", "sink"], FLOWS, WARM_UP_MS + milliseconds + 1000)
    time.sleep(WARM_UP_MS / 1000)
    before = passed(native)
    time.sleep(milliseconds / 1000)
    after = passed(native)
    out, _ = flows.communicate()
    assert len(json.loads(out)) == FLOWS
    native.lab.wait_board("web1", active=0)
    return Sample((after[1] - before[1]) / (after[0] - before[0]) / rate)


def passed(native):
    """When the board's figure changed, and to what: it is told some times a second."""
    first = native.lab.board("web1")["bytesOut"]
    while (now := native.lab.board("web1")["bytesOut"]) == first:
        time.sleep(0.001)
    return time.monotonic(), now
