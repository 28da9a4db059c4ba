#pragma once
// What makes a run a finding, beside what the sanitizers see.

#include <kj/exception.h>
#include <kj/string.h>

namespace postern::fuzz {

// Ends the process with `sentence` unless `condition` holds. Not an exception, which a promise would swallow.
void expect(bool condition, const char* sentence);

// While it lives, an assertion of the product's that fails ends the process, also where a promise or a
// catching caller would have hidden it: whatever a peer sends, it must not reach one. Exceptions of the libraries are
// left alone; some inputs are meant to raise them.
class NoFailedAssertions final : public kj::ExceptionCallback {
 public:
  void onRecoverableException(kj::Exception&& exception) override;
  void onFatalException(kj::Exception&& exception) override;
  StackTraceMode stackTraceMode() override { return StackTraceMode::NONE; }
};

}  // namespace postern::fuzz
