#pragma once
// Registry: the VMs that this host knows, each a file of its own, VMS/NAME.toml, written by posternd alone. What a file
// holds has been checked when it is read; a damaged one is an error that names it, and the other VMs go on.
//
//   uuid = "0123abcd-..."
//   transport = "vsock:42"           from the host's side
//   tags = ["prod"]
//   qmp = "/run/vm/web1.qmp"
//   blocked = true                   its port, by hand (`postern channel block`)
//   last-move = 1790000000000        the number of its last move to or from this host
//   moved-to = "postern-host-1:..."  the host that it was moved to: inactive here
//
// Beside it NAME.state, which the session process alone writes while the VM is here; NAME.export while it is moved
// away, what was sealed; and UUID.last-move of a VM that was moved and then removed.

#include <kj/map.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "host/files/files.h"
#include "protocol/bundle.h"
#include "protocol/identity.h"
#include "protocol/state-file.h"
#include "transport/endpoint.h"

namespace postern::host {

constexpr size_t MAX_VMS = 4096;  // as many as the status board has room for
constexpr size_t MAX_VM_TAGS = 32;

struct VmRecord {
  kj::String name;
  VmId uuid;
  kj::String transport;  // as written; parses
  kj::Vector<kj::String> tags;
  kj::String qmp;  // empty: none
  bool blocked = false;
  uint64_t lastMove = 0;  // milliseconds since 1970 by the exporting host's clock, or more; 0: never moved
  kj::String movedTo;     // a transfer key; empty: the VM is here

  VmRecord clone() const;
  Endpoint endpoint() const;
  bool isMoved() const { return movedTo.size() > 0; }
};
// A move's number fits everywhere.
constexpr uint64_t MAX_MOVE_NUMBER = uint64_t(1) << 53;

// The first thing that is wrong with it, for a person; also where a record would be for a listener of the guest's own
// (vsock:any).
kj::Maybe<kj::String> findProblem(const VmRecord& record);

class Registry {
 public:
  struct Loaded {
    kj::Own<Registry> registry;
    kj::Vector<kj::String> problems;  // of files that were left out
  };
  static kj::OneOf<Loaded, FileError> open(kj::StringPtr folder);
  explicit Registry(kj::StringPtr folder) : folder(kj::str(folder)) {}
  KJ_DISALLOW_COPY(Registry);

  kj::Maybe<const VmRecord&> find(kj::StringPtr name) const;
  // Adds or replaces; on disk when it returns. A uuid, and an address, belong to one VM; one that is moved away has
  // none.
  kj::Maybe<FileError> put(VmRecord record);
  // Its keys, too. Its last move is remembered.
  kj::Maybe<FileError> remove(kj::StringPtr name);
  // put() with keys that came along. Of what a crash may leave only the whole counts.
  kj::Maybe<FileError> adopt(VmRecord record, const HostState& state);
  // Of a VM that is, or was, here; 0: none.
  uint64_t lastMove(const VmId& uuid) const;

  kj::String exportFile(kj::StringPtr name) const { return fileOf(name, ".export"); }
  // The VM's keys. Only while there is no session process, which writes them.
  kj::OneOf<kj::Own<HostState>, FileError> readState(kj::StringPtr name) const;

  // For the VM's session process; made if it is not there.
  kj::OneOf<kj::AutoCloseFd, FileError> openState(kj::StringPtr name) const;

  size_t size() const { return records.size(); }
  template <typename Do>
  void forEach(Do&& what) const {
    for (auto& entry : records) what(entry.value);
  }

 private:
  const kj::String folder;
  kj::TreeMap<kj::String, VmRecord> records;

  kj::Maybe<FileError> check(const VmRecord& record) const;
  kj::Maybe<FileError> dropStrayState(kj::StringPtr name) const;
  kj::Maybe<FileError> write(VmRecord record);
  kj::OneOf<StateFile, FileError> openStateFile(kj::StringPtr name) const;
  kj::Maybe<kj::String> findClash(const VmRecord& record) const;
  kj::String fileOf(kj::StringPtr name, kj::StringPtr ending) const { return kj::str(folder, '/', name, ending); }
};

}  // namespace postern::host
