#pragma once
// Problem: why an entry, or all of a transfer, was not carried out (schema::Problem), as a checked value.

#include <kj/string.h>

#include "protocol/transfer.capnp.h"

namespace postern::transfer {

using ProblemKind = schema::Problem::Kind;

struct Problem {
  ProblemKind kind = ProblemKind::FAILED;
  kj::String detail;  // one line for a person
  kj::String rule;    // DENIED
};

inline Problem problem(ProblemKind kind, kj::String detail) {
  return {kind, kj::mv(detail), nullptr};
}
// A word for machines and tests: "no-space".
kj::StringPtr word(ProblemKind kind);
// Cuts the texts at their bounds; a kind of a later version becomes FAILED. Throws for a malformed message, which
// parseForward() and parseBackward() catch.
Problem parseProblem(schema::Problem::Reader untrusted);
void write(const Problem& from, schema::Problem::Builder to);
Problem copy(const Problem& problem);

}  // namespace postern::transfer
