#include "guest-agent/services/consumers.h"

#include "guest-agent/log/log.h"
#include "guest-agent/services/consumer.h"

namespace postern::guest {

Consumers::Consumers(kj::UnixEventPort& port)
    : port(port),
      denials(port.getTimer(), [](kj::StringPtr text) { logWarning("consume-denied", text); }),
      troubles(port.getTimer(), [](kj::StringPtr text) { logWarning("consume-trouble", text); }) {}
Consumers::~Consumers() noexcept(false) {}

void Consumers::replace(kj::Vector<ConsumerBriefing> wanted) {
  std::map<std::string, kj::Own<Consumer>> before;
  std::swap(before, consumers);
  for (auto& one : wanted) {
    std::string key(one.listen.begin(), one.listen.size());
    auto known = before.find(key);
    if (one.socket != nullptr) {
      before.erase(key);  // its socket is closed
      consumers.emplace(key, kj::heap<Consumer>(*this, kj::mv(one)));
    } else if (known != before.end()) {
      if (!known->second->isSame(one)) known->second->become(kj::mv(one.from), kj::mv(one.service));
      consumers.emplace(key, kj::mv(known->second));
    }
  }
}

kj::Own<void> Consumers::use(Session& session, schema::Host::Client host) {
  auto current = kj::heap<Uplink>(Uplink{session, kj::mv(host)});
  auto* borrowed = current.get();
  uplink = kj::mv(current);
  return kj::heap(kj::defer([this, borrowed] {
    KJ_IF_MAYBE (now, uplink) {
      if (now->get() == borrowed) uplink = nullptr;
    }
    for (auto& entry : consumers) entry.second->endChannels();
  }));
}

kj::Duration Consumers::turn() {
  auto now = port.getTimer().now();
  taken = kj::max(taken, now);
  auto ahead = taken - now;
  auto most = CONSUMER_INTERVAL * CONSUMER_BURST;
  if (ahead >= most) return ahead - most + CONSUMER_INTERVAL;
  taken += CONSUMER_INTERVAL;
  return 0 * kj::SECONDS;
}

size_t Consumers::channels() const {
  size_t sum = 0;
  for (auto& entry : consumers) sum += entry.second->channels();
  return sum;
}

size_t Consumers::questions() const {
  size_t sum = 0;
  for (auto& entry : consumers) sum += entry.second->questions();
  return sum;
}

}  // namespace postern::guest
