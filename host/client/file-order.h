#pragma once
// FileOrder: what a program asks of a VM's files, as a plain value (schema::FileOrder says what each field means).

#include <kj/string.h>
#include <stdint.h>

#include "host/client/failure.h"
#include "protocol/transfer.capnp.h"
#include "protocol/transfer/problem.h"

namespace postern::client {

using FileCall = schema::FileOrder::Call;
using Sparse = schema::FileOrder::Sparse;

struct FileOrder {
  FileCall call;
  kj::String path;  // in the guest; canonical: absolute, no "//", no "." or "..", no '/' at its end
  bool recursive = false;
  bool archive = false;
  bool intoDirectory = false;
  bool noClobber = false;
  bool resume = false;
  bool verify = false;
  Sparse sparse = Sparse::AUTO;
  bool makeParents = false;
  uint64_t bytesPerSecond = 0;  // 0: as fast as it goes
};

void write(const FileOrder& order, schema::FileOrder::Builder to);

// As policy knows it: "file.put". What openVm() is asked for, with the order's path.
kj::StringPtr policyName(FileCall call);

// As the failure of a whole operation: for programs that have one way to tell failures.
FailureKind failureKindOf(transfer::ProblemKind kind);

}  // namespace postern::client
