#include "host/client/service-channel.h"

#include <kj/debug.h>

namespace postern::client {

namespace {

using Response = capnp::Response<host::schema::VmCalls::ConnectResults>;

constexpr struct {
  kj::StringPtr word;
  ChannelEnd end;
} ENDS[] = {{"finished"_kj, ChannelEnd::FINISHED},
            {"reset"_kj, ChannelEnd::RESET},
            {"cut"_kj, ChannelEnd::CUT},
            {"link-ended"_kj, ChannelEnd::LINK_ENDED}};

ChannelEnd parseEnd(kj::StringPtr untrusted) {
  for (auto& known : ENDS) {
    if (untrusted == known.word) return known.end;
  }
  return ChannelEnd::UNKNOWN;
}

// Told by the session, or destroyed with the last way to it.
class Observer final : public host::schema::ChannelObserver::Server {
 public:
  explicit Observer(kj::Own<kj::PromiseFulfiller<ChannelEnd>> told) : told(kj::mv(told)) {}
  ~Observer() noexcept(false) { told->fulfill(ChannelEnd::UNKNOWN); }

  kj::Promise<void> closed(ClosedContext context) override {
    told->fulfill(parseEnd(context.getParams().getWhy()));
    return kj::READY_NOW;
  }

 private:
  kj::Own<kj::PromiseFulfiller<ChannelEnd>> told;
};

}  // namespace

kj::Promise<Outcome<OpenChannel>> connectService(VmClient& vm, kj::StringPtr service, kj::AutoCloseFd stream) {
  using Result = Outcome<OpenChannel>;
  auto told = kj::newPromiseAndFulfiller<ChannelEnd>();
  auto request = vm.calls().connectRequest();
  request.setService(service);
  request.setStream(host::newDescriptor(kj::mv(stream)));
  request.setObserver(kj::heap<Observer>(kj::mv(told.fulfiller)));
  return request.send().then(
      [name = kj::str(service), end = kj::mv(told.promise)](Response response) mutable -> Result {
        if (!response.hasFailure()) return OpenChannel{response.getChannel(), kj::mv(end)};
        auto failed = failureOf(response.getFailure());
        failed.text = kj::str("service '", name, "': ", failed.text);
        // What failed is the other end: a service's target that does not answer.
        if (failed.kind == FailureKind::FAILED) failed.kind = FailureKind::REFUSED;
        return kj::mv(failed);
      });
}

}  // namespace postern::client
