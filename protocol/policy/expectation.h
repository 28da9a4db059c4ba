#pragma once
// Running the tests that a policy carries.

#include "protocol/policy/policy.h"

namespace postern::policy {

struct TestResult {
  const Expectation* test;  // of the policy
  Decision decision;
  bool passed;

  // "user:alice, power.shutdown of web1: wanted deny, was allowed by rule 'ops' (ops.toml:7)".
  kj::String toString() const;
};

// All of the policy's tests, in the order of files and lines.
kj::Vector<TestResult> runTests(const Policy& policy);

}  // namespace postern::policy
