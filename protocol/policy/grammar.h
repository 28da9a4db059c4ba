#pragma once
// Reads the text of policy files into a Document: types, names, units and patterns are checked here, each by itself;
// what needs the whole document (does that group exist, can this rule ever apply) is check.h's.

#include <kj/array.h>

#include "protocol/policy/rule.h"

namespace postern::policy {

struct Grammar {
  Side side;
  // Top-level keys that belong to the program whose file this is: neither read nor an error.
  kj::ArrayPtr<const kj::StringPtr> otherKeys;
};

// Adds what the text holds. What is wrong goes to `problems`; the document then is incomplete.
void readInto(Document& document, const SourceText& source, const Grammar& grammar, Problems& problems);

}  // namespace postern::policy
