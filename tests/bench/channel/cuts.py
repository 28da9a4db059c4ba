"""How soon a channel is over that is forbidden: from the start of the command that forbids it until its program sees it."""

import time

import channels
from filecopy.report import Sample

from .native_channels import NativeChannels

CUT_MS = 100
# Beside those that are cut, so many others are decided again.
OTHERS = 20


def measure(setting, section):
    section.title = f"from the command's start until the program that asked for the channel sees its end, beside {OTHERS} others"
    with NativeChannels(setting) as native:
        lab = native.lab
        for _ in range(setting.runs):
            for name, deed, undo in deeds(lab):
                section.add(name, "ms", one(native, deed))
                undo()
    for name, _, _ in deeds(lab):
        section.bound(name, at_most=CUT_MS)


def deeds(lab):
    def allow_all():
        lab.policy(*channels.ALL_RULES)

    def close():
        number = next(channel["id"] for channel in lab.live("web1") if channel["to"] == "vm:db1")
        return lab.command("channel", "close", number)

    return (
        ("reload of a policy", lambda: reloaded(lab, *channels.ALL_RULES[:2]), allow_all),
        ("vm-to-vm switched off", lambda: reloaded(lab, *channels.ALL_RULES, vm_to_vm=False), allow_all),
        ("channel block", lambda: lab.command("channel", "block", "db1"), lambda: lab.good("channel", "unblock", "db1")),
        ("channel close", close, lambda: None),
    )


def reloaded(lab, *rules, vm_to_vm=True):
    """The policy lies there; what is left is to load it."""
    posternd, lab.posternd = lab.posternd, None
    lab.policy(*rules, vm_to_vm=vm_to_vm)
    lab.posternd = posternd
    return lab.command("policy", "reload")


def one(native, deed):
    others = [channels.connect_to(f"unix:{native.doors['host to guest', 'echo']}") for _ in range(OTHERS)]
    near = channels.connect_to(f"unix:{native.doors['VM to VM', 'echo']}")
    for connection in (*others, near):
        connection.sendall(b"x")
        channels.read_exactly(connection, 1)
    native.lab.wait_board("web1", active=OTHERS + 1)
    command = deed()
    began = time.monotonic()
    process = native.lab.start("deed", command)
    assert channels.is_over(near, 5), "it goes on"
    took = time.monotonic() - began
    assert process.process.wait(20) == 0, process.said()
    for connection in others:
        connection.sendall(b"x")
        channels.read_exactly(connection, 1)
        connection.close()
    near.close()
    native.lab.wait_board("web1", active=0)
    return Sample(took * 1e3)
