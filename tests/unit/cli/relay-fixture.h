#pragma once
// Relay: what movers and link do between two openers, in one thread and without either: packets of the source opener go
// to the destination opener and back, and the bytes of larger files from descriptor to descriptor. Runs until both have
// said what they have to say, or one of them has gone.

#include <kj/io.h>

#include <functional>

#include "protocol/transfer/opener-message.h"

namespace postern::test {

class Relay {
 public:
  // The movers' ends of the openers' sockets.
  Relay(int source, int destination);
  KJ_DISALLOW_COPY(Relay);

  // Before a larger file's bytes go on.
  std::function<void()> beforeContent = []() {};

  // What the destination said in the end; or that one has gone.
  kj::OneOf<transfer::Summary, transfer::Problem> run();

 private:
  struct Packet {
    kj::Array<capnp::word> words;
    size_t bytes = 0;
    kj::Vector<kj::AutoCloseFd> descriptors;
  };
  const int source;
  const int destination;
  uint64_t entries = 0;
  uint64_t sentBytes = 0;
  // A larger file that is on its way.
  struct File {
    uint64_t number;
    kj::AutoCloseFd from;  // null: a stream, whose bytes follow as frames
    kj::Maybe<kj::AutoCloseFd> to;
    bool failed = false;
    bool over = false;
  };
  kj::Maybe<File> file;
  kj::Maybe<kj::OneOf<transfer::Summary, transfer::Problem>> end;

  kj::Maybe<Packet> receive(int socket);
  void send(int socket, kj::ArrayPtr<const kj::byte> frame);
  void fromSource(Packet packet);
  void fromDestination(Packet packet);
  void forward(transfer::Forward message, kj::ArrayPtr<const kj::byte> content, kj::Vector<kj::AutoCloseFd>& fds);
  void backward(transfer::Backward message);
  void content();
  void commit(transfer::Outcome outcome);
};

}  // namespace postern::test
