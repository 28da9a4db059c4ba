#include "protocol/policy/load.h"

#include "protocol/policy/bounds.h"
#include "protocol/policy/check.h"
#include "protocol/policy/expectation.h"
#include "protocol/policy/grammar.h"

namespace postern::policy {

namespace {

bool isWithinBounds(kj::ArrayPtr<const SourceText> sources, Problems& problems) {
  if (sources.size() > MAX_FILES) {
    problems.error({sources[MAX_FILES].fileName, 0}, "over ", MAX_FILES, " files of policy");
    return false;
  }
  size_t bytes = 0;
  for (auto& source : sources) {
    // One that is too long by itself is reported by name.
    if (source.text.size() <= MAX_FILE_BYTES) bytes += source.text.size();
    if (bytes > MAX_POLICY_BYTES) {
      problems.error({source.fileName, 0}, "the policy's files have over ", MAX_POLICY_BYTES, " bytes together");
      return false;
    }
  }
  return true;
}

}  // namespace

LoadResult load(kj::ArrayPtr<const SourceText> sources, const LoadOptions& options) {
  Problems problems;
  Document document;
  document.side = options.side;
  if (!isWithinBounds(sources, problems)) return problems.takeErrors();
  for (auto& source : sources) readInto(document, source, {options.side, options.otherKeys}, problems);
  int64_t now = (options.now - kj::UNIX_EPOCH) / kj::SECONDS;
  checkDocument(document, now, problems);
  if (problems.hasErrors()) return problems.takeErrors();

  auto policy = kj::heap<const Policy>(kj::mv(document));
  for (auto& result : runTests(*policy)) {
    if (!result.passed) problems.error(result.test->place, "test failed: ", result.toString());
  }
  if (problems.hasErrors()) return problems.takeErrors();
  return Loaded{kj::mv(policy), problems.takeWarnings()};
}

}  // namespace postern::policy
