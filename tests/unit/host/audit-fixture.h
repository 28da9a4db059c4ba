#pragma once
// An audit log in a temporary folder, on a real loop with a clock turned by hand.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/timer.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "host/audit/audit-log.h"
#include "host/audit/audit-verify.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern::host::test {

inline kj::String readFile(kj::StringPtr path) {
  int fd;
  KJ_SYSCALL(fd = open(path.cStr(), O_RDONLY | O_CLOEXEC), path);
  return kj::FdInputStream(kj::AutoCloseFd(fd)).readAllText();
}

inline void writeFile(kj::StringPtr path, kj::ArrayPtr<const char> content) {
  int fd;
  KJ_SYSCALL(fd = open(path.cStr(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640), path);
  kj::FdOutputStream(kj::AutoCloseFd(fd)).write(content.begin(), content.size());
}

inline bool contains(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

struct AuditFixture {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  postern::TempDir folder;
  kj::String path = folder.file("audit.log");
  AuditLog::Options options;

  kj::OneOf<kj::Own<AuditLog>, kj::String> tryOpen() { return AuditLog::open(path, timer, io.unixEventPort, options); }
  kj::Own<AuditLog> open() {
    auto opened = tryOpen();
    if (opened.is<kj::String>()) FAIL(std::string(opened.get<kj::String>().cStr()));
    return kj::mv(opened.get<kj::Own<AuditLog>>());
  }
  static AuditEvent event(kj::StringPtr call = "power.shutdown") {
    AuditEvent event;
    event.time = kj::UNIX_EPOCH + 1'780'000'000 * kj::SECONDS + 123456 * kj::MICROSECONDS;
    event.who = "user:alice";
    event.vm = "web1";
    event.call = call;
    event.rule = "ops-power";
    event.outcome = "allowed";
    return event;
  }
  // A finished log of `count` lines.
  void fill(unsigned count) {
    auto log = open();
    for (unsigned i = 0; i < count; ++i) {
      auto call = kj::str("call.", i);
      REQUIRE(log->append(event(call)) == nullptr);
    }
    log->flush().wait(io.waitScope);
  }
  kj::OneOf<AuditSummary, AuditProblem> verify(kj::Maybe<kj::StringPtr> head = nullptr) {
    return verifyAudit(auditFiles(path), head);
  }
  AuditSummary sound(kj::Maybe<kj::StringPtr> head = nullptr) {
    auto result = verify(head);
    if (result.is<AuditProblem>()) FAIL(std::string(result.get<AuditProblem>().text.cStr()));
    return kj::mv(result.get<AuditSummary>());
  }
  AuditProblem problem(kj::Maybe<kj::StringPtr> head = nullptr) {
    auto result = verify(head);
    REQUIRE(result.is<AuditProblem>());
    return kj::mv(result.get<AuditProblem>());
  }
  // Gives the loop and the syncing thread time until `condition` holds.
  template <typename Condition>
  bool soon(Condition condition) {
    for (int i = 0; i < 2000 && !condition(); ++i) {
      io.waitScope.poll();
      usleep(1000);
    }
    return condition();
  }
};

}  // namespace postern::host::test
