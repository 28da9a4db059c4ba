#include "protocol/policy/problem.h"

#include <algorithm>
#include <tuple>

#include "protocol/policy/bounds.h"

namespace postern::policy {

kj::String KJ_STRINGIFY(const Place& place) {
  return place.line == 0 ? kj::heapString(place.file) : kj::str(place.file, ':', place.line);
}

kj::String Problem::toString() const {
  return kj::str(Place{file, line}, ": ", text);
}

bool Problems::isFull() const {
  return errors.size() >= MAX_PROBLEMS;
}

void Problems::add(kj::Vector<Problem>& list, Place place, kj::String text) {
  if (list.size() >= MAX_PROBLEMS) return;
  list.add(Problem{kj::heapString(place.file), place.line, kj::mv(text)});
}

kj::Array<Problem> Problems::sorted(kj::Vector<Problem>& list) {
  std::stable_sort(list.begin(), list.end(), [](const Problem& a, const Problem& b) {
    return std::make_tuple(kj::StringPtr(a.file), a.line) < std::make_tuple(kj::StringPtr(b.file), b.line);
  });
  return list.releaseAsArray();
}

}  // namespace postern::policy
