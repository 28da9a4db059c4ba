#include "host/daemon/event-stream.h"

namespace postern::host {

bool EventStream::maySee(kj::StringPtr name) {
  KJ_IF_MAYBE (known, daemon.findVm(name)) return daemon.decisions().isVisible(*who, known->record());
  return who->isAdministrator;  // a VM that is gone, or never was
}

bool EventStream::isFor(const Event& event) {
  if (vm.size() > 0 && event.vm != vm) return false;
  if (event.vm.size() == 0) {
    return who->isAdministrator || daemon.decisions().decideOnHost(*who, "admin.audit").isAllowed();
  }
  return maySee(event.vm) && (event.other.size() == 0 || maySee(event.other));
}

kj::Promise<void> EventStream::run(Until until) {
  kj::Maybe<kj::Promise<void>> sent;
  daemon.eventLog().forEachAfter(seen, [&](const Event& event) {
    if (sent != nullptr) return;
    seen = event.sequence;
    if (isFor(event)) sent = send(event);
  });
  KJ_IF_MAYBE (s, sent) return s->then([this, until]() { return run(until); });
  if (until == Until::LAST) return kj::READY_NOW;
  return daemon.eventLog().whenAfter(seen).then([this, until]() { return run(until); });
}

kj::Promise<void> EventStream::send(const Event& event) {
  auto request = sink.eventRequest();
  auto out = request.initEvent();
  out.setSequence(event.sequence);
  out.setTime(formatTime(event.time));
  out.setVm(event.vm);
  out.setKind(event.kind);
  out.setText(event.text);
  return request.send();
}

}  // namespace postern::host
