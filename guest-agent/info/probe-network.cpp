#include <arpa/inet.h>
#include <ifaddrs.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <string.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/probes.h"

namespace postern::guest {

namespace {

struct Found {
  kj::String name;
  kj::String mac;
  bool up = false;
  kj::Vector<kj::String> addresses;
};

unsigned prefixLength(kj::ArrayPtr<const kj::byte> mask) {
  unsigned bits = 0;
  for (kj::byte part : mask) bits += unsigned(__builtin_popcount(part));
  return bits;
}

kj::Maybe<kj::String> addressText(const ifaddrs& entry) {
  char text[INET6_ADDRSTRLEN];
  auto show = [&](int family, const void* address, const void* mask, size_t bytes) {
    KJ_ASSERT(inet_ntop(family, address, text, sizeof(text)) != nullptr);
    unsigned bits =
        mask == nullptr ? unsigned(bytes * 8) : prefixLength({reinterpret_cast<const kj::byte*>(mask), bytes});
    return kj::str(text, "/", bits);
  };
  if (entry.ifa_addr->sa_family == AF_INET) {
    auto* mask = reinterpret_cast<const sockaddr_in*>(entry.ifa_netmask);
    return show(AF_INET, &reinterpret_cast<const sockaddr_in*>(entry.ifa_addr)->sin_addr,
                mask == nullptr ? nullptr : &mask->sin_addr, 4);
  }
  if (entry.ifa_addr->sa_family == AF_INET6) {
    auto* mask = reinterpret_cast<const sockaddr_in6*>(entry.ifa_netmask);
    return show(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(entry.ifa_addr)->sin6_addr,
                mask == nullptr ? nullptr : &mask->sin6_addr, 16);
  }
  return nullptr;
}

kj::String macText(const sockaddr_ll& address) {
  auto bytes = kj::arrayPtr(address.sll_addr, kj::min(size_t(address.sll_halen), sizeof(address.sll_addr)));
  kj::Vector<kj::String> parts;
  for (unsigned byte : bytes) parts.add(kj::str(byte < 16 ? "0" : "", kj::hex(uint8_t(byte))));
  return kj::strArray(parts, ":");
}

// The entry of that name, a new one if there is room; null otherwise.
kj::Maybe<Found&> entryFor(kj::Vector<Found>& found, kj::StringPtr name) {
  for (auto& one : found) {
    if (one.name == name) return one;
  }
  if (found.size() == MAX_INTERFACES) return nullptr;
  return found.add(Found{kj::str(name), kj::String(), false, {}});
}

void take(kj::Vector<Found>& found, const ifaddrs& entry) {
  KJ_IF_MAYBE (one, entryFor(found, boundedText(kj::StringPtr(entry.ifa_name), MAX_SHORT_TEXT))) {
    one->up = (entry.ifa_flags & IFF_UP) != 0 && (entry.ifa_flags & IFF_RUNNING) != 0;
    if (entry.ifa_addr == nullptr) return;
    if (entry.ifa_addr->sa_family == AF_PACKET) {
      one->mac = macText(*reinterpret_cast<const sockaddr_ll*>(entry.ifa_addr));
    } else if (one->addresses.size() < MAX_ADDRESSES) {
      KJ_IF_MAYBE (text, addressText(entry)) one->addresses.add(kj::mv(*text));
    }
  }
}

}  // namespace

void findNetwork(schema::Info::Builder info) {
  ifaddrs* list = nullptr;
  KJ_SYSCALL(getifaddrs(&list));
  KJ_DEFER(freeifaddrs(list));
  kj::Vector<Found> found;
  for (auto* entry = list; entry != nullptr; entry = entry->ifa_next) take(found, *entry);
  auto out = info.initNetwork().initValue(unsigned(found.size()));
  for (unsigned i = 0; i < found.size(); ++i) {
    out[i].setName(found[i].name);
    out[i].setMac(found[i].mac);
    out[i].setUp(found[i].up);
    auto addresses = out[i].initAddresses(unsigned(found[i].addresses.size()));
    for (unsigned j = 0; j < addresses.size(); ++j) addresses.set(j, found[i].addresses[j]);
  }
}

}  // namespace postern::guest
