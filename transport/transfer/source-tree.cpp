#include "transport/transfer/source-tree.h"

#include <errno.h>
#include <fcntl.h>

#include "protocol/transfer/limits.h"
#include "transport/printable.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/quota.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

kj::AutoCloseFd openPlace(const SourcePlace& place) {
  if (place.follow) {
    return kj::AutoCloseFd(openat(place.folder, place.name.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  return openComponent(place.folder, place.name.size() == 0 ? "."_kj : place.name, O_RDONLY | O_DIRECTORY);
}

Problem linkAsTop(const SourcePlace& place) {
  auto target = readLink(place.folder, place.name).orDefault(kj::str());
  return problem(ProblemKind::SYMBOLIC_LINK, kj::str("is a symbolic link to ", printable(target, 200),
                                                     ", and none is followed; name the path that "
                                                     "it leads to, or copy the link itself with -a"));
}

}  // namespace

unsigned char typeOf(const struct stat& status) {
  return static_cast<unsigned char>(IFTODT(status.st_mode));
}

int statusOf(const SourcePlace& place, struct stat& to) {
  bool itself = place.name.size() == 0;
  int flags = place.follow ? 0 : AT_SYMLINK_NOFOLLOW;
  if (fstatat(place.folder, itself ? "." : place.name.cStr(), &to, flags) == 0) return 0;
  return errno;
}

SourceTree::SourceTree(kj::ArrayPtr<const SourceTop> tops, const SourceOptions& options)
    : tops(tops), options(options) {}

bool SourceTree::walk(SourceVisitor& visitor) {
  for (auto& each : tops) {
    top = &each;
    levels.clear();
    scopePath.clear();
    scopePath.addAll(each.scopePath);
    if (!visitTop(visitor)) return false;
    while (!levels.empty()) {
      if (!step(visitor)) return false;
    }
  }
  return true;
}

bool SourceTree::visitTop(SourceVisitor& visitor) {
  SourcePlace place = {top->folder, top->name, top->as, top->follow && top->name.size() > 0};
  struct stat status {};
  // Denied things are not even looked at.
  KJ_IF_MAYBE (denied, deniedAt()) return visitor.failed(place, kj::mv(*denied));
  if (int error = statusOf(place, status)) return visitor.failed(place, problemOf(error, "be read", ""));
  if (S_ISDIR(status.st_mode) && !options.recursive && !options.listing) {
    return visitor.failed(place, problem(ProblemKind::IS_DIRECTORY, kj::str("is a directory; -r copies it")));
  }
  if (S_ISLNK(status.st_mode) && !options.recursive && !options.archive && !options.listing) {
    return visitor.failed(place, linkAsTop(place));
  }
  if (S_ISDIR(status.st_mode)) return enter(visitor, place);
  return visitor.leaf(place, typeOf(status));
}

bool SourceTree::step(SourceVisitor& visitor) {
  auto& level = levels.back();
  auto found = level.reader.next();
  KJ_IF_MAYBE (name, found) {
    scopePath.truncate(level.scopeBytes);
    if (options.scope != nullptr) {
      if (level.scopeBytes != 1) scopePath.add('/');
      scopePath.addAll(name->name);
    }
    if (!isComponent(name->name.asBytes())) {
      auto cut = kj::str(name->name.slice(0, kj::min(name->name.size(), MAX_NAME_BYTES)));
      return visitor.failed({level.reader.descriptor(), cut, cut, false}, problemOf(ENAMETOOLONG, "be sent", ""));
    }
    return visit(visitor, {level.reader.descriptor(), name->name, name->name, false}, name->type);
  }
  return leaveLevel(visitor);
}

bool SourceTree::leaveLevel(SourceVisitor& visitor) {
  int error = levels.back().reader.error();
  auto as = kj::mv(levels.back().as);
  levels.removeLast();
  if (!visitor.leave()) return false;
  if (error == 0) return true;
  // Not all that is in it was seen.
  int folder = levels.empty() ? top->folder.get() : levels.back().reader.descriptor();
  return visitor.failed({folder, as, as, false}, problemOf(error, "be read to its end", ""));
}

// T87
bool SourceTree::visit(SourceVisitor& visitor, const SourcePlace& place, unsigned char type) {
  KJ_IF_MAYBE (denied, deniedAt()) return visitor.failed(place, kj::mv(*denied));
  if (type == DT_UNKNOWN) {
    struct stat status {};
    if (int error = statusOf(place, status)) return visitor.failed(place, problemOf(error, "be read", ""));
    type = typeOf(status);
  }
  return type == DT_DIR ? enter(visitor, place) : visitor.leaf(place, type);
}

bool SourceTree::enter(SourceVisitor& visitor, const SourcePlace& place) {
  struct stat status {};
  KJ_IF_MAYBE (problem, tooDeep()) return visitor.failed(place, kj::mv(*problem));
  if (options.listing && depth() >= options.listDepth) {
    if (int error = statusOf(place, status)) return visitor.failed(place, problemOf(error, "be read", ""));
    KJ_IF_MAYBE (problem, unannounced()) return visitor.failed(place, kj::mv(*problem));
    return visitor.directory(place, status, -1) && visitor.leave();
  }
  auto directory = openPlace(place);
  if (directory == nullptr || fstat(directory, &status) != 0) {
    return visitor.failed(place, problemOf(errno, "be read", ""));
  }
  KJ_IF_MAYBE (problem, unannounced()) return visitor.failed(place, kj::mv(*problem));
  if (!visitor.directory(place, status, directory)) return false;
  levels.add(Level{DirectoryReader(kj::mv(directory)), kj::str(place.as), scopePath.size()});
  return true;
}

kj::Maybe<Problem> SourceTree::deniedAt() const {
  KJ_IF_MAYBE (scope, options.scope) {
    auto verdict = scope->decide(scopePath.asPtr());
    if (!verdict.allowed) return deniedBy(verdict.rule);
  }
  return nullptr;
}

kj::Maybe<Problem> SourceTree::tooDeep() const {
  KJ_IF_MAYBE (scope, options.scope) {
    if (scope->maxDepth > 0 && depth() >= scope->maxDepth) return beyondDepth(scope->maxDepth);
  }
  if (depth() >= MAX_DEPTH) {
    return problem(ProblemKind::TOO_MANY, kj::str("more than ", MAX_DEPTH, " directories inside each other"));
  }
  return nullptr;
}

// What could not be entered when it was counted was not announced either: so this is asked behind opening it.
kj::Maybe<Problem> SourceTree::unannounced() const {
  if (depth() < announcedDepth) return nullptr;
  return problem(ProblemKind::CHANGED, kj::str("was not there when the tree was counted; copy it again"));
}

kj::String SourceTree::shown(const SourcePlace& place) const {
  kj::Vector<char> path;
  path.addAll(top->shown);
  for (size_t i = 1; i <= levels.size(); ++i) {
    if (!path.empty() && path.back() != '/') path.add('/');
    path.addAll(i < levels.size() ? kj::StringPtr(levels[i].as) : place.as);
  }
  return kj::heapString(path.asPtr());
}

kj::String SourceTree::sentPath(const SourcePlace& place) const {
  kj::Vector<char> path;
  for (auto& level : levels) {
    path.addAll(level.as);
    path.add('/');
  }
  path.addAll(place.as);
  return kj::heapString(path.asPtr());
}

}  // namespace postern::transfer
