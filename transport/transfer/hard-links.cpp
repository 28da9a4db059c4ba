#include "transport/transfer/hard-links.h"

#include <errno.h>
#include <fcntl.h>

#include "transport/printable.h"
#include "transport/transfer/open-component.h"

namespace postern::transfer {

namespace {

bool isSame(int descriptor, FileId id) {
  struct stat status {};
  return fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && FileId::of(status) == id;
}

}  // namespace

void HardLinks::remember(kj::StringPtr path, int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) == 0) links.remember(kj::str(path), FileId::of(status));
}

kj::AutoCloseFd HardLinks::find(kj::ArrayPtr<const kj::String> components) const {
  auto at = openComponent(root, ".", O_PATH | O_DIRECTORY);
  for (size_t i = 0; i < components.size() && at != nullptr; ++i) {
    kj::StringPtr name = i == 0 && top.size() > 0 ? top : components[i];
    at = openComponent(at, name, i + 1 < components.size() ? O_PATH | O_DIRECTORY : O_PATH);
  }
  return at;
}

// T83
kj::Maybe<Problem> HardLinks::make(FileMaker& maker, DestinationFolder& folder, kj::StringPtr name,
                                   kj::ArrayPtr<const kj::String> linkTo) {
  auto path = kj::strArray(linkTo, "/");
  KJ_IF_MAYBE (id, links.find(path)) {
    auto file = find(linkTo);
    if (file != nullptr && isSame(file, *id)) {
      return maker.make(
          folder, name, [&](kj::StringPtr as) { return maker.link(file, folder.descriptor, as); },
          [](kj::StringPtr) {});
    }
  }
  return problem(ProblemKind::FAILED,
                 kj::str("is a hard link to ", printable(path, 200), ", which this transfer has not made"));
}

}  // namespace postern::transfer
