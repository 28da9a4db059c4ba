#include "guest-agent/services/consumer-sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <iterator>
#include <set>

#include "guest-agent/log/log.h"

namespace postern::guest {

namespace {

std::string keyOf(const LocalAddress& address) {
  auto text = kj::str(address);
  return std::string(text.begin(), text.size());
}

// Of a socket's file, by a handle: where others may write in the folder, something else can be in its place.
void changeMode(const LocalAddress& address, mode_t mode) {
  auto& path = address.get<UnixAddress>().path;
  if (path.startsWith("@")) return;
  kj::AutoCloseFd file(open(path.cStr(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  bool isSocket = file.get() >= 0 && fstat(file, &info) == 0 && S_ISSOCK(info.st_mode);
  if (isSocket && chmod(kj::str("/proc/self/fd/", file.get()).cStr(), mode) == 0) return;
  int error = file.get() >= 0 && !isSocket ? ENOTSOCK : errno;
  logWarning("consume-failed", kj::str(address, ": its mode cannot be changed: ", errorWords(error)));
}

}  // namespace

ConsumerSockets::~ConsumerSockets() noexcept(false) {
  while (!entries.empty()) close(std::string(entries.begin()->first));
}

void ConsumerSockets::configure(kj::ArrayPtr<const ConsumerSettings> consumers) {
  std::set<std::string> wanted;
  for (auto& consumer : consumers) wanted.insert(keyOf(consumer.listen));
  std::set<std::string> gone;
  for (auto& entry : entries) {
    if (wanted.count(entry.first) == 0) gone.insert(entry.first);
  }
  for (auto& key : gone) close(key);
  for (auto one = failures.begin(); one != failures.end();) {
    one = wanted.count(one->first) == 0 ? failures.erase(one) : std::next(one);
  }
  for (auto& consumer : consumers) {
    auto key = keyOf(consumer.listen);
    auto known = entries.find(key);
    if (known == entries.end()) {
      open(key, consumer);
    } else {
      update(known->second, consumer);
    }
  }
}

void ConsumerSockets::open(const std::string& key, const ConsumerSettings& consumer) {
  auto listening = listenLocal(consumer.listen, consumer.mode);
  KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) {
    return failed(key, kj::str("service.", consumer.service, " of ", consumer.from, ": ", error->text));
  }
  failures.erase(key);
  LocalAddress address = TcpAddress();
  KJ_IF_MAYBE (unix, consumer.listen.tryGet<UnixAddress>()) {
    address = UnixAddress{kj::str(unix->path)};
  } else {
    address = consumer.listen.get<TcpAddress>();
  }
  logInfo("consume", kj::str(consumer.listen, " is service.", consumer.service, " of ", consumer.from));
  entries.emplace(key, Entry{kj::mv(address), kj::mv(listening.get<kj::AutoCloseFd>()), kj::str(consumer.from),
                             kj::str(consumer.service), consumer.mode});
}

void ConsumerSockets::failed(const std::string& key, kj::String why) {
  std::string text(why.cStr());
  auto& known = failures[key];
  if (known == text) return;
  known = text;
  logError("consume-failed", kj::str(why, " (tried again every ", CONSUMER_RETRY / kj::SECONDS, " s)"));
}

void ConsumerSockets::update(Entry& entry, const ConsumerSettings& consumer) {
  entry.from = kj::str(consumer.from);
  entry.service = kj::str(consumer.service);
  if (entry.mode != consumer.mode && entry.address.is<UnixAddress>()) changeMode(entry.address, consumer.mode);
  entry.mode = consumer.mode;
}

void ConsumerSockets::close(const std::string& key) {
  auto found = entries.find(key);
  auto& entry = found->second;
  // The agent has a copy and hears of it in a moment: nobody is let in by that any more.
  shutdown(entry.socket, SHUT_RDWR);
  entry.socket = nullptr;
  if (entry.address.is<UnixAddress>()) removeLocal(entry.address);
  entries.erase(found);
}

kj::Vector<ConsumerBriefing> ConsumerSockets::brief() {
  kj::Vector<ConsumerBriefing> result;
  for (auto& one : entries) {
    auto& entry = one.second;
    ConsumerBriefing briefing{kj::str(entry.address), kj::str(entry.from), kj::str(entry.service), nullptr};
    if (!entry.briefed) {
      int copy = fcntl(entry.socket, F_DUPFD_CLOEXEC, 0);
      if (copy < 0) {
        int error = errno;
        failed(one.first, kj::str(entry.address, ": cannot be handed to the agent: ", errorWords(error)));
        continue;
      }
      failures.erase(one.first);
      briefing.socket = kj::AutoCloseFd(copy);
      entry.briefed = true;
    }
    result.add(kj::mv(briefing));
  }
  return result;
}

bool ConsumerSockets::hasNews() const {
  for (auto& entry : entries) {
    if (!entry.second.briefed) return true;
  }
  return false;
}

void ConsumerSockets::agentIsNew() {
  for (auto& entry : entries) entry.second.briefed = false;
}

}  // namespace postern::guest
