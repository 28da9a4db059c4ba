#pragma once
// What the system's errors are for a transfer: a kind that a caller branches on, and a line for a person.

#include <kj/string.h>

#include "protocol/transfer/problem.h"

namespace postern::transfer {

// What errno means: "PATH: cannot WHAT: why"; without a path where whoever shows it has one. `what` as in "be read".
Problem problemOf(int error, kj::StringPtr what, kj::StringPtr path);

// A policy's verdict: "denied by rule R", or that no rule allows it.
Problem deniedBy(kj::StringPtr rule);

// Name of the user that this process is, or its number. Asks the user database the first time: a process that is going
// to be confined calls it before.
kj::String actingUser();

// As the destination's, for whoever shows problems of both sides.
Problem atDestination(const Problem& problem);

}  // namespace postern::transfer
