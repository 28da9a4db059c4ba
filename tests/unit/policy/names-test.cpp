#include "protocol/policy/names.h"

#include <doctest/doctest.h>

#include <string>

namespace postern::policy {
namespace {

TEST_CASE("a VM's name is a plain word that is also fit for a file") {
  for (auto good : {"web1", "a", "9", "Web-1_x.y", "hosts", "anyone"}) CHECK(isVmName(good));
  for (auto bad : {"", "host", "any", "-a", ".a", "..", "_a", "a/b", "a b", "a:b", "a\n", "a\x7f", "w\xc3\xa9",
                   "user:x", "@g", "tag:x", ".."}) {
    CHECK_FALSE(isVmName(bad));
  }
  CHECK(isVmName(std::string(64, 'a').c_str()));
  CHECK_FALSE(isVmName(std::string(65, 'a').c_str()));
  CHECK_FALSE(isVmName(kj::StringPtr("a\0b", 3)));
}

TEST_CASE("tags and groups may be called host; services have no dot; ids may have a colon") {
  CHECK(isPlainName("host"));
  CHECK(isServiceName("http-2"));
  CHECK_FALSE(isServiceName("a.b"));
  CHECK(isRuleId("grant-web1:2"));
  CHECK_FALSE(isRuleId(":a"));
  CHECK_FALSE(isPlainName("a:b"));
}

TEST_CASE("names of users and groups are those of any directory, and never a path or a control character") {
  for (auto good : {"alice", "user@example.com", "EXAMPLE\\bob", "w\xc3\xa9", "domain users", "$svc", "1000"}) {
    CHECK(isAccountName(good));
  }
  for (auto bad : {"", " a", "a ", "a/b", "a:b", "a\nb", "\x7f"}) CHECK_FALSE(isAccountName(bad));
  CHECK_FALSE(isAccountName(std::string(129, 'a').c_str()));
}

}  // namespace
}  // namespace postern::policy
