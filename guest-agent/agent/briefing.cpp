#include "guest-agent/agent/briefing.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "guest-agent/agent/briefing.capnp.h"

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
  return bytes / sizeof(capnp::word) + 1;
}

}  // namespace

kj::Array<kj::byte> briefingBytes(const Briefing& briefing) {
  auto space = kj::heapArray<capnp::word>(wordsFor(briefing));
  memset(static_cast<void*>(space.begin()), 0, space.asBytes().size());
  KJ_DEFER(wipe(space));
  capnp::MallocMessageBuilder message(space);
  auto out = message.initRoot<wire::Briefing>();
  out.setHeartbeatMilliseconds(static_cast<uint32_t>(briefing.heartbeat / kj::MILLISECONDS));
  out.setPolicyFile(briefing.policyFile);
  out.setPolicy(briefing.policy);
  auto bundles = out.initBundles(static_cast<unsigned>(briefing.bundles.size()));
  for (unsigned i = 0; i < bundles.size(); ++i) bundles.set(i, briefing.bundles[i].get());
  out.setProductUuidHash(dataOf(briefing.machine.uuidHash()));
  out.setMachineIdHash(dataOf(briefing.machine.machineIdHash()));
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

Briefing parseBriefing(kj::ArrayPtr<const kj::byte> message) {
  auto words = kj::heapArray<capnp::word>(message.size() / sizeof(capnp::word));
  KJ_DEFER(wipe(words));
  memcpy(static_cast<void*>(words.begin()), message.begin(), words.asBytes().size());
  capnp::FlatArrayMessageReader reader(words);
  auto in = reader.getRoot<wire::Briefing>();
  Briefing briefing;
  briefing.heartbeat = int64_t(in.getHeartbeatMilliseconds()) * kj::MILLISECONDS;
  briefing.policyFile = kj::str(in.getPolicyFile());
  briefing.policy = kj::str(in.getPolicy());
  for (auto bundle : in.getBundles()) briefing.bundles.add(SecretText(kj::str(bundle)));
  briefing.machine = Machine(hashFrom(in.getProductUuidHash()), hashFrom(in.getMachineIdHash()));
  if (in.getPulseMilliseconds() > 0) briefing.pulse = int64_t(in.getPulseMilliseconds()) * kj::MILLISECONDS;
  return briefing;
}

kj::Promise<Briefing> readBriefing(kj::AsyncInputStream& input) {
  auto length = kj::heap<uint32_t>(0u);
  auto reading = input.read(length.get(), sizeof(uint32_t));
  return reading.then([&input, length = kj::mv(length)]() {
    size_t words = *length;
    KJ_REQUIRE(words <= MAX_BRIEFING_WORDS, "no briefing");
    auto bytes = kj::heapArray<kj::byte>(words * sizeof(capnp::word));
    auto reading = input.read(bytes.begin(), bytes.size());
    return reading.then([bytes = kj::mv(bytes)]() mutable {
      KJ_DEFER(sodium_memzero(bytes.begin(), bytes.size()));
      return parseBriefing(bytes);
    });
  });
}

}  // namespace postern::guest
