#include "protocol/public-errors.h"

#include <capnp/rpc.capnp.h>
#include <kj/debug.h>

namespace postern {

using Connection = capnp::TwoPartyVatNetworkBase::Connection;

kj::StringPtr publicText(kj::Exception::Type type) {
  switch (type) {
    case kj::Exception::Type::FAILED:
      return "the other end failed to do this";
    case kj::Exception::Type::OVERLOADED:
      return "the other end is overloaded";
    case kj::Exception::Type::DISCONNECTED:
      return "the other end lost a connection that this needs";
    case kj::Exception::Type::UNIMPLEMENTED:
      return "the other end does not support this";
  }
  return "the other end failed";
}

namespace {

// The wire's enum has the same order as KJ's.
static_assert(kj::uint(capnp::rpc::Exception::Type::UNIMPLEMENTED) == kj::uint(kj::Exception::Type::UNIMPLEMENTED));

// Overwriting a text zeroes the old one inside the message, so that nothing of it is left to send.
// T29
void makePublic(capnp::rpc::Exception::Builder exception, kj::Function<void(kj::StringPtr)>& observe) {
  observe(exception.asReader().getReason());
  exception.setReason(publicText(static_cast<kj::Exception::Type>(exception.getType())));
}

void filterMessage(capnp::rpc::Message::Builder message, kj::Function<void(kj::StringPtr)>& observe) {
  switch (message.which()) {
    case capnp::rpc::Message::ABORT:
      return makePublic(message.getAbort(), observe);
    case capnp::rpc::Message::RETURN: {
      auto result = message.getReturn();
      if (result.isException()) makePublic(result.getException(), observe);
      return;
    }
    case capnp::rpc::Message::RESOLVE: {
      auto resolve = message.getResolve();
      if (resolve.isException()) makePublic(resolve.getException(), observe);
      return;
    }
    default:
      return;  // no other message holds an exception
  }
}

}  // namespace

class PublicVatNetwork::FilteredMessage final : public capnp::OutgoingRpcMessage {
 public:
  FilteredMessage(kj::Own<capnp::OutgoingRpcMessage> inner, PublicVatNetwork& network)
      : inner(kj::mv(inner)), network(network) {}

  capnp::AnyPointer::Builder getBody() override { return inner->getBody(); }
  void setFds(kj::Array<int> fds) override { inner->setFds(kj::mv(fds)); }
  size_t sizeInWords() override { return inner->sizeInWords(); }
  void send() override {
    auto message = inner->getBody().getAs<capnp::rpc::Message>();
    filterMessage(message, network.observe);
    size_t words = inner->sizeInWords();
    network.load.checkSize(words);
    inner->send();
    network.load.sent(message.asReader(), words);
  }

 private:
  kj::Own<capnp::OutgoingRpcMessage> inner;
  PublicVatNetwork& network;
};

class PublicVatNetwork::FilteredConnection final : public Connection {
 public:
  FilteredConnection(kj::Own<Connection> inner, PublicVatNetwork& network) : inner(kj::mv(inner)), network(network) {}

  kj::Own<capnp::RpcFlowController> newStream() override { return inner->newStream(); }
  capnp::rpc::twoparty::VatId::Reader getPeerVatId() override { return inner->getPeerVatId(); }
  kj::Own<capnp::OutgoingRpcMessage> newOutgoingMessage(kj::uint firstSegmentWordSize) override {
    return kj::heap<FilteredMessage>(inner->newOutgoingMessage(firstSegmentWordSize), network);
  }
  kj::Promise<kj::Maybe<kj::Own<capnp::IncomingRpcMessage>>> receiveIncomingMessage() override {
    using Received = kj::Maybe<kj::Own<capnp::IncomingRpcMessage>>;
    if (!network.load.mayReceive()) {
      return network.load.whenMayReceive().then([this]() { return receiveIncomingMessage(); });
    }
    return inner->receiveIncomingMessage().then([this](Received next) {
      KJ_IF_MAYBE (message, next) network.load.received((*message)->getBody().getAs<capnp::rpc::Message>());
      return next;
    });
  }
  kj::Promise<void> shutdown() override {
    network.over.fulfiller->fulfill();
    return inner->shutdown();
  }

 private:
  kj::Own<Connection> inner;
  PublicVatNetwork& network;
};

PublicVatNetwork::PublicVatNetwork(capnp::TwoPartyVatNetwork& inner, RpcLoad& load,
                                   kj::Function<void(kj::StringPtr)> observe)
    : inner(inner), load(load), observe(kj::mv(observe)) {}
PublicVatNetwork::~PublicVatNetwork() noexcept(false) {}

kj::Own<Connection> PublicVatNetwork::filter(kj::Own<Connection> connection) {
  if (filtered == nullptr) filtered = kj::heap<FilteredConnection>(kj::mv(connection), *this);
  return kj::Own<Connection>(KJ_ASSERT_NONNULL(filtered).get(), kj::NullDisposer::instance);
}

kj::Maybe<kj::Own<Connection>> PublicVatNetwork::connect(capnp::rpc::twoparty::VatId::Reader hostId) {
  KJ_IF_MAYBE (connection, inner.connect(hostId)) {
    return filter(kj::mv(*connection));
  }
  return nullptr;
}

kj::Promise<kj::Own<Connection>> PublicVatNetwork::accept() {
  return inner.accept().then([this](kj::Own<Connection> connection) { return filter(kj::mv(connection)); });
}

}  // namespace postern
