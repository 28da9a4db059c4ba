#include "host/cli/policy-files.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "host/cli/failure-text.h"
#include "host/cli/invocation.h"
#include "host/files/files.h"
#include "protocol/policy/bounds.h"

namespace postern::cli {

namespace {

template <typename T>
T valueOf(kj::OneOf<T, host::FileError> result) {
  KJ_IF_MAYBE (error, result.template tryGet<host::FileError>()) {
    fail(client::FailureKind::FAILED, kj::mv(error->text));
  }
  return kj::mv(result.template get<T>());
}

bool isFolder(kj::StringPtr path) {
  struct stat status {};
  if (stat(path.cStr(), &status) != 0) {
    int error = errno;
    fail(client::FailureKind::FAILED, kj::str(shown(path, 300), ": ", strerror(error)));
  }
  return S_ISDIR(status.st_mode);
}

}  // namespace

void readPolicy(kj::StringPtr path, kj::Vector<PolicyFile>& out) {
  if (!isFolder(path)) {
    out.add(PolicyFile{kj::str(path), valueOf(host::readFile(path, policy::MAX_FILE_BYTES))});
    return;
  }
  for (auto& name : valueOf(host::listFolder(path, ".toml"))) {
    auto file = kj::str(path, '/', name);
    auto text = valueOf(host::readFile(file, policy::MAX_FILE_BYTES));
    out.add(PolicyFile{kj::mv(file), kj::mv(text)});
  }
}

policy::LoadResult loadPolicy(kj::ArrayPtr<const PolicyFile> files) {
  auto sources = KJ_MAP(file, files) {
    return policy::SourceText{file.path, file.text};
  };
  return policy::load(sources, {policy::Side::HOST, kj::systemPreciseCalendarClock().now()});
}

}  // namespace postern::cli
