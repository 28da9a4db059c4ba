#include "host/daemon/session-observer.h"

#include "transport/printable.h"

namespace postern::host {

namespace {

constexpr size_t MAX_EVENT_BYTES = 300;

}  // namespace

template <typename Tell>
kj::Promise<void> SessionClient::Observer::inTurn(CallBucket SessionClient::*bucket, Tell&& tell) {
  KJ_IF_MAYBE (client, self->client) {
    return (client->*bucket).take().then([this, tell = kj::fwd<Tell>(tell)]() mutable {
      KJ_IF_MAYBE (still, self->client) tell(still->handler);
    });
  }
  return kj::READY_NOW;
}

kj::Promise<void> SessionClient::Observer::stateChanged(StateChangedContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::told,
                [context](Handler& handler) mutable { handler.sessionState(context.getParams().getState()); });
}

kj::Promise<void> SessionClient::Observer::event(EventContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::told, [context](Handler& handler) mutable {
    auto params = context.getParams();
    handler.sessionEvent(params.getKind(), printable(params.getText(), MAX_EVENT_BYTES), params.getCode(),
                         params.getSession());
  });
}

kj::Promise<void> SessionClient::Observer::operation(OperationContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::told, [context](Handler& handler) mutable {
    handler.sessionOperation(parseOperationReport(context.getParams()));
  });
}

kj::Promise<void> SessionClient::Observer::pings(PingsContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::told, [context](Handler& handler) mutable {
    KJ_IF_MAYBE (report, parsePingReport(context.getParams())) handler.sessionPings(*report);
  });
}

// Channels ---------------------------------------------------------------------------------------------------------

// T110
kj::Promise<void> SessionClient::Observer::connect(ConnectContext context) {
  context.allowCancellation();
  KJ_IF_MAYBE (client, self->client) {
    return client->channelsTold.take()
        .then([this, context]() mutable -> kj::Promise<kj::Maybe<kj::Own<GuestQuestions::Prospect>>> {
          KJ_IF_MAYBE (still, self->client) return still->handler.sessionAsks(parseQuestion(context.getParams()));
          return kj::Maybe<kj::Own<GuestQuestions::Prospect>>();
        })
        .then([this, context](kj::Maybe<kj::Own<GuestQuestions::Prospect>> prospect) mutable {
          KJ_IF_MAYBE (p, prospect) {
            // Whoever is another process by now, or gone, begins nothing.
            KJ_IF_MAYBE (still, self->client) still->handler.sessionBegins(kj::mv(*p), context.getResults());
          }
        });
  }
  return kj::READY_NOW;
}

kj::Promise<void> SessionClient::Observer::channelOpened(ChannelOpenedContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::channelsTold, [context](Handler& handler) mutable {
    auto params = context.getParams();
    handler.sessionOpened(params.getId(), params.getGrant(), params.getService());
  });
}

kj::Promise<void> SessionClient::Observer::channelRefused(ChannelRefusedContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::channelsTold,
                [context](Handler& handler) mutable { handler.sessionRefused(parseRefusal(context.getParams())); });
}

kj::Promise<void> SessionClient::Observer::channelClosed(ChannelClosedContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::channelsTold,
                [context](Handler& handler) mutable { handler.sessionClosed(parseClosing(context.getParams())); });
}

kj::Promise<void> SessionClient::Observer::traffic(TrafficContext context) {
  context.allowCancellation();
  return inTurn(&SessionClient::channelsTold,
                [context](Handler& handler) mutable { handler.sessionTraffic(parsePortClaim(context.getParams())); });
}

}  // namespace postern::host
