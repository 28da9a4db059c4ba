#pragma once
// A copy from one folder to another, as two openers make it: each in a thread, with a relay in place of their movers.

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/thread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "protocol/transfer/limits.h"
#include "tests/support/transfer-relay.h"
#include "tests/unit/transport/temp-dir.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/source-opener.h"

namespace postern::transfer {

inline kj::AutoCloseFd folderAt(kj::StringPtr path) {
  int fd;
  KJ_SYSCALL(fd = open(path.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path);
  return kj::AutoCloseFd(fd);
}

inline void writeFile(kj::StringPtr path, kj::StringPtr content, mode_t mode = 0644) {
  int raw;
  KJ_SYSCALL(raw = open(path.cStr(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), path);
  kj::AutoCloseFd fd(raw);
  for (kj::ArrayPtr<const char> rest = content; rest.size() > 0;) {
    ssize_t n;
    KJ_SYSCALL(n = ::write(fd, rest.begin(), rest.size()));
    rest = rest.slice(size_t(n), rest.size());
  }
  KJ_SYSCALL(fchmod(fd, mode));
}

// Empty: it is not there.
inline std::string readFile(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
  std::string content;
  char block[65536];
  for (;;) {
    ssize_t n = fd == nullptr ? 0 : read(fd, block, sizeof(block));
    if (n <= 0) return content;
    content.append(block, size_t(n));
  }
}

inline std::string bytesOf(size_t count, unsigned seed = 1) {
  std::string content(count, '\0');
  for (auto& each : content) each = char((seed = seed * 1103515245 + 12345) >> 16);
  return content;
}

inline kj::StringPtr text(const std::string& of) {
  return kj::StringPtr(of.c_str(), of.size());
}

struct Failure {
  std::string path;
  ProblemKind kind;
  std::string detail;
};

class Listeners final : public SourceListener, public DestinationListener {
 public:
  std::vector<Failure> failures;  // at the end that listens
  std::vector<std::string> names;
  kj::Maybe<Totals> totals;
  uint64_t sentBytes = 0;
  std::function<void()> onAnnounced;  // in the opener's thread
  std::function<void(kj::StringPtr)> onMade;

  void counted(const Totals& counted) override { totals = counted; }
  void sent(uint64_t bytes) override { sentBytes = bytes; }
  void announced(const Totals& announced) override {
    totals = announced;
    if (onAnnounced) onAnnounced();
  }
  void progress(const Progress&) override {}
  void failed(kj::StringPtr path, const Problem& problem) override {
    failures.push_back({path.cStr(), problem.kind, problem.detail.cStr()});
  }
  void made(kj::StringPtr path, const Entry&) override {
    names.push_back(path.cStr());
    if (onMade) onMade(path);
  }
};

struct Copy {
  kj::Vector<SourceTop> tops;
  SourceOptions source;
  kj::String to;  // folder
  DestinationOptions destination;
  test::RelayOptions relay;

  // What came of it.
  Listeners sending, making;
  kj::Maybe<OpenerEnd> sent, made;
  uint64_t forwarded = 0, resumed = 0, copied = 0;
  double sourceSeconds = 0, destinationSeconds = 0;  // of CPU

  // `path` is FOLDER/NAME.
  Copy& from(kj::StringPtr folder, kj::StringPtr name) {
    tops.add(SourceTop{folderAt(folder), kj::str(name), kj::str(name), kj::str(folder, "/", name), nullptr, false});
    return *this;
  }
  Copy& into(kj::StringPtr folder) {
    to = kj::str(folder);
    destination.into = true;
    return *this;
  }
  Copy& as(kj::StringPtr folder, kj::StringPtr name) {
    to = kj::str(folder);
    destination.name = kj::str(name);
    return *this;
  }
  Copy& all() {
    source.recursive = source.archive = destination.archive = true;
    destination.keepOwner = geteuid() == 0;
    return *this;
  }

  Copy& run() {
    auto left = test::newSocketEnds();
    auto right = test::newSocketEnds();
    test::TransferRelay player(kj::mv(left.mover), kj::mv(right.mover), relay);
    kj::Thread reads([&]() {
      sent = runSourceOpener(kj::mv(left.opener), kj::mv(tops), source, sending);
      sourceSeconds = threadSeconds();
    });
    kj::Thread writes([&]() {
      made = runDestinationOpener(kj::mv(right.opener), folderAt(to), destination, making);
      destinationSeconds = threadSeconds();
    });
    player.run();
    forwarded = player.forwarded;
    resumed = player.resumed;
    copied = player.copied;
    return *this;
  }

  // Both ends agree on it; after the copy.
  Summary summary() {
    auto& ours = KJ_ASSERT_NONNULL(made);
    KJ_ASSERT(ours.is<Summary>(), ours.get<Problem>().detail);
    auto& theirs = KJ_ASSERT_NONNULL(sent);
    KJ_ASSERT(theirs.is<Summary>(), theirs.get<Problem>().detail);
    auto& summary = ours.get<Summary>();
    KJ_ASSERT(summary.files == theirs.get<Summary>().files && summary.failures == theirs.get<Summary>().failures);
    KJ_ASSERT(summary.failures == sending.failures.size(), "each failure is told once to the source");
    KJ_ASSERT(summary.failures == making.failures.size(), "each failure is told once to the destination");
    return summary;
  }
  // The only one.
  Failure failure() {
    auto failures = summary().failures;
    KJ_ASSERT(failures == 1, failures);
    KJ_ASSERT(sending.failures[0].kind == making.failures[0].kind);
    return making.failures[0];
  }
  // Of the whole transfer.
  ProblemKind refusal() {
    auto& end = KJ_ASSERT_NONNULL(made);
    KJ_ASSERT(end.is<Problem>());
    KJ_ASSERT(KJ_ASSERT_NONNULL(sent).is<Problem>());
    return end.get<Problem>().kind;
  }

 private:
  static double threadSeconds() {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return double(used.tv_sec) + double(used.tv_nsec) * 1e-9;
  }
};

// What is in a folder but the names that are expected: temporary files that were left.
inline std::vector<std::string> leftovers(kj::StringPtr folder) {
  std::vector<std::string> found;
  for (auto& entry : std::filesystem::recursive_directory_iterator(folder.cStr())) {
    auto name = entry.path().filename().string();
    if (name.find(".postern-partial") != std::string::npos) found.push_back(entry.path().string());
  }
  return found;
}

}  // namespace postern::transfer
