#!/usr/bin/env python3
"""Fails when a source includes what its layer must not know, or does what its layer must not do.

    protocol <- transport <- host | guest-agent          tests may include everything
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
if ROOT.is_file():
    ROOT = ROOT.parents[2]

# What each folder's sources may include of the project.
MAY_INCLUDE = {
    "protocol": {"protocol"},
    "transport": {"protocol", "transport"},
    "host": {"protocol", "transport", "host"},
    "guest-agent": {"protocol", "transport", "guest-agent"},
}
PROJECT_FOLDERS = set(MAY_INCLUDE) | {"tests", "packaging"}

# protocol/ opens no descriptor and reads no clock, file or environment; it and transport/ do not log.
CLOCKS = r"\b(clock_gettime|gettimeofday|systemPreciseMonotonicClock|systemCoarseMonotonicClock|std::chrono)\b"
# A call, not the declaration or the call of a method that is named like one.
OPENING = r"(?:(?<!\w)::|[=(!;{,]\s*|\breturn\s+)(open|openat|openat2|socket|accept4?|connect|pipe2?|getenv|fopen)\s*\("
RANDOMNESS = r"\b(randombytes_\w+|getrandom|getentropy|std::random_device)\b"
LOGGING = r"(\bspdlog\b|\bKJ_LOG\b|\bKJ_DBG\b|\bprintf\s*\(|std::cerr|std::cout)"
FORBIDDEN = {
    "protocol": {"a clock": CLOCKS, "an opened descriptor or the environment": OPENING, "randomness": RANDOMNESS, "logging": LOGGING},
    "transport": {"logging": LOGGING},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def without_comments(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"//[^\n]*", "", text)


def sources(folder):
    return sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in (".h", ".cpp", ".capnp"))


def problems():
    for folder, allowed in MAY_INCLUDE.items():
        for path in sources(folder):
            text = path.read_text()
            name = path.relative_to(ROOT)
            for included in INCLUDE.findall(text):
                target = included.split("/")[0]
                if "/" not in included or target not in PROJECT_FOLDERS:
                    yield f"{name}: include of {included!r} is not root-relative"
                elif target not in allowed:
                    yield f"{name}: {folder} must not know {target} ({included})"
            code = without_comments(text)
            for what, pattern in FORBIDDEN.get(folder, {}).items():
                for match in re.finditer(pattern, code):
                    line = code.count("\n", 0, match.start()) + 1
                    yield f"{name}:{line}: {folder} has {what}: {match.group(0).strip()}"


def main():
    found = list(problems())
    for line in found:
        print(line)
    checked = sum(len(sources(folder)) for folder in MAY_INCLUDE)
    print(f"{checked} sources, {len(found)} problems")
    if checked == 0:
        print("no sources found: wrong folder?")
    return 1 if found or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
