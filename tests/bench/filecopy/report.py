"""Samples, their medians, and Postern's ratios to its peers against the targets."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics


@dataclasses.dataclass
class Sample:
    """One copy. CPU is of all processes of a side, in seconds a GB; None where it was not looked at."""

    value: float
    host_cpu: float | None = None
    guest_cpu: float | None = None


@dataclasses.dataclass
class Row:
    name: str
    unit: str
    samples: list

    def figures(self):
        values = [sample.value for sample in self.samples]
        return {
            "name": self.name,
            "unit": self.unit,
            "runs": len(values),
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "hostCpu": self._cpu("host_cpu"),
            "guestCpu": self._cpu("guest_cpu"),
        }

    def _cpu(self, side):
        known = [getattr(sample, side) for sample in self.samples if getattr(sample, side) is not None]
        return statistics.median(known) if known else None


@dataclasses.dataclass
class Comparison:
    """Ours over a reference's, run by run, or a bound on a value of ours. The median has to keep the target."""

    name: str
    values: list
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self):
        median = statistics.median(self.values)
        return (self.at_least is None or median >= self.at_least) and (self.at_most is None or median <= self.at_most)

    def figures(self):
        return {
            "name": self.name,
            "median": statistics.median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "atLeast": self.at_least,
            "atMost": self.at_most,
            "met": self.is_met(),
        }


class Section:
    def __init__(self, name):
        self.name = name
        self.title = ""
        self.rows = {}
        self.comparisons = []
        self.notes = []  # what was left out and why, and what a reader has to know

    def add(self, name, unit, sample):
        self.rows.setdefault(name, Row(name, unit, [])).samples.append(sample)

    def compare(self, ours, reference, at_least=None, at_most=None):
        """Ratio of two rows. One that was left out takes its comparisons with it; the notes say why it was."""
        if ours not in self.rows or reference not in self.rows:
            return
        mine, theirs = ([sample.value for sample in self.rows[name].samples] for name in (ours, reference))
        if len(theirs) == 1:
            theirs *= len(mine)
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        self.comparisons.append(Comparison(f"{ours} / {reference}", ratios, at_least=at_least, at_most=at_most))

    def bound(self, name, at_most=None, at_least=None):
        """A row's own value must not be greater, or less."""
        if name in self.rows:
            values = [sample.value for sample in self.rows[name].samples]
            self.comparisons.append(Comparison(name, values, at_least=at_least, at_most=at_most))

    def as_text(self, judged):
        lines = [f"{self.name}: {self.title}", ""]
        lines.append(f"  {'':40}{'unit':>8}{'median':>10}{'min..max':>20}{'CPU s a GB: host  guest':>26}")
        for row in (row.figures() for row in self.rows.values()):
            spread = f"{row['min']:.4g}..{row['max']:.4g}"
            cpu = "".join(f"{'-' if row[side] is None else format(row[side], '.2f'):>7}" for side in ("hostCpu", "guestCpu"))
            lines.append(f"  {row['name']:40}{row['unit']:>8}{row['median']:>10.4g}{spread:>20}{cpu:>26}")
        if self.comparisons:
            lines += ["", f"  {'':60}{'median':>8}{'min..max':>16}{'target':>12}"]
        for each in self.comparisons:
            lines.append(_comparison_text(each.figures(), judged))
        lines += ["", *(f"  {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines) + "\n"


def _comparison_text(figures, judged):
    spread = f"{figures['min']:.3g}..{figures['max']:.3g}"
    target, verdict = "-", ""
    if figures["atLeast"] is not None and figures["atMost"] is not None:
        target = f"{figures['atLeast']:g}..{figures['atMost']:g}"
    elif figures["atLeast"] is not None:
        target = f">= {figures['atLeast']:g}"
    elif figures["atMost"] is not None:
        target = f"<= {figures['atMost']:g}"
    if judged and target != "-":
        verdict = "  ok" if figures["met"] else "  MISSED"
    return f"  {figures['name']:60}{figures['median']:>8.3g}{spread:>16}{target:>12}{verdict}"


class Report:
    def __init__(self, runs):
        self.runs = runs
        self.sections = []

    def section(self, name):
        self.sections.append(Section(name))
        return self.sections[-1]

    def is_met(self):
        return all(each.is_met() for section in self.sections for each in section.comparisons)

    def heading(self):
        now = machine()
        where = f"{now['cores']} cores of {now['processor']}, Linux {now['kernel']}"
        return f"{now['date']}, {where}, load {now['load']:.1f}, runs: {self.runs}\n"

    def as_json(self):
        sections = [
            {
                "name": section.name,
                "title": section.title,
                "rows": [row.figures() for row in section.rows.values()],
                "comparisons": [each.figures() for each in section.comparisons],
                "notes": section.notes,
            }
            for section in self.sections
        ]
        return json.dumps({"machine": machine(), "runs": self.runs, "met": self.is_met(), "sections": sections}, indent=2)


def machine():
    """What has to stand beside a figure."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }
