"""Transcripts of docs/: what was typed where, and what it said. A test runs the commands again and compares.

    host# postern status                       a command; "host" is where it was typed
    VM    STATE  FOR    HEARTBEAT              what it said: numbers, times, fingerprints and spaces may be others
    ...                                        lines that were left out
"""

import pathlib
import re

DOCUMENTS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PROMPT = re.compile(r"(\w+)# (.*)")
LEFT_OUT = "..."
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[78])")
# What is another each time, and what stands for it.
VOLATILE = (
    (re.compile(r"\b[0-9a-f]{4}(-[0-9a-f]{4}){3,}\b"), "FINGERPRINT"),
    (re.compile(r"\b(\d+(\.\d+)? (us|ms|s|min|h|B|kB|KiB|MiB)(/s)?(?!\w) ?)+"), "QUANTITY "),
    # Of a file whose clock is ahead of its own ls shows the year.
    (re.compile(r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ +(\d\d:\d\d|\d{4})\b"), "TIME"),
    (re.compile(r"\d+(\.\d+)*"), "NUMBER"),
    (re.compile(r"\s+"), " "),
)


class Transcript:
    """The blocks of code below a heading of a document, as one."""

    def __init__(self, document, heading):
        section = re.split(rf"(?m)^#+ {re.escape(heading)}\n", (DOCUMENTS / document).read_text())[1]
        section = re.split(r"(?m)^#+ ", section)[0]
        self.steps = []  # [place, command, lines]
        for line in "\n".join(re.findall(r"(?ms)^```\n(.*?)\n```$", section)).splitlines():
            typed = PROMPT.fullmatch(line)
            if typed:
                self.steps.append((typed[1], typed[2], []))
            else:
                self.steps[-1][2].append(line)

    def run(self, places):
        """Types each command: `places` is place -> a function that runs a command and gives what it said. Prints all
        of it. Gives the commands that said something else than the document has.
        """
        wrong = []
        for place, command, lines in self.steps:
            said = lines_of(places[place](command))
            print("\n".join([f"{place}# {command}", *said]), flush=True)
            if not says(lines, said):
                wrong.append(command)
        return wrong


def lines_of(output):
    whole = output.strip("\r\n")
    return [as_a_terminal_shows(line) for line in whole.split("\n")] if whole else []


def as_a_terminal_shows(line):
    """Without what was written over."""
    parts = ESCAPES.sub("", line).split("\r")
    return next((part.rstrip() for part in reversed(parts) if part.strip()), "")


def says(expected, said):
    pattern = "".join(r"(.*\n)*?" if line == LEFT_OUT else re.escape(steady(line)) + "\n" for line in expected)
    return re.fullmatch(pattern, "".join(steady(line) + "\n" for line in said)) is not None


def steady(line):
    for pattern, word in VOLATILE:
        line = pattern.sub(word, line)
    return line.strip()
