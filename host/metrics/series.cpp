#include "host/metrics/series.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include <algorithm>

#include "host/metrics/bounded-number.h"

namespace postern::host {

Counters::Counters(size_t maxSeries, std::initializer_list<kj::StringPtr> labels)
    : maxSeries(maxSeries), labels(kj::heapArray<kj::StringPtr>(labels)) {}

void Counters::add(std::initializer_list<kj::StringPtr> values, uint64_t by) {
  KJ_REQUIRE(values.size() == labels.size());
  auto& count = find(kj::arrayPtr(values.begin(), values.size())).count;
  count = boundedSum(count, bounded(by));
}

Counters::Series& Counters::find(kj::ArrayPtr<const kj::StringPtr> values) {
  kj::Vector<kj::String> lengths;
  for (auto value : values) lengths.add(kj::str(value.size(), ':', value));
  auto key = kj::strArray(lengths, "");
  KJ_IF_MAYBE (known, series.find(key)) return *known;
  auto own = kj::heapArrayBuilder<kj::String>(labels.size());
  if (series.size() < maxSeries) {
    for (auto value : values) own.add(kj::str(value));
  } else {
    key = kj::str();  // no other series has this key: each begins with a length
    for (size_t i = 0; i < labels.size(); ++i) own.add(kj::str("other"));
  }
  return series.findOrCreate(key, [&]() {
    return kj::TreeMap<kj::String, Series>::Entry{kj::mv(key), Series{own.finish()}};
  });
}

uint64_t Counters::total() const {
  uint64_t sum = 0;
  for (auto& entry : series) sum = boundedSum(sum, entry.value.count);
  return sum;
}

void Counters::write(Exposition& to, Labels more) const {
  kj::Vector<Label> all;
  for (auto& entry : series) {
    all.clear();
    all.addAll(more);
    for (auto i : kj::indices(labels)) all.add(Label{labels[i], entry.value.values[i]});
    to.sample(all.asPtr(), entry.value.count);
  }
}

Histogram::Histogram(kj::ArrayPtr<const double> bounds)
    : bounds(bounds), counts(kj::heapArray<uint64_t>(bounds.size() + 1)) {
  KJ_REQUIRE(std::is_sorted(bounds.begin(), bounds.end()));
  std::fill(counts.begin(), counts.end(), 0);
}

void Histogram::observe(double value) {
  ++counts[size_t(std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin())];
  sum += value;
}

void Histogram::add(kj::ArrayPtr<const uint64_t> more, double moreSum) {
  KJ_REQUIRE(more.size() == counts.size());
  for (auto i : kj::indices(counts)) counts[i] += more[i];
  sum += moreSum;
}

uint64_t Histogram::count() const {
  uint64_t all = 0;
  for (auto n : counts) all += n;
  return all;
}

void Histogram::write(Exposition& to, Labels labels) const {
  auto upTo = kj::heapArray<uint64_t>(counts.size());
  uint64_t all = 0;
  for (auto i : kj::indices(counts)) upTo[i] = all += counts[i];
  to.histogram(labels, bounds, upTo, sum);
}

}  // namespace postern::host
