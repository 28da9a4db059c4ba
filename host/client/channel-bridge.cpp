#include "host/client/channel-bridge.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <poll.h>

namespace postern::client {

namespace {

constexpr size_t PIECE_BYTES = size_t(64) << 10;
// The session says how the channel ended when it tells its socket.
constexpr auto LAST_WORD = 2 * kj::SECONDS;

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

}  // namespace

ChannelBridge::ChannelBridge(kj::UnixEventPort& port, kj::Timer& timer, kj::AutoCloseFd tcpSocket,
                             kj::AutoCloseFd unixSocket, kj::Promise<ChannelEnd> channel)
    : timer(timer),
      probe(copyOf(unixSocket)),
      tcp(newSocketEnd(port, kj::mv(tcpSocket))),
      session(newSocketEnd(port, kj::mv(unixSocket))),
      channelEnd(channel.fork()) {}

kj::Promise<void> ChannelBridge::run() {
  return kj::joinPromises(kj::arr(move(*tcp, *session), move(*session, *tcp)))
      .exclusiveJoin(tcp->whenReset().then([this]() { return reset(); }))
      .exclusiveJoin(session->whenReset().then([this]() { return reset(); }));
}

kj::Promise<void> ChannelBridge::move(RelayEnd& from, RelayEnd& to) {
  return from.whenReadable().then([this, &from, &to]() { return readOn(from, to); });
}

// A direction that waits holds no memory.
kj::Promise<void> ChannelBridge::readOn(RelayEnd& from, RelayEnd& to) {
  auto piece = kj::heapArray<kj::byte>(PIECE_BYTES);
  auto result = from.read(piece);
  if (result.state == RelayEnd::State::RESET) return reset();
  if (result.state == RelayEnd::State::FINISHED) return inputOver(from, to);
  if (result.bytes == 0) return move(from, to);
  return deliver(kj::mv(piece), 0, result.bytes, from, to);
}

kj::Promise<void> ChannelBridge::deliver(kj::Array<kj::byte> piece, size_t done, size_t size, RelayEnd& from,
                                         RelayEnd& to) {
  while (done < size) {
    auto result = to.write(piece.slice(done, size));
    if (result.state == RelayEnd::State::RESET) return reset();
    done += result.bytes;
    if (result.bytes > 0) continue;
    return to.whenWritable().then([this, piece = kj::mv(piece), done, size, &from, &to]() mutable {
      return deliver(kj::mv(piece), done, size, from, to);
    });
  }
  // Others get their turn.
  return kj::evalLater([this, &from, &to]() { return move(from, to); });
}

kj::Promise<void> ChannelBridge::inputOver(RelayEnd& from, RelayEnd& to) {
  if (&from == tcp.get()) {
    thereFinished = true;
    return finish(to);
  }
  if (!mayHaveBeenReset()) return finish(to);
  auto silence = timer.afterDelay(LAST_WORD).then([]() { return ChannelEnd::UNKNOWN; });
  return channelEnd.addBranch().exclusiveJoin(kj::mv(silence)).then([this, &to](ChannelEnd end) {
    bool inOrder = end == ChannelEnd::FINISHED || (end == ChannelEnd::UNKNOWN && thereFinished);
    return inOrder ? finish(to) : reset();
  });
}

// Whoever finishes his direction alone leaves the other one open.
bool ChannelBridge::mayHaveBeenReset() const {
  pollfd polled = {probe, 0, 0};
  return thereFinished || poll(&polled, 1, 0) > 0;
}

kj::Promise<void> ChannelBridge::finish(RelayEnd& end) {
  end.finish();
  return end.whenWritable();
}

// The other direction's end is not waited for.
kj::Promise<void> ChannelBridge::reset() {
  tcp->reset();
  session->reset();
  return kj::READY_NOW;
}

}  // namespace postern::client
