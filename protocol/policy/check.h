#pragma once
// What is wrong with a document as a whole: names used twice, groups that do not exist or hold themselves, rules that
// can never apply, too much of everything. After a document has passed without errors a Policy may be made of it.

#include "protocol/policy/rule.h"

namespace postern::policy {

// `now` in seconds since 1970: what has expired is a warning.
void checkDocument(const Document& document, int64_t now, Problems& problems);

}  // namespace postern::policy
