#include "protocol/policy/grants.h"

#include "tests/unit/policy/policy-fixture.h"

namespace postern::policy {
namespace {

kj::OneOf<Grants, kj::String> write(const std::string& grants, const std::string& to = "user:alice",
                                    const std::string& vm = "web1") {
  kj::StringPtr list = grants.c_str();
  kj::StringPtr principal = to.c_str();
  return writeGrants({vm.c_str(), kj::arrayPtr(&list, 1), kj::arrayPtr(&principal, 1)});
}

Grants written(const std::string& grants, const std::string& to = "user:alice", const std::string& vm = "web1") {
  auto result = write(grants, to, vm);
  KJ_IF_MAYBE (wrong, result.tryGet<kj::String>()) FAIL(grants, ": ", wrong->cStr());
  return kj::mv(result.get<Grants>());
}

std::string refused(const std::string& grants, const std::string& to = "user:alice", const std::string& vm = "web1") {
  auto result = write(grants, to, vm);
  if (result.is<Grants>()) return "";
  return result.get<kj::String>().cStr();
}

bool says(const std::string& text, const std::string& part) {
  bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE(text);
  return found;
}

TEST_CASE("grants become a rule at the host and one in the guest, and both let the grantee through") {
  auto grants = written("ping,info,power,file.get:/srv/**,file.list:/srv/**,service.http,file:/tmp/up?");
  auto host = loadedFiles({{"web1.toml", grants.hostPolicy.cStr()}});
  auto guest = loadedFiles({{"agent.toml", grants.guestPolicy.cStr()}}, Side::GUEST);
  auto alice = Who::user("alice"), eve = Who::user("eve"), web1 = Who::vm("web1"), web2 = Who::vm("web2");

  for (auto call : {"ping"_kj, "info.users"_kj, "power.suspend"_kj, "service.http"_kj}) {
    CHECK(verdict(*host, alice, web1, call) == "rule grant-web1");
    CHECK(verdict(*host, eve, web1, call) == "no-rule");
    CHECK(verdict(*host, alice, web2, call) == "no-rule");
    CHECK(verdict(*guest, alice, Who::vm(""), call) == "rule grant");
  }
  CHECK(verdict(*host, alice, web1, "status.read") == "rule grant-web1");
  CHECK(verdict(*guest, alice, Who::vm(""), "service.ssh") == "no-rule");
  for (auto call : {"file.get"_kj, "file.list"_kj}) {
    CHECK(verdict(*host, alice, web1, call, "/srv/a/b"_kj) == "rule grant-web1:2");
    CHECK(verdict(*guest, alice, Who::vm(""), call, "/srv/a/b"_kj) == "rule grant:2");
    CHECK(verdict(*host, alice, web1, call, "/etc/passwd"_kj) == "no-rule");
    CHECK(verdict(*guest, alice, Who::vm(""), call, "/etc/passwd"_kj) == "no-rule");
  }
  CHECK(verdict(*host, alice, web1, "file.put", "/srv/a"_kj) == "no-rule");
  CHECK(verdict(*guest, alice, Who::vm(""), "file.remove", "/tmp/up1"_kj) == "rule grant:3");
}

TEST_CASE("grants to several principals and for several VMs live in one policy") {
  kj::StringPtr lists[] = {"ping"_kj, "power.restart"_kj};
  kj::StringPtr principals[] = {"group:ops"_kj, "user:a \"b\""_kj, "host"_kj};
  auto result = writeGrants({"web1", lists, principals});
  auto first = kj::mv(result.get<Grants>());
  auto second = written("ping,file.get:/a", "user:bob", "web1.2");
  auto third = written("file.get:/a", "user:bob", "web1");
  auto both = loadedFiles({{"web1.toml", first.hostPolicy.cStr()}, {"web1.2.toml", second.hostPolicy.cStr()}});
  CHECK(verdict(*both, Who::user("x", {"ops"}), Who::vm("web1"), "power.restart") == "rule grant-web1");
  CHECK(verdict(*both, Who::user("a \"b\""), Who::vm("web1"), "ping") == "rule grant-web1");
  CHECK(verdict(*both, Who::user("bob"), Who::vm("web1.2"), "file.get", "/a"_kj) == "rule grant-web1.2:2");
  // Granted twice: the id shows it.
  CHECK_FALSE(loadFiles({{"a", first.hostPolicy.cStr()}, {"b", third.hostPolicy.cStr()}}, Side::HOST).is<Loaded>());
}

TEST_CASE("a grant of a file call alone still lets the grantee see the VM") {
  auto host = loadedFiles({{"web1.toml", written("file.get:/srv/**").hostPolicy.cStr()}});
  CHECK(verdict(*host, Who::user("alice"), Who::vm("web1"), "status.read") == "rule grant-web1");
}

TEST_CASE("a path without a pattern is granted with what lies below it, and a user of the guest with it") {
  auto grants = written("file:/srv/www:run-as=www-data,file.get:/srv/www,file.list:/");
  auto host = loadedFiles({{"web1.toml", grants.hostPolicy.cStr()}});
  auto guest = loadedFiles({{"agent.toml", grants.guestPolicy.cStr()}}, Side::GUEST);
  auto alice = Who::user("alice"), web1 = Who::vm("web1"), here = Who::vm("");
  for (auto path : {"/srv/www"_kj, "/srv/www/a"_kj, "/srv/www/a/b"_kj}) {
    CHECK(verdict(*host, alice, web1, "file.put", path) == "rule grant-web1:2");
    CHECK(verdict(*guest, alice, here, "file.put", path) == "rule grant");
  }
  CHECK(verdict(*host, alice, web1, "file.put", "/srv/www2"_kj) == "no-rule");
  CHECK(verdict(*host, alice, web1, "file.list", "/"_kj) == "rule grant-web1:4");
  CHECK(says(grants.guestPolicy.cStr(), "run-as = \"www-data\""));
  CHECK_FALSE(std::string(grants.hostPolicy.cStr()).find("run-as") != std::string::npos);
  CHECK(says(refused("file:/srv:run-as="), "is not a user's name"));
  CHECK(says(refused("file:/srv/"), "ends with '/'"));
}

TEST_CASE("a bad grant says what to write instead") {
  CHECK(says(refused("pingg"), "did you mean 'ping'"));
  CHECK(says(refused(""), "unknown call"));
  CHECK(says(refused("ping,,info"), "unknown call ''"));
  CHECK(says(refused("*"), "everything at once"));
  CHECK(says(refused("admin.enroll"), "no call of a VM"));
  CHECK(says(refused("exec.run"), "reserved"));
  CHECK(says(refused("file.get"), "lacks a path"));
  CHECK(says(refused("file.get:"), "lacks a path"));
  CHECK(says(refused("ping:/a"), "only file calls have a path"));
  CHECK(says(refused("ping:"), "only file calls have a path"));
  CHECK(says(refused("file.get:srv"), "relative"));
  CHECK(says(refused("file.get:/srv/../etc"), "'..'"));
  CHECK(says(refused("file.get:/a\n[[allow]]"), "control character"));
  CHECK(says(refused("ping", "alice"), "user:NAME"));
  CHECK(says(refused("ping", "user:"), "user:NAME"));
  CHECK(says(refused("ping", "any"), "user:NAME"));
  CHECK(says(refused("ping", "user:a\nb"), "user:NAME"));
  CHECK(says(refused("ping", "user:alice", "../x"), "bad VM name"));
  CHECK(says(refused("ping", "user:alice", "any"), "bad VM name"));
  CHECK(writeGrants({"web1", nullptr, nullptr}).is<kj::String>());
  CHECK(says(refused("file.get:/caf\xe9"), "utf-8"));
}

}  // namespace
}  // namespace postern::policy
