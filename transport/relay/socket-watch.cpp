#include "transport/relay/socket-watch.h"

namespace postern {

namespace {

// A socket that was full is watched for room until so many writes in a row have found some.
constexpr unsigned WRITES_UNWATCHED = 256;

// Rejected when the observer goes or watches anew: then, too, trying is the answer.
kj::Promise<void> whicheverWay(kj::Promise<void> edge) {
  return edge.then([] {}, [](kj::Exception&&) {});
}

kj::Promise<void> take(kj::Maybe<kj::Promise<void>>& armed) {
  KJ_IF_MAYBE (edge, armed) {
    auto waiting = whicheverWay(kj::mv(*edge));
    armed = nullptr;
    return waiting;
  }
  return kj::READY_NOW;
}

}  // namespace

SocketWatch::SocketWatch(kj::UnixEventPort& port, int fd) : port(port), fd(fd) {
  observe(Observer::OBSERVE_READ);
}
SocketWatch::~SocketWatch() noexcept(false) {
  stop();
}

// A new observer hears of what is ready already, and the waits of the old one end: nothing is missed.
void SocketWatch::observe(Observer::Flags flags) {
  observer = nullptr;
  observer.emplace(port, fd, flags);
}

void SocketWatch::nothingToRead() {
  KJ_IF_MAYBE (watching, observer) readEdge = watching->whenBecomesReadable();
}

void SocketWatch::full() {
  if (observer == nullptr) return;
  writesSinceFull = 0;
  if (!watchesRoom) {
    watchesRoom = true;
    observe(Observer::OBSERVE_READ_WRITE);
  }
  KJ_IF_MAYBE (watching, observer) writeEdge = watching->whenBecomesWritable();
}

void SocketWatch::tookSome() {
  if (!watchesRoom || ++writesSinceFull < WRITES_UNWATCHED) return;
  watchesRoom = false;
  writeEdge = nullptr;
  observe(Observer::OBSERVE_READ);
}

kj::Promise<void> SocketWatch::whenReadable() {
  return take(readEdge);
}
kj::Promise<void> SocketWatch::whenWritable() {
  return take(writeEdge);
}

kj::Promise<void> SocketWatch::whenHungUp() {
  KJ_IF_MAYBE (watching, observer) return whicheverWay(watching->whenWriteDisconnected());
  return kj::READY_NOW;
}

void SocketWatch::stop() {
  readEdge = nullptr;
  writeEdge = nullptr;
  observer = nullptr;
}

}  // namespace postern
