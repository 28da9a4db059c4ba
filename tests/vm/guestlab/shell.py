"""A command on a console where a shell reads lines: its output stands between two marks."""

import dataclasses
import secrets
import shlex
import time

LONGEST_LINE = 4000  # a terminal in line mode cuts at 4096


@dataclasses.dataclass(frozen=True)
class CommandResult:
    status: int
    output: str  # stdout and stderr together


def run_command(console, command, timeout, is_over=lambda: None):
    """Types shell text that has no input, and gives its CommandResult; None at the deadline, or when is_over() before."""
    if any(len(line) > LONGEST_LINE for line in command.splitlines()):
        raise ValueError(f"a line of over {LONGEST_LINE} characters; put it into a file of the initramfs")
    if not all(character.isprintable() or character in "\n\t" for character in command):
        raise ValueError("control characters would act on the guest's terminal")
    # printf puts the markers together, so that no echo of this line can look like one.
    mark = secrets.token_hex(8)
    begin, end = f"<{mark} begin>\n".encode(), f"\n<{mark} end ".encode()
    start = console.position
    line = (
        f"printf '<%s begin>\\n' {mark}; sh -c {shlex.quote(command)} </dev/null 2>&1; "
        f"printf '\\n<%s end %d>\\n' {mark} $?\n"
    )
    console.send(line.encode())

    def finished():
        tail = console.raw(start).partition(begin)[2].partition(end)[2]
        return b">" in tail or is_over()

    if not console.wait(finished, time.monotonic() + timeout):
        return None
    output, found, rest = console.raw(start).partition(begin)[2].partition(end)
    if b">" not in rest:
        return None
    return CommandResult(int(rest.partition(b">")[0]), output.decode(errors="replace"))
