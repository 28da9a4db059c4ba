#include "host/daemon/policy-store.h"

#include "protocol/policy/bounds.h"

namespace postern::host {

namespace {

kj::Vector<kj::String> oneLine(kj::String text) {
  kj::Vector<kj::String> lines;
  lines.add(kj::mv(text));
  return lines;
}

}  // namespace

PolicyStore::PolicyStore(kj::StringPtr policyFolder, kj::StringPtr grantsFolder)
    : policyFolder(kj::str(policyFolder)),
      grantsFolder(kj::str(grantsFolder)),
      policy(policy::Policy::denyAll(policy::Side::HOST)) {}

kj::Maybe<kj::Vector<kj::String>> PolicyStore::reload() {
  auto problems = load(nullptr);
  reloadCounts.lastDone = problems == nullptr;
  if (reloadCounts.lastDone) reloadCounts.lastDoneAt = kj::systemPreciseCalendarClock().now();
  ++(reloadCounts.lastDone ? reloadCounts.done : reloadCounts.failed);
  return problems;
}

kj::OneOf<kj::Vector<PolicyStore::File>, FileError> PolicyStore::readFolder(kj::StringPtr folder) const {
  auto names = listFolder(folder, ".toml");
  if (names.is<FileError>()) return kj::mv(names.get<FileError>());
  kj::Vector<File> files;
  for (auto& name : names.get<kj::Vector<kj::String>>()) {
    auto path = kj::str(folder, '/', name);
    // A file that vanishes between the two steps is an error like any other: what was meant is not known.
    auto text = readFile(path, policy::MAX_FILE_BYTES);
    if (text.is<FileError>()) return kj::mv(text.get<FileError>());
    files.add(File{kj::mv(path), kj::mv(text.get<kj::String>())});
  }
  return kj::mv(files);
}

kj::Maybe<kj::Vector<kj::String>> PolicyStore::load(kj::Maybe<File> replacing) {
  kj::Vector<File> files;
  for (kj::StringPtr folder : {kj::StringPtr(policyFolder), kj::StringPtr(grantsFolder)}) {
    auto read = readFolder(folder);
    if (read.is<FileError>()) return oneLine(kj::mv(read.get<FileError>().text));
    for (auto& file : read.get<kj::Vector<File>>()) {
      KJ_IF_MAYBE (replaced, replacing) {
        if (file.path == replaced->path) continue;
      }
      files.add(kj::mv(file));
    }
  }
  KJ_IF_MAYBE (replaced, replacing) {
    if (replaced->text.size() > 0) files.add(kj::mv(*replaced));
  }
  auto sources = KJ_MAP(file, files) {
    return policy::SourceText{file.path, file.text};
  };
  auto loaded = policy::load(sources, {policy::Side::HOST, kj::systemPreciseCalendarClock().now()});
  KJ_IF_MAYBE (problems, loaded.tryGet<kj::Array<policy::Problem>>()) {
    kj::Vector<kj::String> lines;
    for (auto& problem : *problems) lines.add(problem.toString());
    return kj::mv(lines);
  }
  auto& good = loaded.get<policy::Loaded>();
  policy = kj::mv(good.policy);
  lastWarnings.clear();
  for (auto& warning : good.warnings) lastWarnings.add(warning.toString());
  return nullptr;
}

kj::Maybe<PolicyStore::NotPut> PolicyStore::putGrants(kj::StringPtr vm, kj::StringPtr text, kj::StringPtr guestHalf) {
  auto path = grantFile(vm);
  auto onDisk = [](FileError& error) { return NotPut{NotPut::Why::DISK, oneLine(kj::mv(error.text))}; };
  KJ_IF_MAYBE (error, makeFolder(grantsFolder, 0755)) return onDisk(*error);
  KJ_IF_MAYBE (problems, load(File{kj::str(path), kj::str(text)})) {
    return NotPut{NotPut::Why::POLICY, kj::mv(*problems)};
  }
  auto failed = replaceFile(guestHalfFile(vm), guestHalf, 0644);
  if (failed == nullptr) failed = replaceFile(path, text, 0644);
  KJ_IF_MAYBE (error, failed) {
    (void)reload();  // without them again
    return onDisk(*error);
  }
  return nullptr;
}

kj::String PolicyStore::guestHalf(kj::StringPtr vm) const {
  if (readFile(grantFile(vm), policy::MAX_FILE_BYTES).is<FileError>()) return kj::String();
  auto half = readFile(guestHalfFile(vm), policy::MAX_FILE_BYTES);
  return half.is<kj::String>() ? kj::mv(half.get<kj::String>()) : kj::String();
}

kj::String PolicyStore::removeGrants(kj::StringPtr vm, kj::Vector<kj::String>& problems) {
  auto path = grantFile(vm);
  // Without its other half it means nothing.
  (void)removeFile(guestHalfFile(vm));
  auto read = readFile(path, policy::MAX_FILE_BYTES);
  if (read.is<FileError>()) return kj::String();
  KJ_IF_MAYBE (error, removeFile(path)) problems.add(kj::mv(error->text));
  KJ_IF_MAYBE (lines, reload()) {
    for (auto& line : *lines) problems.add(kj::mv(line));
  }
  return kj::mv(read.get<kj::String>());
}

}  // namespace postern::host
