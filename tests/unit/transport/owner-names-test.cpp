#include "transport/transfer/owner-names.h"

#include <doctest/doctest.h>
#include <grp.h>
#include <kj/common.h>
#include <pwd.h>

#include <string>

using namespace postern::transfer;

namespace {

constexpr uint32_t NOBODYS_NUMBER = 3'999'999'999;
constexpr kj::StringPtr NOBODYS_NAME = "postern-no-such-owner"_kj;

void hasNamesOfRoot(OwnerNames& names) {
  CHECK((names.user(0) == getpwuid(0)->pw_name));
  CHECK((names.group(0) == getgrgid(0)->gr_name));
  CHECK(names.userByName(getpwuid(0)->pw_name).orDefault(1) == 0);
  CHECK(names.groupByName(getgrgid(0)->gr_name).orDefault(1) == 0);
}

void hasNoOthers(OwnerNames& names) {
  for (int i = 0; i < 2; ++i) {  // the second time it is remembered
    CHECK((names.user(NOBODYS_NUMBER) == ""));
    CHECK((names.group(NOBODYS_NUMBER) == ""));
    CHECK(names.userByName(NOBODYS_NAME) == nullptr);
    CHECK(names.groupByName(NOBODYS_NAME) == nullptr);
  }
}

}  // namespace

TEST_CASE("owners have the names that the database gives when it is asked") {
  OwnerNames names;
  hasNamesOfRoot(names);
  hasNoOthers(names);
}

TEST_CASE("owners that were read beforehand have the same names, and none is asked for") {
  OwnerNames names;
  names.readAll();
  hasNamesOfRoot(names);
  hasNoOthers(names);
  setpwent();
  KJ_DEFER(endpwent());
  while (auto* entry = getpwent()) {
    auto id = names.userByName(entry->pw_name);
    REQUIRE(id != nullptr);
    CHECK((names.user(id.orDefault(NOBODYS_NUMBER)).size() > 0));
  }
}
