#pragma once
// Report: the rows of postern-bench. Each run adds one sample to a row, a reference and ours, measured one after the
// other; a row shows their medians and the median, least and greatest of the runs' ratios, so that what slows the whole
// machine down for a while changes both numbers of a run and not the verdict.

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace postern::bench {

// What the ratio ours / reference should be.
struct Target {
  enum class Kind { AT_LEAST, AT_MOST, NONE };
  Kind kind;
  double ratio;

  static Target atLeast(double ratio) { return {Kind::AT_LEAST, ratio}; }
  static Target atMost(double ratio) { return {Kind::AT_MOST, ratio}; }
  // Shown for comparison; cannot be missed.
  static Target none() { return {Kind::NONE, 0}; }

  bool isMetBy(double measured) const;
};

struct Sample {
  double reference;
  double ours;
};

class Report {
 public:
  // The first sample of a name makes its row, behind those that are there.
  void add(kj::StringPtr name, kj::StringPtr unit, Target target, Sample sample);

  // Whether every row meets its target.
  bool isMet() const;
  kj::String asTable() const;
  kj::String asJson() const;

 private:
  struct Row {
    kj::String name;
    kj::String unit;
    Target target;
    kj::Vector<Sample> samples;
  };
  struct Summary {
    double reference, ours, ratio, least, greatest;
    bool met;
  };

  kj::Vector<Row> rows;

  Row& rowFor(kj::StringPtr name, kj::StringPtr unit, Target target);
  static Summary summarise(const Row& row);
};

}  // namespace postern::bench
