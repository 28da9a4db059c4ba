#pragma once
// Whether this build runs under a sanitizer, five to ten times slower. Loops over all bytes of something are complete
// in ordinary builds and take samples here.

#include <stddef.h>

namespace postern::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool SANITIZED = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool SANITIZED = true;
#else
constexpr bool SANITIZED = false;
#endif
#else
constexpr bool SANITIZED = false;
#endif

// Every place in an ordinary build; every seventh (no frame's or field's length) under a sanitizer.
constexpr size_t SAMPLE_STEP = SANITIZED ? 7 : 1;

}  // namespace postern::test
