#include "host/libvirt/door.h"

#include <errno.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "transport/connector.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

using Observer = kj::UnixEventPort::FdObserver;

// One conversation, up to its answer.
class Conversation {
 public:
  struct Answer {
    kj::String untrustedLine;
    kj::AutoCloseFd passed;  // null: none
  };

  Conversation(kj::UnixEventPort& port, StrangersFd socket)
      : socket(kj::mv(socket)), observer(port, this->socket, Observer::OBSERVE_READ) {}

  // The first line that comes back; TransportError if it ends before.
  kj::Promise<kj::OneOf<Answer, TransportError>> ask(kj::StringPtr line) {
    auto text = kj::str(line, '\n');
    ssize_t sent = ::send(socket, text.begin(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != static_cast<ssize_t>(text.size())) return ended();
    return receive();
  }

  StrangersFd release() { return kj::mv(socket); }

  kj::Promise<void> untilClosed() {
    for (;;) {
      char byte;
      ssize_t n = recv(socket, &byte, 1, MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return kj::READY_NOW;
      if (n < 0 && errno == EAGAIN) return observer.whenBecomesReadable().then([this] { return untilClosed(); });
    }
  }

 private:
  using Result = kj::OneOf<Answer, TransportError>;

  StrangersFd socket;
  Observer observer;
  kj::Vector<char> line;
  kj::AutoCloseFd passed;

  static Result ended() { return transportError("postern-libvirt ended before it answered"); }

  // Byte by byte: what follows the line is somebody else's.
  // T116
  kj::Promise<Result> receive() {
    while (line.size() < MAX_DOOR_LINE_BYTES) {
      char byte;
      ssize_t n = take(byte);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return observer.whenBecomesReadable().then([this] { return receive(); });
      if (n <= 0) return ended();
      if (byte == '\n') return Result(Answer{kj::heapString(line.asPtr()), kj::mv(passed)});
      line.add(byte);
    }
    return Result(transportError("postern-libvirt answered with a line that does not end"));
  }

  ssize_t take(char& byte) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec piece = {&byte, 1};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    auto* header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      passed = kj::AutoCloseFd(*reinterpret_cast<int*>(CMSG_DATA(header)));
    }
    return n;
  }
};

struct Asked {
  kj::Own<Conversation> conversation;
  Conversation::Answer answer;
};

kj::Promise<kj::OneOf<Asked, TransportError>> ask(kj::UnixEventPort& port, kj::StringPtr socket, kj::String line) {
  using Result = kj::OneOf<Asked, TransportError>;
  return connectUnix(port.getTimer(), TransportKind::UNIX, socket, limits::CONNECT_TIMEOUT)
      .then([&port, line = kj::mv(line), path = kj::str(socket)](Connected connected) -> kj::Promise<Result> {
        KJ_IF_MAYBE (error, connected.tryGet<TransportError>()) {
          if (!error->nobodyListens) return Result(kj::mv(*error));
          return Result(transportError("postern-libvirt does not run: nobody listens at ", path));
        }
        auto conversation = kj::heap<Conversation>(port, kj::mv(connected.get<Connection>().fd));
        auto answer = conversation->ask(line);
        return answer.then([conversation = kj::mv(conversation)](auto outcome) mutable -> Result {
          KJ_IF_MAYBE (error, outcome.template tryGet<TransportError>()) return kj::mv(*error);
          auto& answer = outcome.template get<Conversation::Answer>();
          if (!answer.untrustedLine.startsWith("ERROR ")) return Asked{kj::mv(conversation), kj::mv(answer)};
          return transportError(printable(answer.untrustedLine.slice(6), MAX_DOOR_LINE_BYTES));
        });
      });
}

TransportError unknownAnswer(kj::StringPtr untrustedLine) {
  return transportError("postern-libvirt answered '", printable(untrustedLine, 40), "', which is no answer");
}

// A context id that a guest can have; 0 otherwise.
uint32_t cidFrom(kj::StringPtr untrustedText) {
  char* end;
  auto cid = strtoull(untrustedText.cStr(), &end, 10);
  return *end == '\0' && cid > CID_HOST && cid < CID_ANY ? static_cast<uint32_t>(cid) : 0;
}

}  // namespace

kj::Promise<Connected> LibvirtDoor::monitor(kj::StringPtr domain) const {
  auto late = port.getTimer().afterDelay(MONITOR_DEADLINE).then([]() -> Connected {
    return transportError("libvirtd does not answer postern-libvirt");
  });
  return ask(port, socket, kj::str("monitor ", domain))
      .then([](kj::OneOf<Asked, TransportError> outcome) -> Connected {
        KJ_IF_MAYBE (error, outcome.tryGet<TransportError>()) return kj::mv(*error);
        auto& asked = outcome.get<Asked>();
        if (asked.answer.untrustedLine != "OK") return unknownAnswer(asked.answer.untrustedLine);
        // Not the helper's own address: another process at the other end is no other QEMU.
        return Connection{TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), asked.conversation->release()};
      })
      .exclusiveJoin(kj::mv(late));
}

kj::Promise<kj::OneOf<Connection, LibvirtDoor::GuestCid, TransportError>> LibvirtDoor::channel(
    kj::StringPtr domain) const {
  using Result = kj::OneOf<Connection, GuestCid, TransportError>;
  return ask(port, socket, kj::str("channel ", domain)).then([](kj::OneOf<Asked, TransportError> outcome) -> Result {
    KJ_IF_MAYBE (error, outcome.tryGet<TransportError>()) return kj::mv(*error);
    auto& asked = outcome.get<Asked>();
    auto& answer = asked.answer;
    if (answer.untrustedLine == "OK" && answer.passed != nullptr) {
      return Connection{TransportKind::SERIAL, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(answer.passed)};
    }
    auto cid = answer.untrustedLine.startsWith("CID ") ? cidFrom(answer.untrustedLine.slice(4)) : 0;
    if (cid == 0) return unknownAnswer(answer.untrustedLine);
    auto stopped = asked.conversation->untilClosed();
    return GuestCid{cid, stopped.attach(kj::mv(asked.conversation))};
  });
}

}  // namespace postern::host
