#include "guest-agent/files/opener-answer.h"

#include <kj/debug.h>

#include "protocol/transfer/opener-message.h"
#include "transport/packet-socket.h"
#include "transport/transfer/opener-socket.h"

namespace postern::guest {

namespace {

using transfer::Problem;
using transfer::ProblemKind;

kj::Maybe<Problem> parseAnswer(kj::ArrayPtr<const kj::byte> untrusted) {
  transfer::FrameReader reader;
  auto next = reader.next(untrusted);
  KJ_IF_MAYBE (frame, next) {
    KJ_IF_MAYBE (view, frame->tryGet<transfer::FrameView*>()) {
      auto message = transfer::parseToMover(**view);
      KJ_IF_MAYBE (toMover, message.tryGet<transfer::ToMover>()) {
        KJ_IF_MAYBE (backward, toMover->tryGet<transfer::Backward>()) {
          if (backward->is<transfer::Summary>()) return nullptr;
          KJ_IF_MAYBE (refused, backward->tryGet<transfer::Refused>()) return kj::mv(refused->problem);
        }
      }
    }
  }
  return transfer::problem(ProblemKind::PROTOCOL, kj::str("the process that opens files gave an answer that is none"));
}

}  // namespace

kj::Promise<kj::Maybe<Problem>> answerOfOpener(kj::AutoCloseFd socket, kj::UnixEventPort& port) {
  auto packets = kj::heap<PacketSocket>(kj::mv(socket), port, transfer::MAX_PACKET_BYTES, 0);
  auto receiving = packets->receive();
  return receiving.attach(kj::mv(packets))
      .then([](kj::OneOf<Packet, PacketsEnded, PacketTooMuch> received) -> kj::Maybe<Problem> {
        KJ_IF_MAYBE (packet, received.tryGet<Packet>()) return parseAnswer(packet->bytes);
        return transfer::problem(ProblemKind::FAILED,
                                 kj::str("the process that opens files in the guest ended without an answer"));
      });
}

void sendAnswer(kj::AutoCloseFd socketFd, const kj::Maybe<Problem>& problem) {
  transfer::OpenerSocket socket(kj::mv(socketFd));
  transfer::FrameBuilder frame;
  auto backward = frame.init<schema::ToMover>().initBackward();
  KJ_IF_MAYBE (p, problem) {
    transfer::write(*p, backward.initRefused());
  } else {
    backward.initFinished();
  }
  if (!socket.put(frame) || !socket.flush()) return;  // nobody waits for it any more
}

}  // namespace postern::guest
