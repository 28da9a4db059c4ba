#!/usr/bin/env python3
"""Fails when docs/THREAT-MODEL.md claims what the tree does not show.

Each claim (a paragraph that begins with **T7.**) must name sources and functions that exist and tests that exist, and its
id must stand as a comment (// T7, or // T7, T8) in one of the named sources and in the tests. An id in the tree that the
document does not have is an error, too.

    threat-ids.py [ROOT]
"""

import pathlib
import re
import sys

CLAIM = re.compile(r"^\*\*(T\d+)\.\*\* (.*?)(?=^\*\*T\d+\.\*\* |^## |\Z)", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^\s*(?://|#) (T\d+(?:, T\d+)*)$", re.MULTILINE)
# `path`: `function()`, `function()`
SOURCE = re.compile(r"`((?:protocol|transport|host|guest-agent)/[^`]+)`:((?:,? `[^`]+`)+)")
TEST_NAME = re.compile(r'\bTEST_CASE\(((?:\s*"(?:[^"\\]|\\.)*")+)')
SUFFIXES = (".h", ".cpp", ".py")


def sources(root, *folders):
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path


def ids_in(text):
    return {name for group in COMMENT.findall(text) for name in group.split(", ")}


def test_names(texts):
    names = set()
    for text in texts:
        for literals in TEST_NAME.findall(text):
            names.add("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)))
    return names


class Claim:
    def __init__(self, name, body):
        text = " ".join(body.split())
        self.name = name
        places, _, tests = text.partition("Tests:")
        self.sources = [(path, re.findall(r"`([^`]+)`", functions)) for path, functions in SOURCE.findall(places)]
        self.tests = re.findall(r'"([^"]+)"', tests)


def problems_of(claim, root, ids_by_file, ids_in_tests, tests):
    if not claim.sources:
        yield "names no source"
    if not claim.tests:
        yield "names no test"
    for path, functions in claim.sources:
        if not (root / path).is_file():
            yield f"{path} does not exist"
            continue
        text = (root / path).read_text()
        for function in functions:
            word = function.removesuffix("()").split("::")[-1]
            if not re.search(re.escape(word) + r"\s*\(", text):
                yield f"{path} has no {function}"
        if claim.name not in ids_by_file.get(path, ()):
            yield f"// {claim.name} does not stand in {path}"
    for test in claim.tests:
        if test not in tests:
            yield f"there is no test {test!r}"
    if claim.name not in ids_in_tests:
        yield f"// {claim.name} stands in no test"


def problems(root):
    claims = [Claim(*match) for match in CLAIM.findall((root / "docs/THREAT-MODEL.md").read_text())]
    if not claims:
        yield "docs/THREAT-MODEL.md has no claims"
    names = [claim.name for claim in claims]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"{name}: claimed twice"

    ids_by_file = {
        str(path.relative_to(root)): ids_in(path.read_text())
        for path in sources(root, "protocol", "transport", "host", "guest-agent")
    }
    test_texts = {path: path.read_text() for path in sources(root, "tests")}
    ids_in_tests = set().union(*(ids_in(text) for text in test_texts.values()))
    tests = test_names(test_texts.values())

    for claim in claims:
        for problem in problems_of(claim, root, ids_by_file, ids_in_tests, tests):
            yield f"{claim.name}: {problem}"
    for name in sorted(set().union(ids_in_tests, *ids_by_file.values()) - set(names)):
        yield f"{name}: stands in the tree, but docs/THREAT-MODEL.md does not claim it"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()
    found = list(problems(root))
    for line in found:
        print(line)
    print(f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
