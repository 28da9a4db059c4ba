#pragma once
// The server of tests/support/echo.capnp.

#include <kj/async.h>

#include "tests/support/echo.capnp.h"

namespace postern::test {

class EchoServer final : public Echo::Server {
 public:
  uint64_t calls = 0;

 protected:
  kj::Promise<void> echo(EchoContext context) override {
    ++calls;
    context.getResults().setData(context.getParams().getData());
    return kj::READY_NOW;
  }
  kj::Promise<void> ping(PingContext context) override {
    ++calls;
    context.getResults().setNumber(context.getParams().getNumber());
    return kj::READY_NOW;
  }
  kj::Promise<void> fail(FailContext context) override {
    return KJ_EXCEPTION(FAILED, "secret detail", context.getParams().getText());
  }
  kj::Promise<void> hang(HangContext) override { return kj::NEVER_DONE; }
  kj::Promise<void> take(TakeContext) override {
    ++calls;
    return kj::READY_NOW;
  }
  kj::Promise<void> count(CountContext context) override {
    context.getResults().setCalls(calls);
    return kj::READY_NOW;
  }
};

}  // namespace postern::test
