#include "protocol/bundle.h"

#include <doctest/doctest.h>
#include <string.h>

#include "protocol/policy/bounds.h"
#include "tests/support/test-random.h"

namespace postern {
namespace {

Bundle example() {
  test::TestRandom random;
  Bundle bundle;
  random.fill(kj::arrayPtr(bundle.vm.bytes.data(), 16));
  bundle.vmName = kj::str("web1");
  bundle.host = HostKeyPair::generate(random).publicKey();
  bundle.token = EnrolmentToken::generate(random);
  bundle.transport = kj::str("vsock:2:9700");
  bundle.grants = kj::str("policy = 1\n");
  bundle.lifetimeSeconds = 900;
  return bundle;
}

bool isError(kj::ArrayPtr<const char> text, BundleError error) {
  auto result = parseBundle(text);
  return result.is<BundleError>() && result.get<BundleError>() == error;
}

TEST_CASE("a bundle says what it was given, whatever white space it has gathered") {
  auto bundle = example();
  auto text = encodeBundle(bundle);
  CHECK(text.get().startsWith("postern-bundle-1:"));
  for (auto& form : {kj::str(text.get()), kj::str("\n ", text.get(), "\r\n\n"), kj::str(text.get(), '\0')}) {
    auto parsed = parseBundle(form);
    REQUIRE(parsed.is<kj::Own<Bundle>>());
    auto& again = *parsed.get<kj::Own<Bundle>>();
    CHECK((again.vm == bundle.vm));
    CHECK((again.vmName == bundle.vmName));
    CHECK(again.host == bundle.host);
    CHECK(again.token.bytes.equals(bundle.token.bytes));
    CHECK((again.transport == bundle.transport));
    CHECK((again.grants == bundle.grants));
    CHECK(again.lifetimeSeconds == 900);
  }
}

TEST_CASE("the largest bundle fits its bound") {
  auto bundle = example();
  bundle.vmName = kj::heapString(policy::MAX_NAME_BYTES);
  memset(bundle.vmName.begin(), 'v', policy::MAX_NAME_BYTES);
  bundle.grants = kj::heapString(MAX_BUNDLE_GRANTS_BYTES);
  memset(bundle.grants.begin(), '#', MAX_BUNDLE_GRANTS_BYTES);
  bundle.transport = kj::heapString(256);
  memset(bundle.transport.begin(), 't', 256);
  auto text = encodeBundle(bundle);
  CHECK(text.get().size() <= MAX_BUNDLE_BYTES);
  CHECK(parseBundle(text.get()).is<kj::Own<Bundle>>());
}

// T42
TEST_CASE("a truncated or mistyped bundle is told apart from what is none") {
  auto bundle = example();
  auto text = encodeBundle(bundle);
  size_t prefix = strlen("postern-bundle-1:");
  for (size_t size = 0; size < text.get().size(); ++size) {
    CHECK(isError(text.get().slice(0).asArray().slice(0, size),
                  size < prefix ? BundleError::NOT_A_BUNDLE : BundleError::DAMAGED));
  }
  for (size_t i = prefix; i < text.get().size(); ++i) {
    auto changed = kj::str(text.get());
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    CHECK(parseBundle(changed).is<BundleError>());
    changed[i] = '\x80';
    CHECK(isError(changed, BundleError::DAMAGED));
  }
  CHECK(isError("postern-bundle-2:AAAA"_kj, BundleError::NOT_A_BUNDLE));
  auto huge = kj::heapString(1 << 20);
  memset(huge.begin(), 'A', huge.size());
  CHECK(isError(kj::str("postern-bundle-1:", huge), BundleError::DAMAGED));
}

TEST_CASE("a uuid is read in its one form, and written in lower case") {
  auto vm = KJ_ASSERT_NONNULL(parseVmId("0123ABCD-4567-89ab-CDEF-000102030405"_kj));
  CHECK(vm.bytes[0] == 0x01);
  CHECK(vm.bytes[15] == 0x05);
  CHECK((toString(vm) == "0123abcd-4567-89ab-cdef-000102030405"));
  for (auto bad : {"", "0123abcd", "0123abcd-4567-89ab-cdef-00010203040g", "0123abcd4567-89ab-cdef-0001020304055",
                   "0123abcd-4567-89ab-cdef-0001020304056", "{123abcd-4567-89ab-cdef-00010203040}"}) {
    CHECK(parseVmId(kj::StringPtr(bad)) == nullptr);
  }
}

}  // namespace
}  // namespace postern
