#pragma once
// OpenerPeer: a mover's end of the socket to an opener, for tests: says what it is told to, in order or not, and takes
// what comes, checked for form alone. It never waits to send: what does not fit is kept.

#include <kj/array.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <deque>

#include "protocol/transfer/opener-message.h"

namespace postern::test {

// Two ends of a SOCK_SEQPACKET socket.
struct SocketEnds {
  kj::AutoCloseFd opener;
  kj::AutoCloseFd mover;
};
SocketEnds newSocketEnds();

class OpenerPeer {
 public:
  struct Message {
    transfer::ToMover message;
    kj::Array<kj::byte> content;
    kj::Vector<kj::AutoCloseFd> descriptors;  // of the packet that it came in, if it may bring some
  };

  explicit OpenerPeer(kj::AutoCloseFd socket);
  KJ_DISALLOW_COPY(OpenerPeer);

  void send(const transfer::Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr);
  void send(const transfer::Backward& message);
  void send(const transfer::Commit& message);
  void sendSent(uint64_t bytes);
  // A packet of any bytes.
  void sendRaw(kj::ArrayPtr<const kj::byte> packet);
  // As much as goes without waiting.
  void flush();
  bool hasUnsent() const { return !packets.empty() || gathered.size() > 0; }

  // Waits, and sends meanwhile; null: the opener has closed.
  kj::Maybe<Message> receive();
  // The same without waiting, and null then, too.
  kj::Maybe<Message> receiveNow();
  bool isClosed() const { return closed; }
  int descriptor() const { return socket; }
  void close() { socket = nullptr; }

 private:
  kj::AutoCloseFd socket;
  transfer::FrameBuilder frame;
  kj::Vector<kj::byte> gathered;
  std::deque<kj::Array<kj::byte>> packets;
  std::deque<Message> received;
  bool closed = false;

  void gather(kj::ArrayPtr<const kj::byte> content = nullptr);
  void readPacket();
};

}  // namespace postern::test
