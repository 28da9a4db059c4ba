#include "tests/fuzz/verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace postern::fuzz {

namespace {

bool isOurs(const kj::Exception& exception) {
  // Both are as the compiler was given them: below the same root.
  size_t root = strlen(__FILE__) - strlen("tests/fuzz/verdict.cpp");
  const char* file = exception.getFile();
  if (strncmp(file, __FILE__, root) != 0) return false;
  auto startsWith = [file = file + root](const char* folder) { return strncmp(file, folder, strlen(folder)) == 0; };
  return startsWith("protocol/") || startsWith("transport/") || startsWith("host/");
}

void judge(const kj::Exception& exception) {
  // DISCONNECTED is the world's fault, and how a session's end reaches its streams.
  if (exception.getType() != kj::Exception::Type::FAILED || !isOurs(exception)) return;
  fprintf(stderr, "assertion failed: %s\n", kj::str(exception).cStr());
  abort();
}

}  // namespace

void expect(bool condition, const char* sentence) {
  if (condition) return;
  fprintf(stderr, "does not hold: %s\n", sentence);
  abort();
}

void NoFailedAssertions::onRecoverableException(kj::Exception&& exception) {
  judge(exception);
  next.onRecoverableException(kj::mv(exception));
}

void NoFailedAssertions::onFatalException(kj::Exception&& exception) {
  judge(exception);
  next.onFatalException(kj::mv(exception));
}

}  // namespace postern::fuzz

// Freed memory is kept poisoned up to this much; the 256 MiB that is usual would be half of what a target may use.
extern "C" const char* __asan_default_options() {
  return "quarantine_size_mb=32";
}
