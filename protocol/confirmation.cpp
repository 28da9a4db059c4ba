#include "protocol/confirmation.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol/message-assembler.h"
#include "protocol/session.capnp.h"
#include "protocol/wire-int.h"

namespace postern {

namespace {

// Both structs are a handful of words; a message that is longer is a later version's and still has to fit a record.
constexpr size_t MAX_WORDS = limits::MAX_HANDSHAKE_BODY_BYTES / sizeof(capnp::word);

kj::Array<kj::byte> serialise(capnp::MessageBuilder& message) {
  auto segments = message.getSegmentsForOutput();
  size_t words = capnp::computeSerializedSizeInWords(segments);
  KJ_ASSERT(words <= MAX_WORDS && segments.size() == 1);
  auto out = kj::heapArray<kj::byte>(words * sizeof(capnp::word));
  putLittleEndian<uint32_t>(0, out.begin());
  putLittleEndian<uint32_t>(static_cast<uint32_t>(segments[0].size()), out.begin() + 4);
  memcpy(out.begin() + 8, segments[0].begin(), segments[0].asBytes().size());
  return out;
}

// Reads a message with `read`; null if it is malformed in any way.
template <typename Struct, typename Result, typename Read>
kj::Maybe<Result> parse(kj::ArrayPtr<const kj::byte> untrusted, Read&& read) {
  std::deque<IncomingMessage> messages;
  MessageAssembler assembler;
  if (untrusted.size() % sizeof(capnp::word) != 0 || untrusted.size() > MAX_WORDS * sizeof(capnp::word)) return nullptr;
  if (assembler.add(nullptr, untrusted, messages) != nullptr) return nullptr;
  if (messages.size() != 1 || assembler.midMessage()) return nullptr;
  capnp::ReaderOptions options;
  options.traversalLimitInWords = MAX_WORDS;
  options.nestingLimit = 4;
  kj::Maybe<Result> result;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() {
                 capnp::FlatArrayMessageReader reader(messages.front().words, options);
                 result = read(reader.getRoot<Struct>());
               })) {
    (void)exception;
    return nullptr;
  }
  return result;
}

}  // namespace

kj::Array<kj::byte> encodeConfirmation(const Confirmation& confirmation) {
  capnp::MallocMessageBuilder message;
  auto confirm = message.initRoot<schema::Confirm>();
  confirm.setVersion(PROTOCOL_VERSION);
  confirm.setFeatures(confirmation.features);
  confirm.setSessionCounter(confirmation.sessionCounter);
  confirm.setBootIdHigh(confirmation.bootId.high);
  confirm.setBootIdLow(confirmation.bootId.low);
  confirm.setAgentInstanceHigh(confirmation.agentInstance.high);
  confirm.setAgentInstanceLow(confirmation.agentInstance.low);
  KJ_IF_MAYBE (purpose, confirmation.bulk) {
    auto bulk = confirm.getPurpose().initBulk();
    bulk.setTransfer(purpose->transfer);
    bulk.setTicketHigh(purpose->ticket.high);
    bulk.setTicketLow(purpose->ticket.low);
  } else {
    confirm.getPurpose().setPrimary();
  }
  return serialise(message);
}

kj::Array<kj::byte> encodeAcceptance(const Acceptance& acceptance) {
  // The builder's words are ours, so that the link secret can be wiped from them.
  capnp::word space[MAX_WORDS];
  memset(space, 0, sizeof(space));
  kj::Array<kj::byte> result;
  {
    capnp::MallocMessageBuilder message(kj::arrayPtr(space, MAX_WORDS));
    auto accept = message.initRoot<schema::Accept>();
    accept.setVersion(PROTOCOL_VERSION);
    accept.setFeatures(acceptance.features);
    KJ_IF_MAYBE (secret, acceptance.linkSecret) {
      auto given = accept.getLinkSecret().initGiven();
      const auto* bytes = secret->bytes.begin();
      given.setA(getLittleEndian<uint64_t>(bytes));
      given.setB(getLittleEndian<uint64_t>(bytes + 8));
      given.setC(getLittleEndian<uint64_t>(bytes + 16));
      given.setD(getLittleEndian<uint64_t>(bytes + 24));
    }
    result = serialise(message);
  }
  sodium_memzero(space, sizeof(space));
  return result;
}

kj::Maybe<Confirmation> parseConfirmation(kj::ArrayPtr<const kj::byte> untrusted) {
  return parse<schema::Confirm, Confirmation>(untrusted, [](schema::Confirm::Reader in) -> kj::Maybe<Confirmation> {
    if (in.getVersion() != PROTOCOL_VERSION) return nullptr;
    Confirmation out;
    out.features = in.getFeatures();
    out.sessionCounter = in.getSessionCounter();
    out.bootId = {in.getBootIdHigh(), in.getBootIdLow()};
    out.agentInstance = {in.getAgentInstanceHigh(), in.getAgentInstanceLow()};
    auto purpose = in.getPurpose();
    switch (purpose.which()) {
      case schema::Confirm::Purpose::PRIMARY:
        return kj::mv(out);
      case schema::Confirm::Purpose::BULK: {
        auto bulk = purpose.getBulk();
        out.bulk = BulkPurpose{bulk.getTransfer(), {bulk.getTicketHigh(), bulk.getTicketLow()}};
        return kj::mv(out);
      }
    }
    return nullptr;  // a purpose of a later version
  });
}

kj::Maybe<Acceptance> parseAcceptance(kj::ArrayPtr<const kj::byte> untrusted) {
  return parse<schema::Accept, Acceptance>(untrusted, [](schema::Accept::Reader in) -> kj::Maybe<Acceptance> {
    if (in.getVersion() != PROTOCOL_VERSION) return nullptr;
    Acceptance out;
    out.features = in.getFeatures();
    auto secret = in.getLinkSecret();
    switch (secret.which()) {
      case schema::Accept::LinkSecret::NONE:
        return kj::mv(out);
      case schema::Accept::LinkSecret::GIVEN: {
        auto given = secret.getGiven();
        LinkSecret bytes;
        putLittleEndian<uint64_t>(given.getA(), bytes.bytes.begin());
        putLittleEndian<uint64_t>(given.getB(), bytes.bytes.begin() + 8);
        putLittleEndian<uint64_t>(given.getC(), bytes.bytes.begin() + 16);
        putLittleEndian<uint64_t>(given.getD(), bytes.bytes.begin() + 24);
        out.linkSecret = kj::mv(bytes);
        return kj::mv(out);
      }
    }
    return nullptr;
  });
}

}  // namespace postern
