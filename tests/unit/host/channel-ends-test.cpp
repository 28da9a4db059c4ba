// What a program of the host is told of its channels' ends.

#include "host/session/channels/service-calls.h"
#include "tests/unit/host/channel-fixture.h"

namespace postern::host {
namespace {

using test::ChannelLab;
using test::TestSocket;

struct Observer final : public schema::ChannelObserver::Server {
  Observer(kj::Vector<kj::String>& told, bool acknowledges) : told(told), acknowledges(acknowledges) {}
  kj::Promise<void> closed(ClosedContext context) override {
    told.add(kj::str(context.getParams().getWhy()));
    if (acknowledges) return kj::READY_NOW;
    return kj::NEVER_DONE;
  }
  kj::Vector<kj::String>& told;
  const bool acknowledges;
};

TEST_CASE("whoever connects is told how the channel ended, when its socket has been") {
  for (kj::StringPtr why : {"finished"_kj, "reset"_kj, "cut"_kj, "link-ended"_kj}) {
    CAPTURE(why.cStr());
    kj::Vector<kj::String> told;
    ChannelLab lab;
    lab.observer = kj::heap<Observer>(told, true);
    auto caller = lab.introduce({"http"});
    TestSocket mine;
    auto id = lab.open(caller, mine);
    auto& channel = *lab.guest.channels[0];
    CHECK(told.empty());
    if (why == "finished") {
      mine.finish();
      channel.finish();
    } else if (why == "reset") {
      channel.reset();
    } else if (why == "cut") {
      auto request = lab.posternd->control.cutChannelsRequest();
      request.setIds({id});
      lab.take(request.send().ignoreResult());
    } else {
      lab.kill(lab.linked.guest);
    }
    REQUIRE(lab.soon([&]() { return told.size() == 1; }));
    CHECK((told[0] == why));
    CHECK(mine.isOver());
  }
}

TEST_CASE("a caller that does not acknowledge ends is told no more of them after a while, and loses nothing else") {
  kj::Vector<kj::String> told;
  ChannelLab lab;
  lab.observer = kj::heap<Observer>(told, false);
  auto caller = lab.introduce({"http"});
  for (unsigned i = 0; i < MAX_TOLD_ENDS + 10; ++i) {
    TestSocket mine;
    lab.open(caller, mine);
    lab.guest.channels.back()->reset();
    REQUIRE(lab.soon([&]() { return mine.isOver(); }));
  }
  CHECK(lab.soon([&]() { return told.size() == MAX_TOLD_ENDS; }));
  lab.turn();
  CHECK(told.size() == MAX_TOLD_ENDS);
}

}  // namespace
}  // namespace postern::host
