#pragma once
// Exposition: one page of metrics in Prometheus' text format, version 0.0.4.
//
//   # HELP postern_operations_total Operations that are over.
//   # TYPE postern_operations_total counter
//   postern_operations_total{call="info",outcome="done"} 12
//
// Guarantees that the page parses whatever the values of labels are: quotes, backslashes and newlines in them are
// escaped, other control characters and bytes of texts that are no UTF-8 become `?`. Names and help texts are ours:
// names that the format does not know, and a family that begins twice, are our bug.

#include <kj/array.h>
#include <kj/map.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>

#include <initializer_list>

namespace postern::host {

constexpr auto EXPOSITION_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"_kj;

enum class MetricType : uint8_t { COUNTER, GAUGE, HISTOGRAM };

struct Label {
  kj::StringPtr name;   // ours
  kj::StringPtr value;  // anybody's
};
using Labels = kj::ArrayPtr<const Label>;

// Whether the format takes it as the name of a family or, without colons, of a label.
bool isMetricName(kj::StringPtr text);

class Exposition {
 public:
  Exposition() = default;
  KJ_DISALLOW_COPY(Exposition);

  // Begins a family; the samples that follow are of it. `name` is borrowed until the next one begins.
  void family(kj::StringPtr name, MetricType type, kj::StringPtr help);
  void sample(Labels labels, uint64_t value);
  void sample(Labels labels, double value);
  void sample(std::initializer_list<Label> labels, uint64_t value) { sample(asPtr(labels), value); }
  void sample(std::initializer_list<Label> labels, double value) { sample(asPtr(labels), value); }
  // Of a histogram: the observations up to each bound, those of the earlier ones among them, then all.
  void histogram(Labels labels, kj::ArrayPtr<const double> bounds, kj::ArrayPtr<const uint64_t> upTo, double sum);

  // A family of one sample.
  void counter(kj::StringPtr name, kj::StringPtr help, uint64_t value);
  void gauge(kj::StringPtr name, kj::StringPtr help, double value);

  // The page; nothing may be added then.
  kj::String finish();

 private:
  kj::Vector<char> page;
  kj::StringPtr current;
  kj::HashSet<kj::String> begun;

  static Labels asPtr(std::initializer_list<Label> labels) { return kj::arrayPtr(labels.begin(), labels.size()); }
  void add(kj::StringPtr text) { page.addAll(text); }
  void addNumber(uint64_t value);
  void addNumber(double value);
  void addName(kj::StringPtr suffix, Labels labels, kj::Maybe<double> bound = nullptr);
  void addValueOf(const Label& label);
};

}  // namespace postern::host
