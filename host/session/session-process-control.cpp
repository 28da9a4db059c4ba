#include "host/session/session-process-control.h"

#include <kj/debug.h>
#include <unistd.h>

#include "host/session/channels/passed-flow.h"
#include "host/session/channels/served-channel.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

// What posternd passes as numbers, checked; null if it is not from this build.
kj::Maybe<TransportKind> transportFrom(uint8_t number) {
  switch (static_cast<TransportKind>(number)) {
    case TransportKind::UNIX:
    case TransportKind::HYBRID:
    case TransportKind::SERIAL:
    case TransportKind::VSOCK:
      return static_cast<TransportKind>(number);
  }
  return nullptr;
}

}  // namespace

SessionProcess::Daemon::~Daemon() noexcept(false) {
  control.daemon = nullptr;
}

kj::Promise<void> SessionProcess::Control::attach(AttachContext context) {
  auto params = context.getParams();
  process.hub.setRollback(params.getRollback());
  auto observer = params.getObserver();
  return takeDescriptor(params.getReports()).then([this, context, observer](kj::Maybe<kj::AutoCloseFd> fd) mutable {
    auto& current = KJ_REQUIRE_NONNULL(daemon, "whoever attached has gone");
    KJ_IF_MAYBE (f, fd) current.reports = kj::mv(*f);
    current.observer = kj::mv(observer);
    auto results = context.getResults();
    results.setPid(static_cast<uint32_t>(getpid()));
    results.setVersion(POSTERN_VERSION);
    auto& vm = process.hub.vmKeys().vmId();
    results.setVm(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
    process.fill(results.initState());
    process.channels.list(results);
    process.attachedNow(current);
  });
}

kj::Promise<void> SessionProcess::Control::link(LinkContext context) {
  auto params = context.getParams();
  auto kind = params.getDescriptorKind() == 0 ? DescriptorKind::SOCKET : DescriptorKind::SERIAL_DEVICE;
  auto transport = KJ_REQUIRE_NONNULL(transportFrom(params.getTransport()));
  return takeDescriptor(params.getSocket())
      .then([this, kind, transport, peer = printable(params.getPeer(), 64)](kj::Maybe<kj::AutoCloseFd> fd) mutable {
        Connection connection{transport, kind, UnknownPeer(), kj::mv(KJ_REQUIRE_NONNULL(fd))};
        return process.hub.link(kj::mv(connection), kj::mv(peer));
      })
      .then([context](Hub::Outcome outcome) mutable {
        auto result = context.getResults().initOutcome();
        result.setProved(outcome.proved);
        result.setReason(printable(outcome.reason, 256));
      });
}

// What the grant says of limits counts from now on: before what posternd says next, however long its sockets take.
kj::Promise<void> SessionProcess::Control::introduce(IntroduceContext context) {
  auto grant = context.getParams().getGrant();
  PassedWithGrant passed;
  passed.gates = process.limits.learn(grant);
  kj::Vector<kj::Promise<kj::AutoCloseFd>> mirrors;
  for (auto service : grant.getServices()) mirrors.add(takeMirrorSocket(service.getMirror()));
  return takeDescriptor(context.getParams().getSocket())
      .then([this, context, passed = kj::mv(passed),
             mirrors = kj::joinPromises(mirrors.releaseAsArray())](kj::Maybe<kj::AutoCloseFd> socket) mutable {
        return mirrors.then([this, context, passed = kj::mv(passed),
                             socket = kj::mv(KJ_REQUIRE_NONNULL(socket))](kj::Array<kj::AutoCloseFd> sockets) mutable {
          passed.mirrors = kj::mv(sockets);
          process.introduce(kj::mv(socket), context.getParams().getGrant(), kj::mv(passed));
        });
      });
}

kj::Promise<void> SessionProcess::Control::serve(ServeContext context) {
  return serveChannel(process.hub, process.channels, context);
}

kj::Promise<void> SessionProcess::Control::setLimits(SetLimitsContext context) {
  process.limits.set(context.getParams().getPort(), context.getParams().getRules());
  return kj::READY_NOW;
}

kj::Promise<void> SessionProcess::Control::cutChannels(CutChannelsContext context) {
  for (auto id : context.getParams().getIds()) process.channels.cut(id);
  return kj::READY_NOW;
}

kj::Promise<void> SessionProcess::Control::channelTraffic(ChannelTrafficContext context) {
  process.channels.listTraffic(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> SessionProcess::Control::stop(StopContext) {
  process.end();
  return kj::READY_NOW;
}

kj::Promise<void> SessionProcess::Control::retire(RetireContext context) {
  // What posternd has asked for before, such as to introduce a caller, is done by then.
  return kj::evalLast([this, context]() mutable {
    bool agrees = process.mayRetire();
    context.getResults().setAgreed(agrees);
    if (agrees) process.endFulfiller->fulfill();
  });
}

kj::Promise<void> SessionProcess::Control::whenSerialFree(WhenSerialFreeContext context) {
  context.allowCancellation();
  return process.hub.whenSerialFree();
}

kj::Promise<void> SessionProcess::Control::configure(ConfigureContext context) {
  process.hub.setRollback(context.getParams().getRollback());
  return kj::READY_NOW;
}

}  // namespace postern::host
