#pragma once
// Table: rows of cells, each column as wide as its widest cell. Cells are printable ASCII already, so a byte is a
// column.

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>

namespace postern::cli {

enum class Tint : uint8_t { NONE, GREEN, YELLOW, RED, GRAY };
enum class Colours : uint8_t { OFF, ON };

// `text` in that colour on a terminal.
kj::String tinted(kj::StringPtr text, Tint tint, Colours colours);

class Table {
 public:
  struct Cell {
    kj::String text;
    Tint tint = Tint::NONE;
  };

  explicit Table(std::initializer_list<kj::StringPtr> titles);
  KJ_DISALLOW_COPY(Table);

  // As many cells as there are titles.
  void add(kj::Array<Cell> cells);

  // Lines with their newlines, the titles first. No space at a line's end.
  kj::String format(Colours colours) const;

 private:
  kj::Vector<kj::Array<Cell>> rows;
};

}  // namespace postern::cli
