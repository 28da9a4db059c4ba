#pragma once
// What one posternd that has connected has of a session process: SessionControl, and the way back to its observer.
// Internal to SessionProcess.

#include "host/session/session-process.h"

namespace postern::host {

struct SessionProcess::Daemon {
  Control& control;                                     // owned by `rpc`, and by calls that outlive it
  kj::Maybe<schema::SessionObserver::Client> observer;  // once attached
  kj::AutoCloseFd reports;
  kj::Maybe<kj::Own<LocalRpc>> rpc;

  explicit Daemon(Control& control) : control(control) {}
  ~Daemon() noexcept(false);
};

class SessionProcess::Control final : public schema::SessionControl::Server {
 public:
  explicit Control(SessionProcess& process) : process(process) {}

  // Null when it has gone: a call of its may still be carried out.
  kj::Maybe<Daemon&> daemon;

  kj::Promise<void> attach(AttachContext context) override;
  kj::Promise<void> link(LinkContext context) override;
  kj::Promise<void> introduce(IntroduceContext context) override;
  kj::Promise<void> serve(ServeContext context) override;
  kj::Promise<void> setLimits(SetLimitsContext context) override;
  kj::Promise<void> cutChannels(CutChannelsContext context) override;
  kj::Promise<void> channelTraffic(ChannelTrafficContext context) override;
  kj::Promise<void> stop(StopContext context) override;
  kj::Promise<void> whenSerialFree(WhenSerialFreeContext context) override;
  kj::Promise<void> retire(RetireContext context) override;
  kj::Promise<void> configure(ConfigureContext context) override;
  kj::Promise<void> alive(AliveContext) override { return kj::READY_NOW; }

 private:
  SessionProcess& process;
};

}  // namespace postern::host
