#include "tests/bench/cut-wire.h"

namespace postern::bench {

namespace {

kj::Own<kj::NetworkAddress> addressOf(kj::AsyncIoContext& io, kj::StringPtr path) {
  return io.provider->getNetwork().parseAddress(kj::str("unix:", path)).wait(io.waitScope);
}

}  // namespace

CutWire::CutWire(kj::AsyncIoContext& io, kj::StringPtr from, kj::StringPtr to)
    : far(addressOf(io, to)),
      near(addressOf(io, from)->listen()),
      wires(kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this))),
      accepting(acceptAll().eagerlyEvaluate(nullptr)) {}

kj::Promise<void> CutWire::acceptAll() {
  return near->accept().then([this](kj::Own<kj::AsyncIoStream> socket) {
    wires->add(lead(kj::mv(socket)));
    return acceptAll();
  });
}

kj::Promise<void> CutWire::lead(kj::Own<kj::AsyncIoStream> socket) {
  return far->connect().then([this, socket = kj::mv(socket)](kj::Own<kj::AsyncIoStream> other) mutable {
    ++connections;
    auto there = socket->pumpTo(*other).ignoreResult();
    auto back = other->pumpTo(*socket).ignoreResult();
    return there.exclusiveJoin(kj::mv(back)).attach(kj::mv(other), kj::mv(socket));
  });
}

void CutWire::cut() {
  wires = kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this));
}

}  // namespace postern::bench
