#include "guest-agent/agent/settlement.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-agent/agent/lock-file.h"
#include "guest-agent/identity/bounded-file.h"
#include "guest-agent/identity/stored-identity.h"
#include "transport/connection.h"

namespace postern::guest {

namespace {

constexpr size_t MAX_ENDPOINT_BYTES = 256;

kj::String transportPath(const Paths& paths) {
  return kj::str(paths.stateFile, ".transport");
}

kj::Maybe<HostPublicKey> enrolledHost(const Paths& paths) {
  auto stored = readStoredIdentity(paths);
  KJ_IF_MAYBE (state, stored.tryGet<kj::Own<GuestState>>()) {
    if ((*state)->isEnrolled()) return (*state)->host;
  }
  return nullptr;
}

void adoptGrants(const Paths& paths, const Configuration& configuration, const FoundBundle& used, Settlement& result) {
  auto& grants = used.bundle->grants;
  if (grants.size() == 0) return;
  if (configuration.hasOwnFile) {
    result.lines.add(kj::str("the bundle's grants are not adopted: this guest has an agent.toml of its own"));
    return;
  }
  if (!configuration.settings.acceptGrants) {
    result.lines.add(kj::str("the bundle's grants are not adopted: accept-grants is false"));
    return;
  }
  auto parsed = GuestPolicy::parse("the bundle's grants", grants);
  if (parsed.is<PolicyErrors>()) {
    result.lines.add(kj::str("the bundle's grants are not adopted: ", parsed.get<PolicyErrors>().lines[0]));
    return;
  }
  KJ_IF_MAYBE (error, replaceFile(paths.grants, grants, 0644)) {
    result.lines.add(kj::str("the bundle's grants are not adopted: ", *error));
    return;
  }
  result.lines.add(kj::str("policy of the bundle (", used.from, ") adopted into ", paths.grants,
                           "; an agent.toml of your own replaces it"));
  result.adopted = true;
}

void keepTransport(const Paths& paths, const FoundBundle& used, Settlement& result) {
  auto path = transportPath(paths);
  if (used.bundle->transport.size() == 0) {
    unlink(path.cStr());
  } else {
    KJ_IF_MAYBE (error, replaceFile(path, used.bundle->transport, 0644)) result.lines.add(kj::mv(*error));
  }
}

}  // namespace

kj::Maybe<kj::String> replaceFile(kj::StringPtr path, kj::StringPtr content, mode_t mode) {
  KJ_IF_MAYBE (error, makeFoldersAbove(path, 0755)) return kj::mv(*error);
  auto next = kj::str(path, ".new");
  auto failed = [&]() {
    auto text = kj::str(path, ": cannot be written: ", errorWords(errno));
    unlink(next.cStr());
    return text;
  };
  unlink(next.cStr());
  int fd = open(next.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return failed();
  kj::AutoCloseFd owned(fd);
  size_t done = 0;
  while (done < content.size()) {
    ssize_t n = write(fd, content.begin() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed();
    done += static_cast<size_t>(n);
  }
  if (fsync(fd) != 0 || rename(next.cStr(), path.cStr()) != 0) return failed();
  // The new name, too, is on the disk before anybody counts on it.
  auto folder = kj::str(path.slice(0, KJ_ASSERT_NONNULL(path.findLast('/')) + 1));
  kj::AutoCloseFd parent(open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent == nullptr || fsync(parent) != 0) return failed();
  return nullptr;
}

kj::Maybe<kj::String> storedTransport(const Paths& paths) {
  auto content = readBounded(transportPath(paths), MAX_ENDPOINT_BYTES, SymbolicLinks::REFUSE);
  if (!content.is<kj::Array<char>>()) return nullptr;
  return kj::heapString(content.get<kj::Array<char>>());
}

Settlement settleEnrolment(const Paths& paths, const Configuration& configuration,
                           kj::ArrayPtr<const FoundBundle> bundles) {
  Settlement result;
  KJ_IF_MAYBE (host, enrolledHost(paths)) {
    for (auto& found : bundles) {
      if (!(found.bundle->host == *host)) continue;
      keepTransport(paths, found, result);
      adoptGrants(paths, configuration, found, result);
      if (found.from == paths.bundle && unlink(paths.bundle.cStr()) == 0) {
        result.lines.add(kj::str(paths.bundle, " was used and is removed"));
      }
      return result;
    }
  }
  return result;
}

}  // namespace postern::guest
