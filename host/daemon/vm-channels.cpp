// A Vm's port: what its session process says of channels, and what is shown of them.

#include "host/daemon/vm.h"

namespace postern::host {

kj::Promise<kj::Maybe<kj::Own<Vm::Prospect>>> Vm::sessionAsks(kj::Maybe<ChannelQuestion> question) {
  return environment.channels.ask(*this, kj::mv(question));
}

void Vm::sessionBegins(kj::Own<Prospect> prospect, schema::SessionObserver::ConnectResults::Builder answer) {
  environment.channels.begin(*this, kj::mv(prospect), answer);
}

void Vm::sessionOpened(uint64_t channel, uint64_t grant, kj::StringPtr service) {
  environment.channels.opened(*this, channel, grant, service);
}

void Vm::sessionRefused(const ChannelRefusal& refusal) {
  environment.channels.refused(*this, refusal);
}

void Vm::sessionClosed(const ChannelClosing& closing) {
  environment.channels.closed(*this, closing);
}

void Vm::sessionTraffic(PortClaim claim) {
  portCounters.claimed(kj::mv(claim));
  showPort();
}

BoardPort Vm::shownPort() const {
  auto shown = portCounters.forBoard();
  shown.blockedByPolicy = environment.decisions.isBlockedByPolicy(vmRecord.name);
  shown.blockedByHand = environment.decisions.isBlockedByHand(vmRecord.name);
  return shown;
}

void Vm::showPort() {
  KJ_IF_MAYBE (s, slot) environment.board.updatePort(*s, shownPort());
}

void Vm::describe(schema::Port::Builder port) const {
  auto& decisions = environment.decisions;
  bool byHand = decisions.isBlockedByHand(vmRecord.name);
  portCounters.write(port);
  port.setVm(vmRecord.name);
  port.setBlocked(byHand || decisions.isBlockedByPolicy(vmRecord.name));
  port.setBlockedByHand(byHand);
}

}  // namespace postern::host
