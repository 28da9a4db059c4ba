#include "host/registry/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/move/transfer-key.h"
#include "protocol/locked.h"
#include "protocol/policy/names.h"
#include "protocol/policy/table-reader.h"
#include "transport/connection.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

constexpr size_t MAX_RECORD_BYTES = 16 << 10;
constexpr size_t MAX_MOVE_BYTES = 64;

kj::OneOf<VmRecord, kj::String> parseRecord(kj::StringPtr name, kj::StringPtr fileName, kj::StringPtr text) {
  auto parsed = policy::parseToml(text);
  if (parsed.is<policy::TomlError>()) {
    auto& error = parsed.get<policy::TomlError>();
    return kj::str(fileName, ':', error.line, ": ", error.text);
  }
  policy::Problems problems;
  policy::TableReader reader(parsed.get<policy::TomlTable>(), {fileName, 0}, "the VM", problems);
  VmRecord record;
  record.name = kj::str(name);
  KJ_IF_MAYBE (uuid, reader.text("uuid")) {
    KJ_IF_MAYBE (id, parseVmId(uuid->text)) {
      record.uuid = *id;
    } else {
      problems.error(uuid->place, "not a uuid");
    }
  } else {
    problems.error({fileName, 0}, "lacks its uuid");
  }
  KJ_IF_MAYBE (transport, reader.text("transport")) record.transport = kj::str(transport->text);
  KJ_IF_MAYBE (tags, reader.texts("tags")) {
    for (auto& tag : *tags) record.tags.add(kj::str(tag.text));
  }
  KJ_IF_MAYBE (qmp, reader.text("qmp")) record.qmp = kj::str(qmp->text);
  record.blocked = reader.boolean("blocked").orDefault(false);
  record.lastMove = static_cast<uint64_t>(reader.wholeNumber("last-move").orDefault(0));
  KJ_IF_MAYBE (key, reader.text("moved-to")) record.movedTo = kj::str(key->text);
  reader.finish();
  if (problems.hasErrors()) return problems.takeErrors()[0].toString();
  KJ_IF_MAYBE (problem, findProblem(record)) return kj::str(fileName, ": ", *problem);
  return kj::mv(record);
}

// A path or an endpoint: no quotes, backslashes or control characters get this far (endpoint.h, findProblem).
kj::String textOf(const VmRecord& record) {
  kj::Vector<kj::String> tags;
  for (auto& tag : record.tags) tags.add(kj::str('"', tag, '"'));
  return kj::str("# Written by posternd; `postern vm set` changes it.\nuuid = \"", toString(record.uuid),
                 "\"\ntransport = '", record.transport, "'\n",
                 tags.empty() ? kj::String() : kj::str("tags = [", kj::strArray(tags, ", "), "]\n"),
                 record.qmp.size() == 0 ? kj::String() : kj::str("qmp = '", record.qmp, "'\n"),
                 record.blocked ? "blocked = true\n"_kj : ""_kj,
                 record.lastMove == 0 ? kj::String() : kj::str("last-move = ", record.lastMove, '\n'),
                 record.isMoved() ? kj::str("moved-to = '", record.movedTo, "'\n") : kj::String());
}

bool fitsToml(kj::StringPtr text) {
  for (char c : text) {
    if (c < ' ' || c == '\'' || c == 127) return false;
  }
  return true;
}

}  // namespace

VmRecord VmRecord::clone() const {
  VmRecord copy{kj::str(name), uuid, kj::str(transport), {}, kj::str(qmp), blocked, lastMove, kj::str(movedTo)};
  for (auto& tag : tags) copy.tags.add(kj::str(tag));
  return copy;
}

Endpoint VmRecord::endpoint() const {
  auto parsed = parseEndpoint(transport);
  return kj::mv(parsed.get<Endpoint>());
}

kj::Maybe<kj::String> findProblem(const VmRecord& record) {
  if (!policy::isVmName(record.name)) {
    return kj::str("'", printable(record.name), "' is no name for a VM: ", policy::VM_NAME_RULE);
  }
  auto endpoint = parseEndpoint(record.transport);
  if (endpoint.is<EndpointError>()) return kj::mv(endpoint.get<EndpointError>().text);
  if (endpoint.get<Endpoint>().is<VsockEndpoint>()) {
    auto cid = endpoint.get<Endpoint>().get<VsockEndpoint>().cid;
    if (cid == CID_ANY || cid == CID_HOST || cid == 0) {
      return kj::str("transport: name the VM's own context id, as in vsock:42");
    }
  }
  if (!fitsToml(record.transport)) return kj::str("transport: a quote or a control character is not allowed there");
  if (record.qmp.size() > 0 &&
      (!record.qmp.startsWith("/") || record.qmp.size() > MAX_SOCKET_PATH_BYTES || !fitsToml(record.qmp))) {
    return kj::str("qmp: needs the absolute path of a Unix socket, at most ", MAX_SOCKET_PATH_BYTES, " bytes");
  }
  if (record.isMoved() && parseTransferKey(record.movedTo) == nullptr)
    return kj::str("moved-to: not the key of a host");
  if (record.tags.size() > MAX_VM_TAGS) return kj::str("a VM has at most ", MAX_VM_TAGS, " tags");
  for (auto& tag : record.tags) {
    if (!policy::isPlainName(tag)) return kj::str("'", printable(tag), "' is no tag: ", policy::PLAIN_NAME_RULE);
  }
  return nullptr;
}

kj::OneOf<Registry::Loaded, FileError> Registry::open(kj::StringPtr folder) {
  KJ_IF_MAYBE (error, makeFolder(folder, 0700)) return kj::mv(*error);
  auto names = listFolder(folder, ".toml");
  if (names.is<FileError>()) return kj::mv(names.get<FileError>());
  Loaded loaded{kj::heap<Registry>(folder), {}};
  for (auto& file : names.get<kj::Vector<kj::String>>()) {
    auto path = kj::str(folder, '/', file);
    auto name = kj::str(file.slice(0, file.size() - 5));
    auto text = readFile(path, MAX_RECORD_BYTES);
    if (text.is<FileError>()) {
      loaded.problems.add(kj::mv(text.get<FileError>().text));
      continue;
    }
    auto record = parseRecord(name, path, text.get<kj::String>());
    if (record.is<kj::String>()) {
      loaded.problems.add(kj::mv(record.get<kj::String>()));
    } else KJ_IF_MAYBE (clash, loaded.registry->findClash(record.get<VmRecord>())) {
      loaded.problems.add(kj::str(path, ": ", *clash));
    } else {
      loaded.registry->records.insert(kj::mv(name), kj::mv(record.get<VmRecord>()));
    }
  }
  return kj::mv(loaded);
}

kj::Maybe<const VmRecord&> Registry::find(kj::StringPtr name) const {
  return records.find(name);
}

// What it has in common with another VM, and may not.
kj::Maybe<kj::String> Registry::findClash(const VmRecord& record) const {
  auto endpoint = record.endpoint();
  for (auto& entry : records) {
    if (entry.key == record.name) continue;
    if (entry.value.uuid == record.uuid) return kj::str("its uuid is that of VM ", entry.key);
    if (entry.value.isMoved() || record.isMoved()) continue;  // has no address here
    auto other = entry.value.endpoint();
    if (toString(other) == toString(endpoint)) return kj::str("its transport is that of VM ", entry.key);
    if (endpoint.is<VsockEndpoint>() && other.is<VsockEndpoint>() &&
        endpoint.get<VsockEndpoint>().cid == other.get<VsockEndpoint>().cid) {
      return kj::str("its context id is that of VM ", entry.key);
    }
  }
  if (records.find(record.name) == nullptr && records.size() >= MAX_VMS) {
    return kj::str("this host has ", MAX_VMS, " VMs already");
  }
  return nullptr;
}

kj::Maybe<FileError> Registry::check(const VmRecord& record) const {
  KJ_IF_MAYBE (problem, findProblem(record)) return FileError{kj::mv(*problem)};
  KJ_IF_MAYBE (clash, findClash(record)) return FileError{kj::mv(*clash)};
  return nullptr;
}

// What an earlier VM of this name left: keys without a record belong to nobody.
kj::Maybe<FileError> Registry::dropStrayState(kj::StringPtr name) const {
  if (records.find(name) != nullptr || access(fileOf(name, ".toml").cStr(), F_OK) == 0) return nullptr;
  return removeFile(fileOf(name, ".state"));
}

kj::Maybe<FileError> Registry::write(VmRecord record) {
  KJ_IF_MAYBE (error, replaceFile(fileOf(record.name, ".toml"), textOf(record), 0600)) return kj::mv(*error);
  auto name = kj::str(record.name);
  records.upsert(kj::mv(name), kj::mv(record), [](VmRecord& old, VmRecord&& now) { old = kj::mv(now); });
  return nullptr;
}

kj::Maybe<FileError> Registry::put(VmRecord record) {
  KJ_IF_MAYBE (error, check(record)) return kj::mv(*error);
  KJ_IF_MAYBE (error, dropStrayState(record.name)) return kj::mv(*error);
  return write(kj::mv(record));
}

kj::Maybe<FileError> Registry::adopt(VmRecord record, const HostState& state) {
  KJ_IF_MAYBE (error, check(record)) return kj::mv(*error);
  auto path = fileOf(record.name, ".toml");
  if (records.find(record.name) == nullptr && access(path.cStr(), F_OK) == 0) {
    return FileError{kj::str(path, ": is there and could not be read; mend it, or remove it")};
  }
  KJ_IF_MAYBE (error, dropStrayState(record.name)) return kj::mv(*error);
  auto opened = openStateFile(record.name);
  KJ_IF_MAYBE (error, opened.tryGet<FileError>()) return kj::mv(*error);
  auto bytes = encodeState(state);
  KJ_DEFER(sodium_memzero(bytes.begin(), bytes.size()));
  KJ_IF_MAYBE (error, opened.get<StateFile>().write(bytes)) {
    return FileError{kj::str(fileOf(record.name, ".state"), ": ", describe(*error))};
  }
  return write(kj::mv(record));
}

kj::Maybe<FileError> Registry::remove(kj::StringPtr name) {
  KJ_IF_MAYBE (record, records.find(name)) {
    if (record->lastMove > 0) {
      auto path = fileOf(toString(record->uuid), ".last-move");
      KJ_IF_MAYBE (error, replaceFile(path, kj::str(record->lastMove, '\n'), 0600)) return kj::mv(*error);
    }
  }
  // The record first: keys without a record belong to nobody.
  KJ_IF_MAYBE (error, removeFile(fileOf(name, ".toml"))) return kj::mv(*error);
  records.erase(name);
  KJ_IF_MAYBE (error, removeFile(exportFile(name))) return kj::mv(*error);
  return removeFile(fileOf(name, ".state"));
}

uint64_t Registry::lastMove(const VmId& uuid) const {
  for (auto& entry : records) {
    if (entry.value.uuid == uuid && entry.value.lastMove > 0) return entry.value.lastMove;
  }
  auto path = fileOf(toString(uuid), ".last-move");
  if (access(path.cStr(), F_OK) != 0) return 0;
  auto text = readFile(path, MAX_MOVE_BYTES);
  auto number = text.is<kj::String>() ? strtoull(text.get<kj::String>().cStr(), nullptr, 10) : 0;
  return number > 0 ? number : MAX_MOVE_NUMBER;  // damaged: no export is known to be later
}

kj::OneOf<StateFile, FileError> Registry::openStateFile(kj::StringPtr name) const {
  auto fd = openState(name);
  KJ_IF_MAYBE (error, fd.tryGet<FileError>()) return kj::mv(*error);
  auto opened = StateFile::open(kj::mv(fd.get<kj::AutoCloseFd>()), geteuid());
  KJ_IF_MAYBE (error, opened.tryGet<StateFileError>()) {
    return FileError{kj::str(fileOf(name, ".state"), ": ", describe(*error))};
  }
  return kj::mv(opened.get<StateFile>());
}

kj::OneOf<kj::Own<HostState>, FileError> Registry::readState(kj::StringPtr name) const {
  auto opened = openStateFile(name);
  KJ_IF_MAYBE (error, opened.tryGet<FileError>()) return kj::mv(*error);
  KJ_IF_MAYBE (stored, opened.get<StateFile>().state()) {
    auto state = decodeHostState(*stored);
    if (state.is<kj::Own<HostState>>()) return kj::mv(state.get<kj::Own<HostState>>());
    return FileError{kj::str(fileOf(name, ".state"), ": ", describe(state.get<IdentityError>()))};
  }
  auto none = newLocked(HostState());
  none->vm = KJ_ASSERT_NONNULL(find(name)).uuid;
  return kj::mv(none);
}

kj::OneOf<kj::AutoCloseFd, FileError> Registry::openState(kj::StringPtr name) const {
  auto path = fileOf(name, ".state");
  constexpr int FLAGS = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  kj::AutoCloseFd fd(::open(path.cStr(), FLAGS));
  if (fd == nullptr && errno == ENOENT) {
    fd = kj::AutoCloseFd(::open(path.cStr(), FLAGS | O_CREAT | O_EXCL, 0600));
    if (fd != nullptr) {
      KJ_IF_MAYBE (error, syncFolderOf(path)) return kj::mv(*error);
    }
  }
  if (fd == nullptr) return FileError{kj::str(path, ": cannot open it: ", errorWords(errno))};
  return kj::mv(fd);
}

}  // namespace postern::host
