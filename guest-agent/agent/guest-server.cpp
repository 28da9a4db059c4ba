#include "guest-agent/agent/guest-server.h"

#include <string.h>

namespace postern::guest {

namespace {

class CallsServer final : public schema::GuestCalls::Server {
 public:
  CallsServer(const GuestServices& shared, Session& session, kj::String callerText)
      : shared(shared),
        text(kj::mv(callerText)),
        caller(parseCallerText(text)),
        decide([this](kj::StringPtr call) { return verdict(call); }),
        decideFile([this](const transfer::FileOrder& order) { return verdict(order); }),
        files(shared.files.newCaller(session, text)),
        channels(shared.channels.newCaller(session, text, [&shared, known = parseCallerText(text)](kj::StringPtr call) {
          return verdict(shared, known, call);
        })) {}

 protected:
  kj::Promise<void> ping(PingContext context) override {
    context.releaseParams();
    KJ_IF_MAYBE (denial, verdict("ping")) fill(context.getResults().initRefusal(), *denial);
    return kj::READY_NOW;
  }

  kj::Promise<void> info(InfoContext context) override {
    context.allowCancellation();
    return shared.info.info(context.getParams().getWhat(), decide, context.getResults());
  }

  kj::Promise<void> power(PowerContext context) override {
    context.allowCancellation();
    auto params = context.getParams();
    return shared.power.power(text, decide, params.getRequest(), params.getObserver(), context.getResults())
        .then([this](kj::Maybe<kj::Own<PowerService::Interest>> interest) {
          KJ_IF_MAYBE (i, interest) {
            // One a caller is enough to keep an operation; a caller that repeats itself must not pile them up.
            if (interests.size() >= MAX_OBSERVERS) interests.clear();
            interests.add(kj::mv(*i));
          }
        });
  }

  kj::Promise<void> file(FileContext context) override {
    context.allowCancellation();
    return files->file(decideFile, context.getParams(), context.getResults());
  }

  kj::Promise<void> connect(ConnectContext context) override {
    context.allowCancellation();
    // Hundreds may wait for their targets: with as little as there is to say.
    auto connecting = channels->connect(context.getParams(), context.getResults(capnp::MessageSize{8, 0}));
    context.releaseParams();
    return connecting;
  }

  kj::Promise<void> services(ServicesContext context) override {
    context.releaseParams();
    auto results = context.getResults();
    if (caller == nullptr) {
      fill(results.initRefusal(), GuestPolicy::unknownCaller());
    } else {
      channels->services(results);
    }
    return kj::READY_NOW;
  }

 private:
  const GuestServices& shared;
  const kj::String text;
  const kj::Maybe<VouchedCaller> caller;
  Decide decide;
  DecideFile decideFile;
  kj::Own<FileService::Caller> files;
  kj::Own<ChannelService::Caller> channels;
  kj::Vector<kj::Own<PowerService::Interest>> interests;

  static kj::Maybe<Denial> verdict(const GuestServices& shared, const kj::Maybe<VouchedCaller>& caller,
                                   kj::StringPtr call) {
    KJ_IF_MAYBE (known, caller) return shared.policy->decide(*known, call);
    return GuestPolicy::unknownCaller();
  }
  kj::Maybe<Denial> verdict(kj::StringPtr call) { return verdict(shared, caller, call); }
  kj::Maybe<Denial> verdict(const transfer::FileOrder& order) {
    KJ_IF_MAYBE (known, caller) {
      auto decided = shared.policy->decideFile(*known, order);
      KJ_IF_MAYBE (denial, decided.tryGet<Denial>()) return kj::mv(*denial);
      return nullptr;
    }
    return GuestPolicy::unknownCaller();
  }
};

class Server final : public schema::Guest::Server {
 public:
  Server(const GuestServices& services, Rekeying& rekeying, Session& session)
      : services(services), rekeying(rekeying), session(session) {}

 protected:
  kj::Promise<void> callsFor(CallsForContext context) override {
    // The empty line is nobody's (power/caller-text.h).
    kj::String text;
    KJ_IF_MAYBE (known, callerText(context.getParams().getCaller())) text = kj::mv(*known);
    context.releaseParams();
    context.getResults().setCalls(kj::heap<CallsServer>(services, session, kj::mv(text)));
    return kj::READY_NOW;
  }

  kj::Promise<void> rekey(RekeyContext context) override {
    auto host = context.getParams().getHostPublicKey();
    auto token = context.getParams().getToken();
    if (host.size() != noise::KEY_BYTES || token.size() != noise::KEY_BYTES) {
      fill(context.getResults().initRefusal(), schema::Refusal::Reason::INVALID, "a key and a token have 32 bytes");
      return kj::READY_NOW;
    }
    HostPublicKey key;
    memcpy(key.bytes.data(), host.begin(), host.size());
    KJ_IF_MAYBE (refused, rekeying.rekey(key, EnrolmentToken{Secret<32>(token)})) {
      fill(context.getResults().initRefusal(), refused->reason, refused->detail);
    }
    context.releaseParams();
    return kj::READY_NOW;
  }

 private:
  const GuestServices& services;
  Rekeying& rekeying;
  Session& session;
};

}  // namespace

schema::Guest::Client newGuestServer(const GuestServices& services, Rekeying& rekeying, Session& session) {
  return kj::heap<Server>(services, rekeying, session);
}

}  // namespace postern::guest
