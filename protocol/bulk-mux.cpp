#include "protocol/bulk-mux.h"

#include <kj/debug.h>

#include <algorithm>

#include "protocol/bulk-channel-state.h"
#include "protocol/limits.h"
#include "protocol/wire-int.h"

namespace postern {

using _::ChannelState;

kj::StringPtr describe(BulkError error) {
  switch (error) {
    case BulkError::UNKNOWN_CHANNEL:
      return "bulk record for a channel that was never open";
    case BulkError::BAD_NUMBER:
      return "bulk channel with a number that is not the opener's to give";
    case BulkError::CREDIT_OVERRUN:
      return "more bulk bytes than were granted";
    case BulkError::CREDIT_OVERFLOW:
      return "more bulk credit than a window can have";
    case BulkError::AFTER_FINISH:
      return "bulk bytes behind the end of their channel";
    case BulkError::TOO_MANY:
      return "too many bulk channels";
  }
  KJ_UNREACHABLE;
}

BulkMux::BulkMux(Role self, BlockPool& pool, kj::Timer& timer, kj::Function<void()> wake)
    : self(self), pool(pool), timer(timer), wake(kj::mv(wake)), nextOwnNumber(self == Role::GUEST ? 1 : 2) {}

BulkMux::~BulkMux() noexcept(false) {
  sessionEnded();
}

// Numbers --------------------------------------------------------------------------------------------------------

bool BulkMux::isOwnNumber(uint32_t number) const {
  return (number % 2 == 1) == (self == Role::GUEST);
}

bool BulkMux::wasOpen(uint32_t number) const {
  if (number == 0) return false;
  return isOwnNumber(number) ? number < nextOwnNumber : number <= highestPeerNumber;
}

uint32_t BulkMux::firstWindow() {
  uint32_t window = windowsGranted + limits::BULK_WINDOW_FIRST <= limits::BULK_WINDOWS_PER_LINK
                        ? limits::BULK_WINDOW_FIRST
                        : limits::BULK_WINDOW_SMALL;
  windowsGranted += window;
  return window;
}

kj::Maybe<BulkMux::Opened> BulkMux::open() {
  // Numbers are never used twice; 2^31 of them outlast any session's 24 hours.
  if (channels.size() >= limits::MAX_BULK_CHANNELS || nextOwnNumber >= 0xfffffffeu) return nullptr;
  uint32_t number = nextOwnNumber;
  nextOwnNumber += 2;
  uint32_t window = firstWindow();
  auto state = kj::refcounted<ChannelState>(*this, number, window, ChannelState::GrantBy::OFFER, 0u);
  if (ended) {
    state->sessionEnded();
  } else {
    channels[number] = state.get();
  }
  return Opened{kj::heap<BulkChannel>(kj::mv(state)), {number, window}};
}

kj::OneOf<kj::Own<BulkChannel>, BulkError> BulkMux::accept(const BulkOffer& untrustedOffer) {
  uint32_t number = untrustedOffer.channel;
  if (number == 0 || isOwnNumber(number) || channels.count(number) != 0) return BulkError::BAD_NUMBER;
  if (untrustedOffer.credit > limits::BULK_WINDOW_MAX) return BulkError::CREDIT_OVERFLOW;
  if (channels.size() >= limits::MAX_BULK_CHANNELS) return BulkError::TOO_MANY;
  highestPeerNumber = std::max(highestPeerNumber, number);
  auto grantBy = ended ? ChannelState::GrantBy::OFFER : ChannelState::GrantBy::RECORD;
  auto state = kj::refcounted<ChannelState>(*this, number, firstWindow(), grantBy, untrustedOffer.credit);
  if (ended) {
    state->sessionEnded();
    return kj::heap<BulkChannel>(kj::mv(state));
  }
  channels[number] = state.get();
  auto overtook = early.find(number);
  if (overtook != early.end()) {
    if (overtook->second.finished) state->receiveFinished();
    if (overtook->second.reset) state->receiveReset();
    early.erase(overtook);
  }
  return kj::heap<BulkChannel>(kj::mv(state));
}

// Receiving ------------------------------------------------------------------------------------------------------

kj::Maybe<BulkError> BulkMux::receive(const Record& record, kj::Array<kj::byte> storage) {
  auto found = channels.find(record.header.channel);
  if (found == channels.end()) return receiveEarly(record.header);
  return receiveFor(*found->second, record, kj::mv(storage));
}

kj::Maybe<BulkError> BulkMux::receiveEarly(const RecordHeader& header) {
  uint32_t number = header.channel;
  bool endsIt = header.flags == BULK_FINISHED || header.flags == BULK_RESET;
  if (number == 0 || isOwnNumber(number) || !endsIt) {
    // Bytes and credit come only after an accept().
    if (wasOpen(number)) return nullptr;
    return BulkError::UNKNOWN_CHANNEL;
  }
  auto& known = early[number];
  if (header.flags == BULK_RESET) {
    known.reset = true;
  } else if (known.finished) {
    return BulkError::AFTER_FINISH;
  } else {
    known.finished = true;
  }
  if (early.size() > limits::MAX_BULK_CHANNELS) early.erase(early.begin());
  return nullptr;
}

kj::Maybe<BulkError> BulkMux::receiveFor(ChannelState& channel, const Record& record, kj::Array<kj::byte> storage) {
  switch (record.header.flags) {
    case 0:
      return channel.receiveData(kj::mv(storage), record.data);
    case BULK_CREDIT:
      return channel.receiveCredit(getLittleEndian<uint32_t>(record.data.begin()));
    case BULK_FINISHED:
      return channel.receiveFinished();
    case BULK_RESET:
      channel.receiveReset();
      lingering.erase(channel.number);  // its last bytes are not wanted; drops the last reference
      return nullptr;
  }
  KJ_UNREACHABLE;  // parseRecord() lets no other through
}

// Sending --------------------------------------------------------------------------------------------------------

void BulkMux::makeReady(ChannelState& channel) {
  if (!channel.inReadyList) {
    channel.inReadyList = true;
    ready.push_back(&channel);
  }
  wake();
}

void BulkMux::makeCreditReady(ChannelState& channel) {
  if (!channel.inCreditList) {
    channel.inCreditList = true;
    creditReady.push_back(&channel);
  }
  wake();
}

void BulkMux::sendReset(uint32_t number) {
  resets.push_back(number);
  wake();
}

void BulkMux::linger(kj::Own<ChannelState> channel) {
  uint32_t number = channel->number;
  lingering[number] = kj::mv(channel);
}

kj::Maybe<OutgoingRecord> BulkMux::nextRecord() {
  if (!creditReady.empty()) {
    auto& channel = *creditReady.front();
    creditReady.pop_front();
    channel.inCreditList = false;
    kj::byte amount[4];
    putLittleEndian<uint32_t>(channel.takeOwedCredit(), amount);
    return smallRecord({RecordType::BULK, BULK_CREDIT, 0, channel.number}, kj::arrayPtr(amount, sizeof(amount)));
  }
  if (!resets.empty()) {
    uint32_t number = resets.front();
    resets.pop_front();
    const kj::byte reason[1] = {0};
    return smallRecord({RecordType::BULK, BULK_RESET, 0, number}, reason);
  }
  while (!ready.empty()) {
    auto& channel = *ready.front();
    ready.pop_front();
    channel.inReadyList = false;
    if (!channel.hasRecord()) continue;  // reset in the meantime
    auto record = channel.takeRecord();
    if (channel.hasRecord()) {
      channel.inReadyList = true;
      ready.push_back(&channel);
    } else {
      auto waiting = lingering.find(channel.number);
      if (waiting != lingering.end()) {
        if (!channel.peerHasFinished()) resets.push_back(channel.number);
        lingering.erase(waiting);  // drops the last reference: the channel leaves
      }
    }
    return kj::mv(record);
  }
  return nullptr;
}

void BulkMux::forget(ChannelState& channel) {
  channels.erase(channel.number);
  windowsGranted -= channel.reservedWindow();
  if (channel.inReadyList) ready.erase(std::find(ready.begin(), ready.end(), &channel));
  if (channel.inCreditList) creditReady.erase(std::find(creditReady.begin(), creditReady.end(), &channel));
  channel.inReadyList = channel.inCreditList = false;
}

void BulkMux::sessionEnded() {
  ended = true;
  auto states = kj::mv(channels);
  channels.clear();
  ready.clear();
  creditReady.clear();
  resets.clear();
  for (auto& entry : states) entry.second->sessionEnded();
  lingering.clear();
  early.clear();
}

}  // namespace postern
