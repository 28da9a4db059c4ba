#include "protocol/transfer/file-order.h"

#include <kj/debug.h>

#include "protocol/policy/path-glob.h"

namespace postern::transfer {

kj::StringPtr callName(FileCall call) {
  switch (call) {
    case FileCall::GET:
      return "file.get"_kj;
    case FileCall::PUT:
      return "file.put"_kj;
    case FileCall::LIST:
      return "file.list"_kj;
    case FileCall::STAT:
      return "file.stat"_kj;
    case FileCall::MKDIR:
      return "file.mkdir"_kj;
    case FileCall::REMOVE:
      return "file.remove"_kj;
  }
  KJ_UNREACHABLE;
}

bool hasChannel(FileCall call) {
  return call != FileCall::MKDIR && call != FileCall::REMOVE;
}

kj::OneOf<FileOrder, kj::StringPtr> parseFileOrder(schema::FileOrder::Reader untrusted) {
  if (untrusted.getCall() > FileCall::REMOVE) return "an order is of a kind that this version does not know"_kj;
  if (untrusted.getSparse() > Sparse::NEVER) return "an order says of holes what this version does not know"_kj;
  auto untrustedPath = untrusted.getPath().asChars();
  if (!policy::isCanonicalPath(untrustedPath)) {
    return "a path is not absolute and plain: no '//', '.', '..', NUL or slash at its end; at most 4095 bytes"_kj;
  }
  FileOrder order;
  order.call = untrusted.getCall();
  order.path = kj::heapString(untrustedPath);
  order.recursive = untrusted.getRecursive();
  order.archive = untrusted.getArchive();
  order.intoDirectory = untrusted.getIntoDirectory();
  order.noClobber = untrusted.getNoClobber();
  order.resume = untrusted.getResume();
  order.verify = untrusted.getVerify();
  order.sparse = untrusted.getSparse();
  order.makeParents = untrusted.getMakeParents();
  order.special = untrusted.getSpecial();
  order.rate = untrusted.getRate();
  return kj::mv(order);
}

FileOrder copy(const FileOrder& order) {
  return {order.call,          kj::heapString(order.path),
          order.recursive,     order.archive,
          order.intoDirectory, order.noClobber,
          order.resume,        order.verify,
          order.sparse,        order.makeParents,
          order.special,       order.rate};
}

void write(const FileOrder& from, schema::FileOrder::Builder to) {
  to.setCall(from.call);
  to.setPath(from.path.asBytes());
  to.setRecursive(from.recursive);
  to.setArchive(from.archive);
  to.setIntoDirectory(from.intoDirectory);
  to.setNoClobber(from.noClobber);
  to.setResume(from.resume);
  to.setVerify(from.verify);
  to.setSparse(from.sparse);
  to.setMakeParents(from.makeParents);
  to.setSpecial(from.special);
  to.setRate(from.rate);
}

}  // namespace postern::transfer
