#pragma once
// A policy's canonical form: the same bytes for the same rules, whatever their order, their files, comments and
// spacing. Lists are sorted and without repetition; every text is preceded by its length, so that no two policies have
// one form.

#include "protocol/policy/policy.h"

namespace postern::policy {

// What the rule says, its id included. Two rules of the same form are the same rule.
kj::String canonicalForm(const Rule& rule);
kj::String canonicalForm(const Group& group);
kj::String canonicalForm(const Port& port);
kj::String canonicalForm(const Expectation& test);

// BLAKE2b-256 of the canonical form of everything.
PolicyHash hashOf(const Document& document);

}  // namespace postern::policy
