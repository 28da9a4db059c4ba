#include "host/client/file-order.h"

namespace postern::client {

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
