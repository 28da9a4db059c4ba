#include "host/metrics/exposition.h"

#include <kj/debug.h>
#include <kj/encoding.h>
#include <math.h>

#include <charconv>

namespace postern::host {

namespace {

bool isLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

kj::StringPtr nameOf(MetricType type) {
  switch (type) {
    case MetricType::COUNTER:
      return "counter";
    case MetricType::GAUGE:
      return "gauge";
    case MetricType::HISTOGRAM:
      break;
  }
  return "histogram";
}

bool isControl(char c) {
  return (c >= 0 && c < ' ') || c == '\x7f';
}

bool isAscii(kj::ArrayPtr<const char> text) {
  for (char c : text) {
    if (c < 0) return false;
  }
  return true;
}

}  // namespace

bool isMetricName(kj::StringPtr text) {
  for (char c : text) {
    if (!isLetter(c) && !(c >= '0' && c <= '9')) return false;
  }
  return text.size() > 0 && isLetter(text[0]);
}

void Exposition::family(kj::StringPtr name, MetricType type, kj::StringPtr help) {
  KJ_REQUIRE(isMetricName(name), name);
  begun.insert(kj::str(name));  // throws for one that has begun
  current = name;
  add("# HELP "_kj);
  add(name);
  add(" "_kj);
  for (char c : help) {
    KJ_REQUIRE(!isControl(c) && c != '\\', "a help text is one plain line", name);
    page.add(c);
  }
  add("\n# TYPE "_kj);
  add(name);
  add(" "_kj);
  add(nameOf(type));
  add("\n"_kj);
}

void Exposition::sample(Labels labels, uint64_t value) {
  addName(""_kj, labels);
  addNumber(value);
}

void Exposition::sample(Labels labels, double value) {
  addName(""_kj, labels);
  addNumber(value);
}

void Exposition::histogram(Labels labels, kj::ArrayPtr<const double> bounds, kj::ArrayPtr<const uint64_t> upTo,
                           double sum) {
  KJ_REQUIRE(upTo.size() == bounds.size() + 1);
  for (auto i : kj::indices(bounds)) {
    addName("_bucket"_kj, labels, bounds[i]);
    addNumber(upTo[i]);
  }
  addName("_bucket"_kj, labels, double(INFINITY));
  addNumber(upTo.back());
  addName("_sum"_kj, labels);
  addNumber(sum);
  addName("_count"_kj, labels);
  addNumber(upTo.back());
}

void Exposition::counter(kj::StringPtr name, kj::StringPtr help, uint64_t value) {
  family(name, MetricType::COUNTER, help);
  sample({}, value);
}

void Exposition::gauge(kj::StringPtr name, kj::StringPtr help, double value) {
  family(name, MetricType::GAUGE, help);
  sample({}, value);
}

kj::String Exposition::finish() {
  page.add('\0');
  return kj::String(page.releaseAsArray());
}

void Exposition::addNumber(uint64_t value) {
  char text[24];
  page.addAll(text, std::to_chars(text, text + sizeof(text), value).ptr);
  page.add('\n');
}

void Exposition::addNumber(double value) {
  if (isnan(value)) return add("NaN\n"_kj);
  if (isinf(value)) return add(value > 0 ? "+Inf\n"_kj : "-Inf\n"_kj);
  // As people write it, where that is not long; either is the shortest text that is read as this number.
  auto size = fabs(value);
  bool isPlain = size == 0 || (size >= 1e-6 && size < 1e15);
  char text[64];
  auto form = isPlain ? std::chars_format::fixed : std::chars_format::scientific;
  auto end = std::to_chars(text, text + sizeof(text), value, form);
  KJ_ASSERT(end.ec == std::errc());
  page.addAll(text, end.ptr);
  page.add('\n');
}

void Exposition::addName(kj::StringPtr suffix, Labels labels, kj::Maybe<double> bound) {
  KJ_REQUIRE(current.size() > 0, "a sample is of a family");
  add(current);
  add(suffix);
  char before = '{';
  auto begin = [&](kj::StringPtr name) {
    KJ_REQUIRE(isMetricName(name), name);
    page.add(before);
    before = ',';
    add(name);
    add("=\""_kj);
  };
  for (auto& label : labels) {
    begin(label.name);
    addValueOf(label);
    page.add('"');
  }
  KJ_IF_MAYBE (b, bound) {
    begin("le"_kj);
    addNumber(*b);
    page.back() = '"';
  }
  if (before == ',') page.add('}');
  page.add(' ');
}

void Exposition::addValueOf(const Label& label) {
  auto& text = label.value;
  bool isText = isAscii(text) || !kj::encodeUtf32(text).hadErrors;
  for (char c : text) {
    if (c == '\n') {
      add("\\n"_kj);
    } else if (c == '"' || c == '\\') {
      page.add('\\');
      page.add(c);
    } else {
      page.add(isControl(c) || (c < 0 && !isText) ? '?' : c);
    }
  }
}

}  // namespace postern::host
