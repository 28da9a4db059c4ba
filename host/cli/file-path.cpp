#include "host/cli/file-path.h"

#include <kj/vector.h>

#include "host/cli/failure-text.h"
#include "protocol/policy/names.h"
#include "protocol/policy/path-glob.h"
#include "protocol/transfer/limits.h"

namespace postern::cli {

namespace {

using Parsed = kj::OneOf<FilePath, kj::String>;

Parsed remotePath(kj::StringPtr vm, kj::StringPtr text) {
  auto as = kj::str(vm, ":");
  if (text.size() == 0) return kj::str("'", as, "' wants a path: write ", as, "/PATH");
  if (text[0] != '/') {
    return kj::str("'", shown(kj::str(as, text)), "' has a relative path, and nobody has a home in a guest: write ", as,
                   "/PATH; a file here is ./", shown(kj::str(as, text)));
  }
  FilePath path{kj::str(vm), kj::String()};
  kj::Vector<char> canonical;
  auto rest = text.slice(1);
  for (bool more = true; more;) {
    size_t end = rest.findFirst('/').orDefault(rest.size());
    auto component = rest.slice(0, end);
    more = end < rest.size();
    path.content = component.size() == 1 && component[0] == '.';
    path.slash = path.content || component.size() == 0;
    if (!path.slash) {
      if (component.size() > transfer::MAX_NAME_BYTES) {
        return kj::str("a name in '", as, "' has more than ", transfer::MAX_NAME_BYTES, " bytes");
      }
      if (component.size() == 2 && component[0] == '.' && component[1] == '.') {
        return kj::str("'..' is not followed in a guest's path: write '", shown(kj::str(as, text)), "' without it");
      }
      canonical.add('/');
      canonical.addAll(component);
    }
    if (more) rest = rest.slice(end + 1);
  }
  if (canonical.size() > transfer::MAX_PATH_BYTES) {
    return kj::str("a path in a guest has at most ", transfer::MAX_PATH_BYTES, " bytes");
  }
  path.path = canonical.empty() ? kj::str("/") : kj::heapString(canonical);
  return path;
}

FilePath localPath(kj::StringPtr text) {
  FilePath path{kj::String(), kj::str(text)};
  path.stream = text == "-"_kj;
  path.slash = text.endsWith("/");
  path.content = text == "."_kj || text.endsWith("/.");
  path.slash = path.slash || path.content;
  return path;
}

}  // namespace

kj::String FilePath::name() const {
  size_t end = path.size();
  while (end > 0 && path[end - 1] == '/') --end;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') --begin;
  return kj::heapString(path.slice(begin, end));
}

kj::String FilePath::written() const {
  if (!isRemote()) return kj::str(path);
  return kj::str(vm, ":", path, content ? (path == "/"_kj ? "." : "/.") : slash && path != "/"_kj ? "/" : "");
}

FilePath FilePath::clone() const {
  return {kj::str(vm), kj::str(path), slash, content, stream};
}

kj::String pathBelow(const FilePath& remote, kj::StringPtr untrustedPath) {
  KJ_IF_MAYBE (slash, untrustedPath.findFirst('/')) {
    return kj::str(remote.vm, ":", remote.path == "/"_kj ? ""_kj : remote.path.asPtr(), untrustedPath.slice(*slash));
  }
  return kj::str(remote.vm, ":", remote.path);
}

Parsed parseFilePath(kj::StringPtr word) {
  if (word.size() == 0) return kj::str("an empty word is no path");
  KJ_IF_MAYBE (colon, word.findFirst(':')) {
    auto slash = word.findFirst('/').orDefault(word.size());
    if (*colon < slash) {
      auto vm = kj::heapString(word.slice(0, *colon));
      if (!policy::isVmName(vm)) {
        return kj::str("'", shown(vm, 70), "' is no VM's name; a file here is ./", shown(word));
      }
      return remotePath(vm, word.slice(*colon + 1));
    }
  }
  return localPath(word);
}

}  // namespace postern::cli
