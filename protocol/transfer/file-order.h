#pragma once
// FileOrder: what is to be done with which path of a guest (schema::FileOrder), as a checked value. Each process that
// an order goes through checks it again.

#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

#include "protocol/transfer.capnp.h"

namespace postern::transfer {

using FileCall = schema::FileOrder::Call;
using Sparse = schema::FileOrder::Sparse;

struct FileOrder {
  FileCall call = FileCall::GET;
  kj::String path;  // isCanonicalPath(); any other bytes, not necessarily UTF-8
  bool recursive = false;
  bool archive = false;
  bool intoDirectory = false;
  bool noClobber = false;
  bool resume = false;
  bool verify = false;
  Sparse sparse = Sparse::AUTO;
  bool makeParents = false;
  bool special = false;
  uint64_t rate = 0;  // bytes of content a second; 0: as fast as it goes
};

// As policies name it: "file.get".
kj::StringPtr callName(FileCall call);
// get, put, list, stat. mkdir and remove are done without.
bool hasChannel(FileCall call);

// Or the rule that it breaks.
kj::OneOf<FileOrder, kj::StringPtr> parseFileOrder(schema::FileOrder::Reader untrusted);
FileOrder copy(const FileOrder& order);
void write(const FileOrder& from, schema::FileOrder::Builder to);

}  // namespace postern::transfer
