#include "transport/serial-reader.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>

namespace postern {

void SerialReader::hunt() {
  outside = Outside::THROWN_AWAY;
  frames.reset();
  wordArriving = 0;
}

void SerialReader::expectFrames(size_t bound) {
  outside = Outside::FRAMES;
  maxBody = bound;
  frames.reset();
  wordArriving = 0;
}

void SerialReader::begin(kj::ArrayPtr<kj::byte> chunk) {
  KJ_REQUIRE(isUsedUp(), "bytes of the last chunk are still unread");
  parked = nullptr;
  unread = chunk;
  scanned = 0;
  wordEnd = nullptr;
}

kj::OneOf<SerialReader::Sync, SerialReader::RawFrame, SerialReader::BadFrame, SerialReader::UsedUp>
SerialReader::next() {
  for (;;) {
    scan();
    if (inSync) {
      if (takeOfSync(beforeWord())) return Sync{kj::arrayPtr(sync.data(), sync.size())};
    } else if (outside == Outside::THROWN_AWAY) {
      take(beforeWord());
      frames = FrameReader();
    } else {
      auto item = nextFrame();
      if (item.is<RawFrame>()) return item.get<RawFrame>();
      if (item.is<BadFrame>()) return BadFrame();
    }

    KJ_IF_MAYBE (end, wordEnd) {
      take(*end);
      wordEnd = nullptr;
      frames.reset();
      wordArriving = 0;
      inSync = true;
      syncBytes = 0;
    } else {
      return UsedUp();
    }
  }
}

// Of what stands before the next word.
kj::OneOf<SerialReader::RawFrame, SerialReader::BadFrame, SerialReader::UsedUp> SerialReader::nextFrame() {
  if (wordArriving == 0) {
    // Asked for even without new bytes: this is what lets go of the frame that was handed out before.
    auto rest = unread.slice(0, beforeWord());
    auto item = frames.next(rest, maxBody);
    take(beforeWord() - rest.size());
    if (item.is<RawFrame>()) return item.get<RawFrame>();
    if (item.is<FrameReader::NeedMore>()) return UsedUp();
    if (item.is<FrameReader::OverBound>()) return BadFrame();
    // Half a sync word is no header either. It is too early to say that this is not one.
    wordArriving = FRAME_HEADER_BYTES;
  }
  KJ_IF_MAYBE (end, wordEnd) {
    if (*end + wordArriving == SYNC_WORD_BYTES) return UsedUp();
    return BadFrame();
  }
  wordArriving += unread.size();
  take(unread.size());
  if (scanner.begun() == wordArriving) return UsedUp();
  return BadFrame();
}

void SerialReader::scan() {
  if (wordEnd != nullptr || scanned == unread.size()) return;
  KJ_IF_MAYBE (end, scanner.find(unread.slice(scanned, unread.size()))) {
    scanned += *end;
    wordEnd = scanned;
  } else {
    scanned = unread.size();
  }
}

// How much of `unread` stands before the next word. A word that began in bytes used up long ago leaves nothing.
size_t SerialReader::beforeWord() const {
  KJ_IF_MAYBE (end, wordEnd) return *end - std::min(*end, SYNC_WORD_BYTES);
  return unread.size();
}

void SerialReader::take(size_t count) {
  unread = unread.slice(count, unread.size());
  scanned -= count;
  KJ_IF_MAYBE (end, wordEnd) *end -= count;
}

bool SerialReader::takeOfSync(size_t available) {
  size_t n = std::min(available, sync.size() - syncBytes);
  memcpy(sync.data() + syncBytes, unread.begin(), n);
  take(n);
  syncBytes += n;
  inSync = syncBytes < sync.size();
  return !inSync;
}

void SerialReader::park() {
  if (isUsedUp() || parked != nullptr) return;
  parked = kj::heapArray<kj::byte>(unread);
  unread = parked;
}

void SerialReader::discard() {
  if (isUsedUp()) return;
  // The scanner has looked as far as the first word. A word that begins behind that and ends in the next chunk is lost
  // with the rest.
  unread = nothing();
  parked = nullptr;
  scanned = 0;
  wordEnd = nullptr;
  inSync = false;
  frames.reset();
}

}  // namespace postern
