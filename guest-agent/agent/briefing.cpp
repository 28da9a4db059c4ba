#include "guest-agent/agent/briefing.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "guest-agent/agent/briefing.capnp.h"
#include "guest-agent/settings/services-settings.h"

namespace postern::guest {

namespace {

capnp::Data::Reader dataOf(const kj::Maybe<MachineHash>& hash) {
  KJ_IF_MAYBE (h, hash) return kj::arrayPtr(h->data(), h->size());
  return nullptr;
}

kj::Maybe<MachineHash> hashFrom(capnp::Data::Reader data) {
  MachineHash hash{};
  if (data.size() != hash.size()) return nullptr;
  memcpy(hash.data(), data.begin(), hash.size());
  return hash;
}

void wipe(kj::ArrayPtr<capnp::word> words) {
  sodium_memzero(words.begin(), words.asBytes().size());
}

size_t wordsFor(const Briefing& briefing) {
  size_t bytes = 1024 + briefing.policyFile.size() + briefing.policy.size();
  for (auto& bundle : briefing.bundles) bytes += bundle.get().size() + 32;
  for (auto& service : briefing.services) bytes += service.name.size() + service.identity.size() + 64;
  for (auto& one : briefing.consumers) bytes += one.listen.size() + one.from.size() + one.service.size() + 96;
  return bytes / sizeof(capnp::word) + 1;
}

void writeServices(const Briefing& briefing, wire::Briefing::Builder out) {
  auto services = out.initServices(static_cast<unsigned>(briefing.services.size()));
  for (unsigned i = 0; i < services.size(); ++i) {
    services[i].setName(briefing.services[i].name);
    services[i].setIdentity(briefing.services[i].identity);
  }
  auto consumers = out.initConsumers(static_cast<unsigned>(briefing.consumers.size()));
  for (unsigned i = 0; i < consumers.size(); ++i) {
    auto& one = briefing.consumers[i];
    consumers[i].setListen(one.listen);
    consumers[i].setFrom(one.from);
    consumers[i].setService(one.service);
    consumers[i].setIsNew(one.socket != nullptr);
  }
}

void readServices(wire::Briefing::Reader in, kj::Vector<kj::AutoCloseFd>& sockets, Briefing& briefing) {
  for (auto service : in.getServices()) {
    briefing.services.add(ExportedService{kj::str(service.getName()), kj::heapArray(service.getIdentity().asBytes())});
  }
  size_t taken = 0;
  for (auto one : in.getConsumers()) {
    ConsumerBriefing consumer{kj::str(one.getListen()), kj::str(one.getFrom()), kj::str(one.getService()), nullptr};
    if (one.getIsNew()) {
      KJ_REQUIRE(taken < sockets.size(), "a socket did not arrive; are too many files open?");
      consumer.socket = kj::mv(sockets[taken++]);
    }
    briefing.consumers.add(kj::mv(consumer));
  }
}

}  // namespace

kj::Array<kj::byte> briefingBytes(const Briefing& briefing) {
  auto space = kj::heapArray<capnp::word>(wordsFor(briefing));
  memset(static_cast<void*>(space.begin()), 0, space.asBytes().size());
  KJ_DEFER(wipe(space));
  capnp::MallocMessageBuilder message(space);
  auto out = message.initRoot<wire::Briefing>();
  out.setHeartbeatMilliseconds(static_cast<uint32_t>(briefing.heartbeat / kj::MILLISECONDS));
  out.setRetryMilliseconds(static_cast<uint32_t>(briefing.retry / kj::MILLISECONDS));
  out.setPolicyFile(briefing.policyFile);
  out.setPolicy(briefing.policy);
  auto bundles = out.initBundles(static_cast<unsigned>(briefing.bundles.size()));
  for (unsigned i = 0; i < bundles.size(); ++i) bundles.set(i, briefing.bundles[i].get());
  out.setProductUuidHash(dataOf(briefing.machine.uuidHash()));
  out.setMachineIdHash(dataOf(briefing.machine.machineIdHash()));
  writeServices(briefing, out);
  KJ_IF_MAYBE (pulse, briefing.pulse) out.setPulseMilliseconds(static_cast<uint32_t>(*pulse / kj::MILLISECONDS));

  auto words = capnp::messageToFlatArray(message);
  KJ_DEFER(wipe(words));
  KJ_REQUIRE(words.size() <= MAX_BRIEFING_WORDS);
  auto bytes = kj::heapArray<kj::byte>(sizeof(uint32_t) + words.asBytes().size());
  auto length = static_cast<uint32_t>(words.size());
  memcpy(bytes.begin(), &length, sizeof(length));
  memcpy(bytes.begin() + sizeof(length), words.begin(), words.asBytes().size());
  return bytes;
}

Briefing parseBriefing(kj::ArrayPtr<const kj::byte> message, kj::Vector<kj::AutoCloseFd> sockets) {
  auto words = kj::heapArray<capnp::word>(message.size() / sizeof(capnp::word));
  KJ_DEFER(wipe(words));
  memcpy(static_cast<void*>(words.begin()), message.begin(), words.asBytes().size());
  capnp::FlatArrayMessageReader reader(words);
  auto in = reader.getRoot<wire::Briefing>();
  Briefing briefing;
  briefing.heartbeat = int64_t(in.getHeartbeatMilliseconds()) * kj::MILLISECONDS;
  briefing.retry = int64_t(in.getRetryMilliseconds()) * kj::MILLISECONDS;
  briefing.policyFile = kj::str(in.getPolicyFile());
  briefing.policy = kj::str(in.getPolicy());
  for (auto bundle : in.getBundles()) briefing.bundles.add(SecretText(kj::str(bundle)));
  briefing.machine = Machine(hashFrom(in.getProductUuidHash()), hashFrom(in.getMachineIdHash()));
  readServices(in, sockets, briefing);
  if (in.getPulseMilliseconds() > 0) briefing.pulse = int64_t(in.getPulseMilliseconds()) * kj::MILLISECONDS;
  return briefing;
}

kj::Promise<void> writeBriefing(kj::AsyncCapabilityStream& stream, Briefing briefing) {
  auto bytes = briefingBytes(briefing);
  auto sockets = kj::heap<kj::Vector<kj::AutoCloseFd>>();
  kj::Vector<int> numbers;
  for (auto& consumer : briefing.consumers) {
    KJ_IF_MAYBE (socket, consumer.socket) {
      numbers.add(socket->get());
      sockets->add(kj::mv(*socket));
    }
  }
  auto raw = numbers.releaseAsArray();
  auto writing = raw.size() == 0 ? stream.write(bytes.begin(), bytes.size())
                                 : stream.writeWithFds(bytes, nullptr, raw.asPtr().asConst());
  return writing.attach(kj::mv(raw), kj::mv(sockets),
                        kj::defer([bytes = kj::mv(bytes)]() mutable { sodium_memzero(bytes.begin(), bytes.size()); }));
}

namespace {

// What a briefing begins with.
struct Beginning {
  uint32_t words = 0;
  kj::AutoCloseFd sockets[MAX_CONSUMERS];
};

}  // namespace

kj::Promise<Briefing> readBriefing(kj::AsyncCapabilityStream& stream) {
  auto own = kj::heap<Beginning>();
  auto& begun = *own;
  auto reading =
      stream.tryReadWithFds(&begun.words, sizeof(begun.words), sizeof(begun.words), begun.sockets, MAX_CONSUMERS);
  return reading.then([&stream, own = kj::mv(own)](kj::AsyncCapabilityStream::ReadResult got) mutable {
    KJ_REQUIRE(got.byteCount == sizeof(own->words), "the broker ended");
    KJ_REQUIRE(own->words <= MAX_BRIEFING_WORDS, "no briefing");
    kj::Vector<kj::AutoCloseFd> sockets;
    for (auto& socket : kj::arrayPtr(own->sockets, got.capCount)) sockets.add(kj::mv(socket));
    auto bytes = kj::heapArray<kj::byte>(own->words * sizeof(capnp::word));
    auto message = stream.read(bytes.begin(), bytes.size());
    return message.then([bytes = kj::mv(bytes), sockets = kj::mv(sockets)]() mutable {
      KJ_DEFER(sodium_memzero(bytes.begin(), bytes.size()));
      return parseBriefing(bytes, kj::mv(sockets));
    });
  });
}

}  // namespace postern::guest
