#pragma once
// The one place where what Cap'n Proto throws for a malformed message, or for one that leads in circles, becomes a
// FrameError.

#include <kj/exception.h>
#include <kj/one-of.h>

#include "protocol/transfer/frame.h"

namespace postern::transfer {

// `read` fills a T and returns null, or returns which rule was broken.
template <typename T, typename Read>
kj::OneOf<T, FrameError> parsing(Read&& read) {
  T result{};
  kj::Maybe<FrameError> error;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { error = read(result); })) {
    (void)exception;
    return FrameError{"a message is well-formed"};
  }
  KJ_IF_MAYBE (e, error) return *e;
  return kj::mv(result);
}

}  // namespace postern::transfer
