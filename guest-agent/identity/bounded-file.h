#pragma once
// Reading a small file whole, bounded, whatever it is: never blocks on a FIFO, never reads past `most`.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

namespace postern::guest {

enum class SymbolicLinks { FOLLOW, REFUSE };  // in the last component

struct FileMissing {};
struct FileTrouble {
  kj::String text;  // what is wrong, with the path and what to do
};
using FileContent = kj::OneOf<kj::Array<char>, FileMissing, FileTrouble>;

FileContent readBounded(kj::StringPtr path, size_t most, SymbolicLinks links = SymbolicLinks::FOLLOW);

}  // namespace postern::guest
