// What becomes of what cannot be recorded (host/daemon/records.h).

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <signal.h>
#include <string.h>

#include "host/daemon/records.h"
#include "tests/support/temporary-folder.h"
#include "tests/unit/host/hub-fixture.h"

namespace postern::host {
namespace {

using postern::test::TemporaryFolder;
using test::DiskFull;

struct Lab {
  TemporaryFolder folder;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  Records records{io.provider->getTimer(), openLog()};

  kj::Own<AuditLog> openLog() {
    signal(SIGXFSZ, SIG_IGN);
    auto opened = AuditLog::open(folder.path("audit.log"), io.provider->getTimer(), io.unixEventPort);
    return kj::mv(opened.get<kj::Own<AuditLog>>());
  }
  Records::Hindrance decide() {
    LocalCaller caller;
    caller.user = kj::str("alice");
    FileDecision allowed{{policy::Reason::ADMINISTRATOR, nullptr, nullptr}};
    return records.decision(caller, "web1", "ping", "", allowed);
  }
};

}  // namespace

// T117
TEST_CASE("what cannot be recorded is refused, repeated or not, until it can be") {
  Lab lab;
  CHECK((lab.decide() == nullptr));
  {
    DiskFull full;
    CHECK((lab.records.record("user:alice", "web1", "info", "", "allowed") != nullptr));
    auto why = KJ_ASSERT_NONNULL(lab.decide());
    CHECK(strstr(why.cStr(), "cannot be recorded: the audit log's disk is full") != nullptr);
    CHECK((lab.decide() != nullptr));
  }
  CHECK((lab.decide() == nullptr));
  auto& audit = lab.records.auditLog();
  CHECK(audit.droppedEvents() == 3);
  CHECK((audit.trouble() == nullptr));
}

TEST_CASE("where the settings say so it goes on, and the lines are counted") {
  Lab lab;
  lab.records.setOnFailure(AuditFailure::CONTINUE);
  {
    DiskFull full;
    CHECK((lab.records.record("user:alice", "web1", "info", "", "allowed") == nullptr));
    CHECK((lab.decide() == nullptr));
  }
  CHECK(lab.records.auditLog().droppedEvents() == 2);
}

}  // namespace postern::host
