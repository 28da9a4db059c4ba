#include "host/cli/exit-status.h"

namespace postern::cli {

namespace {

constexpr ExitStatus BY_WEIGHT[] = {ExitStatus::INTERRUPTED, ExitStatus::DENIED,  ExitStatus::NOT_CONNECTED,
                                    ExitStatus::TIMED_OUT,   ExitStatus::REFUSED, ExitStatus::FAILED,
                                    ExitStatus::USAGE};

}  // namespace

ExitStatus exitStatusOf(client::FailureKind kind) {
  switch (kind) {
    case client::FailureKind::FAILED:
    case client::FailureKind::LAPSED:
      return ExitStatus::FAILED;
    case client::FailureKind::INVALID:
      return ExitStatus::USAGE;
    case client::FailureKind::DENIED:
      return ExitStatus::DENIED;
    case client::FailureKind::NOT_CONNECTED:
      return ExitStatus::NOT_CONNECTED;
    case client::FailureKind::TIMED_OUT:
      return ExitStatus::TIMED_OUT;
    case client::FailureKind::REFUSED:
      return ExitStatus::REFUSED;
    case client::FailureKind::INTERRUPTED:
      return ExitStatus::INTERRUPTED;
  }
  KJ_UNREACHABLE;
}

ExitStatus worst(ExitStatus a, ExitStatus b) {
  for (auto status : BY_WEIGHT) {
    if (a == status || b == status) return status;
  }
  return ExitStatus::DONE;
}

}  // namespace postern::cli
