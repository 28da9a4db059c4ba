#include "host/client/file-order.h"

namespace postern::client {

void write(const FileOrder& order, schema::FileOrder::Builder to) {
  to.setCall(order.call);
  to.setPath(order.path.asBytes());
  to.setRecursive(order.recursive);
  to.setArchive(order.archive);
  to.setIntoDirectory(order.intoDirectory);
  to.setNoClobber(order.noClobber);
  to.setResume(order.resume);
  to.setVerify(order.verify);
  to.setSparse(order.sparse);
  to.setMakeParents(order.makeParents);
  to.setRate(order.bytesPerSecond);
}

kj::StringPtr policyName(FileCall call) {
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

FailureKind failureKindOf(transfer::ProblemKind kind) {
  switch (kind) {
    case transfer::ProblemKind::DENIED:
      return FailureKind::DENIED;
    case transfer::ProblemKind::UNSUPPORTED:
    case transfer::ProblemKind::BUSY:
      return FailureKind::REFUSED;
    default:
      return FailureKind::FAILED;
  }
}

}  // namespace postern::client
