#pragma once
// What is counted between two pages: counters by labels, and histograms. Both hold a bounded amount whoever makes the
// counts: a Counters has so many series and counts what would be another one under "other", and each stops at
// MAX_NUMBER (bounded-number.h); a Histogram has its buckets. One loop.

#include <kj/array.h>
#include <kj/map.h>
#include <kj/string.h>
#include <stdint.h>

#include <initializer_list>

#include "host/metrics/exposition.h"

namespace postern::host {

class Counters {
 public:
  // `labels`: names, which live as long as the process. At most `maxSeries`, and one whose labels all are "other".
  Counters(size_t maxSeries, std::initializer_list<kj::StringPtr> labels);

  // `values`: one for each label, in their order.
  void add(std::initializer_list<kj::StringPtr> values, uint64_t by = 1);
  uint64_t total() const;
  size_t size() const { return series.size(); }

  // Samples of the family that has begun; each with `more` before its own labels.
  void write(Exposition& to, Labels more = nullptr) const;

 private:
  struct Series {
    kj::Array<kj::String> values;
    uint64_t count = 0;
  };
  const size_t maxSeries;
  const kj::Array<kj::StringPtr> labels;
  kj::TreeMap<kj::String, Series> series;  // by the values, each behind its length

  Series& find(kj::ArrayPtr<const kj::StringPtr> values);
};

class Histogram {
 public:
  // `bounds`: rising, in the unit of the family, and there as long as this.
  explicit Histogram(kj::ArrayPtr<const double> bounds);

  void observe(double value);
  // What somebody else has observed with the same bounds: of each bucket alone, the last is for what is above all.
  void add(kj::ArrayPtr<const uint64_t> counts, double sum);
  uint64_t count() const;

  void write(Exposition& to, Labels labels = nullptr) const;

 private:
  kj::ArrayPtr<const double> bounds;
  kj::Array<uint64_t> counts;  // of each bucket alone
  double sum = 0;
};

}  // namespace postern::host
