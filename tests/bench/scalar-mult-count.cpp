#include "tests/bench/scalar-mult-count.h"

namespace postern::bench {

namespace {
ScalarMultCount count;
}  // namespace

ScalarMultCount scalarMultCount() {
  return count;
}

}  // namespace postern::bench

// The linker gives these names their meaning: __wrap_f is called where f is, __real_f is f.
extern "C" {
int __real_crypto_scalarmult(unsigned char* out, const unsigned char* scalar, const unsigned char* point);
int __real_crypto_scalarmult_base(unsigned char* out, const unsigned char* scalar);

int __wrap_crypto_scalarmult(unsigned char* out, const unsigned char* scalar, const unsigned char* point) {
  ++postern::bench::count.shared;
  return __real_crypto_scalarmult(out, scalar, point);
}

int __wrap_crypto_scalarmult_base(unsigned char* out, const unsigned char* scalar) {
  ++postern::bench::count.base;
  return __real_crypto_scalarmult_base(out, scalar);
}
}
