#pragma once
// What a program asks of a VM's files: protocol/transfer/file-order.h's FileOrder, as this library's functions take it.
// Its `special` is not the caller's to say: the host's policy does.

#include "host/client/failure.h"
#include "protocol/transfer/file-order.h"
#include "protocol/transfer/problem.h"

namespace postern::client {

using transfer::FileCall;
using transfer::FileOrder;
using transfer::Sparse;

// As the failure of a whole operation: for programs that have one way to tell failures.
FailureKind failureKindOf(transfer::ProblemKind kind);

}  // namespace postern::client
