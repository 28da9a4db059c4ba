#pragma once
// RelayLab: programs that talk over channels of one link. Each line is a channel with a relay at both ends, and a
// program's socket at each.

#include <kj/vector.h>

#include "tests/unit/transport/joined-sessions.h"
#include "transport/relay/relay.h"

namespace postern::test {

enum class SocketKind { UNIX, TCP };
constexpr SocketKind SOCKET_KINDS[] = {SocketKind::UNIX, SocketKind::TCP};

// Connected; non-blocking. `one` is the relay's.
SocketPair connectedSockets(SocketKind kind);

// A program's end of a socket, by itself: no relay. Each call at most one at a time of its kind.
class Program {
 public:
  Program(kj::AsyncIoContext& io, kj::AutoCloseFd socket);

  kj::Promise<void> write(kj::ArrayPtr<const kj::byte> bytes);
  void finish() { stream->shutdownWrite(); }
  // To the end; null if it is a reset, not an end.
  kj::Promise<kj::Maybe<kj::Array<kj::byte>>> readAll();
  kj::Promise<size_t> readSome(kj::ArrayPtr<kj::byte> into);
  // TCP: RST. Unix: a close with something unread is one; otherwise it is closed.
  void reset();
  int descriptor() const { return fd; }
  bool isOpen() const { return stream.get() != nullptr; }

 private:
  int fd;
  kj::Own<kj::AsyncIoStream> stream;

  kj::Promise<bool> readInto(kj::Vector<kj::byte>& all, kj::ArrayPtr<kj::byte> buffer);
};

struct Line {
  kj::Own<Program> hostProgram, guestProgram;
  kj::Own<Relay> hostRelay, guestRelay;
  kj::Promise<RelayOutcome> hostOutcome, guestOutcome;
};

class RelayLab : public JoinedSessions {
 public:
  Line connect(SocketKind kind, kj::Maybe<RelayMeter&> hostMeter = nullptr,
               kj::Maybe<RelayMeter&> guestMeter = nullptr);
  // Both outcomes.
  void expect(Line& line, RelayOutcome host, RelayOutcome guest);
  kj::Array<kj::byte> bytes(size_t size);
  // Writes all of `there` and `back` at the same time, half-closes each behind it, and checks that they arrive.
  void exchange(Line& line, kj::ArrayPtr<const kj::byte> there, kj::ArrayPtr<const kj::byte> back);
};

}  // namespace postern::test
