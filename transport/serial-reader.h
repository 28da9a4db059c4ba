#pragma once
// SerialReader: takes what was read from a serial pipe apart into SYNCs and frames. Knows no epochs and no session.
//
// A sync word counts at every byte and ends whatever was unfinished before it. Holds nothing beside an unfinished frame
// (in an allocation of its length, gone with the frame), an unfinished SYNC, the scanner's 15 bytes, and what park()
// moved here.

#include <kj/array.h>
#include <kj/one-of.h>

#include <array>

#include "protocol/frame-reader.h"
#include "protocol/frame.h"
#include "protocol/hello.h"
#include "transport/sync-scanner.h"

namespace postern {

class SerialReader {
 public:
  SerialReader() = default;
  KJ_DISALLOW_COPY(SerialReader);

  // What followed a sync word: as many bytes as a HELLO frame has, unchecked. Valid until the next call.
  struct Sync {
    kj::ArrayPtr<const kj::byte> untrustedFrame;
  };
  using RawFrame = FrameReader::RawFrame;
  struct BadFrame {};  // a header that is none, or a body over the bound
  struct UsedUp {};    // nothing whole is left: begin() with more

  // How bytes outside SYNCs are taken from now on: thrown away (as at first), or as frames, the next byte beginning
  // one.
  void hunt();
  void expectFrames(size_t maxBody);
  void setMaxBody(size_t bytes) { maxBody = bytes; }

  // The next bytes of the stream. Only when all earlier ones are used up. Whoever calls next() later than in the same
  // turn of the event loop has called park().
  void begin(kj::ArrayPtr<kj::byte> chunk);
  kj::OneOf<Sync, RawFrame, BadFrame, UsedUp> next();
  bool isUsedUp() const { return unread.size() == 0; }

  // Copies what is not used up out of the caller's chunk.
  void park();
  // As if the bytes that are not used up had been lost on the way. Does not need them to be there any more.
  void discard();

 private:
  enum class Outside { THROWN_AWAY, FRAMES };

  Outside outside = Outside::THROWN_AWAY;
  size_t maxBody = 0;
  SyncScanner scanner;
  FrameReader frames;

  size_t wordArriving = 0;  // this many of a sync word's bytes stand at a frame boundary, and nothing else yet
  bool inSync = false;
  size_t syncBytes = 0;
  std::array<kj::byte, HELLO_FRAME_BYTES> sync{};

  kj::ArrayPtr<kj::byte> unread = nothing();  // in the caller's chunk, or in `parked`
  kj::Array<kj::byte> parked;
  size_t scanned = 0;         // of `unread`, from its front
  kj::Maybe<size_t> wordEnd;  // where in `unread` the first sync word ends

  // Empty, but not null, which memcpy() must not be given.
  kj::ArrayPtr<kj::byte> nothing() { return kj::arrayPtr(sync.data(), size_t(0)); }

  void scan();
  void take(size_t count);
  size_t beforeWord() const;
  bool takeOfSync(size_t available);
  kj::OneOf<RawFrame, BadFrame, UsedUp> nextFrame();
};

}  // namespace postern
