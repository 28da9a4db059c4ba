#include "host/cli/table.h"

#include <kj/debug.h>

namespace postern::cli {

namespace {

kj::StringPtr codeOf(Tint tint) {
  switch (tint) {
    case Tint::NONE:
      return ""_kj;
    case Tint::GREEN:
      return "\033[32m"_kj;
    case Tint::YELLOW:
      return "\033[33m"_kj;
    case Tint::RED:
      return "\033[31m"_kj;
    case Tint::GRAY:
      return "\033[90m"_kj;
  }
  KJ_UNREACHABLE;
}

}  // namespace

kj::String tinted(kj::StringPtr text, Tint tint, Colours colours) {
  if (colours == Colours::OFF || tint == Tint::NONE) return kj::str(text);
  return kj::str(codeOf(tint), text, "\033[0m");
}

Table::Table(std::initializer_list<kj::StringPtr> titles) {
  auto row = kj::heapArrayBuilder<Cell>(titles.size());
  for (auto title : titles) row.add(Cell{kj::str(title)});
  rows.add(row.finish());
}

void Table::add(kj::Array<Cell> cells) {
  KJ_REQUIRE(cells.size() == rows[0].size(), "a row of another width");
  rows.add(kj::mv(cells));
}

kj::String Table::format(Colours colours) const {
  auto widths = kj::heapArray<size_t>(rows[0].size());
  for (auto& width : widths) width = 0;
  for (auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = kj::max(widths[i], row[i].text.size());
  }
  kj::Vector<char> out;
  for (auto& row : rows) {
    size_t owed = 0;  // spaces, written only before a cell that has something
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i].text.size() > 0) {
        for (; owed > 0; --owed) out.add(' ');
        out.addAll(tinted(row[i].text, row[i].tint, colours));
      }
      owed += widths[i] - row[i].text.size() + 2;
    }
    out.add('\n');
  }
  return kj::heapString(out);
}

}  // namespace postern::cli
