#pragma once
// All that there is to see of a tree, as text by path, so that two trees can be compared and a difference read.

#include <kj/string.h>

#include <map>
#include <string>

namespace postern::test {

enum class PictureOf { CONTENT, EVERYTHING };  // kinds, names and bytes; also modes, times, owners, attributes, links

using TreePicture = std::map<std::string, std::string>;

TreePicture pictureOf(kj::StringPtr root, PictureOf what);
// Empty: they are the same. Else the first few differences.
std::string differences(const TreePicture& expected, const TreePicture& found);

}  // namespace postern::test
