#pragma once
// What an opener does for its order, beneath the folder that it has opened. Blocks; each ends when the mover has gone.

#include <kj/io.h>

#include "guest-agent/files/opener-order.h"
#include "protocol/transfer/problem.h"
#include "transport/transfer/owner-names.h"

namespace postern::guest {

struct OpenerWork {
  const OpenerOrder& order;
  int root;  // order.root, opened
  transfer::OwnerNames& owners;
};

void carryOut(const OpenerWork& work, kj::AutoCloseFd socket);

// In place of it: nothing is done, and the mover hears why.
void refuse(const transfer::FileOrder& order, transfer::Problem problem, kj::AutoCloseFd socket);

}  // namespace postern::guest
