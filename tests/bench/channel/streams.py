"""How fast one stream is, and four at once, against sealing and opening alone."""

from filecopy.report import Sample
from filecopy.rounds import interleave

from .native_channels import NativeChannels

BARE = "bare two-hop seal/open loop"
ONE = "VM to VM, one stream"
FOUR = "VM to VM, sum of four streams"
WAYS = ("host to guest", "guest to host")
BLOCK = 64 << 10
FOUR_OF_ONE, ONE_OF_BARE = 0.9, 0.75


def measure(setting, section):
    blocks = setting.amount(8192, 64)
    size = blocks * BLOCK
    section.title = f"{size >> 20} MiB from memory to memory; four streams have a quarter each"

    def speed(seconds):
        return Sample(size / 1e6 / seconds)

    with NativeChannels(setting) as native:

        def streams(way, count):
            return lambda: speed(native.measure("streams", native.doors[way, "sink"], count, size // count)["seconds"])

        contenders = {BARE: lambda: speed(native.measure("two-hop", blocks)["seconds"]), ONE: streams("VM to VM", 1),
                      FOUR: streams("VM to VM", 4)}
        for way in WAYS:
            contenders[f"{way}, one stream"] = streams(way, 1)
        interleave(setting, section, "MB/s", contenders)
    section.compare(ONE, BARE, at_least=ONE_OF_BARE)
    section.compare(FOUR, ONE, at_least=FOUR_OF_ONE)
    section.notes.append("the bare loop has four processes and three sockets, a stream between VMs six and five")
