"""How long a channel takes to be there, and a byte to go there and back through one that is open."""

from filecopy.report import Sample
from filecopy.rounds import interleave

from .native_channels import NativeChannels

FIRST_BYTE_MS = {"host to guest": 1.0, "VM to VM": 1.5, "guest to host": None}
ROUND_TRIP = 3
RELAY = "round trip, bare relay"


def milliseconds(nanoseconds):
    return Sample(nanoseconds / 1e6)


def measure(setting, section):
    section.title = "p50 of connect to first byte, and of a byte there and back, over Unix sockets"
    connects, trips = setting.amount(1000, 20), setting.amount(10_000, 100)
    with NativeChannels(setting) as native:
        contenders = {RELAY: lambda: milliseconds(native.measure("round-trips", native.relay, trips)["p50"])}
        for way in FIRST_BYTE_MS:
            greet, echo = native.doors[way, "greet"], native.doors[way, "echo"]
            contenders[f"first byte, {way}"] = lambda greet=greet: milliseconds(native.measure("first-byte", greet, connects)["p50"])
            contenders[f"round trip, {way}"] = lambda echo=echo: milliseconds(native.measure("round-trips", echo, trips)["p50"])
        interleave(setting, section, "ms", contenders)
    for way, bound in FIRST_BYTE_MS.items():
        if bound is not None:
            section.bound(f"first byte, {way}", at_most=bound)
        section.compare(f"round trip, {way}", RELAY, at_most=ROUND_TRIP)
    section.notes.append("host to guest is through `postern forward`; the bare relay is one process between two others")
