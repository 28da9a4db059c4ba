#include "tests/bench/report.h"

#include <stdio.h>

#include "tests/bench/quantile.h"

namespace postern::bench {

namespace {

kj::String format(const char* how, double value) {
  char text[64];
  snprintf(text, sizeof(text), how, value);
  return kj::heapString(text);
}

kj::String targetText(const Target& target) {
  switch (target.kind) {
    case Target::Kind::AT_LEAST:
      return kj::str(">= ", format("%.2f", target.ratio));
    case Target::Kind::AT_MOST:
      return kj::str("<= ", format("%.2f", target.ratio));
    case Target::Kind::NONE:
      return kj::str("-");
  }
  KJ_UNREACHABLE;
}

kj::StringPtr verdictText(const Target& target, bool met) {
  if (target.kind == Target::Kind::NONE) return "";
  return met ? "ok" : "MISSED";
}

}  // namespace

bool Target::isMetBy(double measured) const {
  switch (kind) {
    case Kind::AT_LEAST:
      return measured >= ratio;
    case Kind::AT_MOST:
      return measured <= ratio;
    case Kind::NONE:
      return true;
  }
  KJ_UNREACHABLE;
}

Report::Row& Report::rowFor(kj::StringPtr name, kj::StringPtr unit, Target target) {
  for (auto& row : rows) {
    if (row.name == name) return row;
  }
  return rows.add(Row{kj::str(name), kj::str(unit), target, {}});
}

void Report::add(kj::StringPtr name, kj::StringPtr unit, Target target, Sample sample) {
  rowFor(name, unit, target).samples.add(sample);
}

Report::Summary Report::summarise(const Row& row) {
  kj::Vector<double> references, ours, ratios;
  for (auto& sample : row.samples) {
    references.add(sample.reference);
    ours.add(sample.ours);
    ratios.add(sample.ours / sample.reference);
  }
  double ratio = quantile(ratios, 0.5);
  return {quantile(references, 0.5), quantile(ours, 0.5), ratio,
          quantile(ratios, 0),       quantile(ratios, 1), row.target.isMetBy(ratio)};
}

bool Report::isMet() const {
  for (auto& row : rows) {
    if (!summarise(row).met) return false;
  }
  return true;
}

kj::String Report::asTable() const {
  kj::Vector<kj::String> lines;
  char line[256];
  auto addLine = [&](const char* name, const char* unit, const char* reference, const char* ours, const char* ratio,
                     const char* spread, const char* target, const char* verdict) {
    snprintf(line, sizeof(line), "%-36s %-10s %10s %10s %6s %13s %8s %s\n", name, unit, reference, ours, ratio, spread,
             target, verdict);
    lines.add(kj::heapString(line));
  };
  addLine("name", "unit", "reference", "ours", "ratio", "min..max", "target", "");
  for (auto& row : rows) {
    auto summary = summarise(row);
    auto spread = kj::str(format("%.2f", summary.least), "..", format("%.2f", summary.greatest));
    addLine(row.name.cStr(), row.unit.cStr(), format("%.1f", summary.reference).cStr(),
            format("%.1f", summary.ours).cStr(), format("%.2f", summary.ratio).cStr(), spread.cStr(),
            targetText(row.target).cStr(), verdictText(row.target, summary.met).cStr());
  }
  return kj::strArray(lines, "");
}

kj::String Report::asJson() const {
  kj::Vector<kj::String> entries;
  for (auto& row : rows) {
    auto summary = summarise(row);
    entries.add(kj::str("  {\"name\": \"", row.name, "\", \"unit\": \"", row.unit, "\", \"runs\": ", row.samples.size(),
                        ", \"reference\": ", summary.reference, ", \"ours\": ", summary.ours,
                        ", \"ratio\": ", summary.ratio, ", \"min\": ", summary.least, ", \"max\": ", summary.greatest,
                        ", \"target\": \"", targetText(row.target), "\", \"verdict\": \"",
                        verdictText(row.target, summary.met), "\"}"));
  }
  return kj::str("[\n", kj::strArray(entries, ",\n"), "\n]\n");
}

}  // namespace postern::bench
