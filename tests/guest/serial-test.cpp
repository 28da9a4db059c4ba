// In a guest with the port org.postern.agent.0. The host's end is played by the test outside, which reads what this
// prints ("HOST: ...") on the console and does it.

#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "transport/connector.h"
#include "transport/serial-port.h"

namespace postern {
namespace {

constexpr kj::StringPtr PORT = "/dev/virtio-ports/org.postern.agent.0"_kj;

void askHost(const char* what) {
  printf("HOST: %s\n", what);
  fflush(stdout);
}

double cpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct Fixture {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::Timer& timer = io.provider->getTimer();

  Connected open() {
    return connectTo(io.unixEventPort, timer, Endpoint(SerialEndpoint{kj::str(PORT)})).wait(io.waitScope);
  }
  void wait(kj::Promise<void> promise) { timer.timeoutAfter(20 * kj::SECONDS, kj::mv(promise)).wait(io.waitScope); }
  void sleep(kj::Duration time) { timer.afterDelay(time).wait(io.waitScope); }

  // Reads, waiting, until the pipe has this state; gives the bytes of OPEN reads before.
  kj::String readUntil(BytePipe& pipe, PipeState state, size_t bytes) {
    kj::Vector<char> got;
    char buffer[64];
    for (;;) {
      auto result = pipe.read(kj::arrayPtr(buffer, sizeof(buffer)).asBytes());
      got.addAll(kj::arrayPtr(buffer, result.bytes));
      if (result.state == state && got.size() >= bytes) return kj::heapString(got.begin(), got.size());
      if (result.bytes == 0) wait(pipe.whenReadable());
    }
  }
};

TEST_CASE("serial: a port without a host's client is not connected, costs no time, and works when one comes and goes") {
  Fixture f;
  auto opened = f.open();
  KJ_IF_MAYBE (error, opened.tryGet<TransportError>()) FAIL(error->text.cStr());
  CHECK(opened.get<Connection>().descriptorKind == DescriptorKind::SERIAL_DEVICE);
  auto pipe = newPipe(f.io.unixEventPort, kj::mv(opened.get<Connection>()));

  auto second = f.open();
  REQUIRE(second.is<TransportError>());
  CHECK(strstr(second.get<TransportError>().text.cStr(), "another process has the port open") != nullptr);

  // Nobody there: reads say so, writes take nothing, and waiting does not spin.
  kj::byte buffer[64];
  CHECK(pipe->read(buffer).state == PipeState::NOT_CONNECTED);
  kj::ArrayPtr<const kj::byte> word = kj::StringPtr("hello").asBytes();
  auto written = pipe->write(kj::arrayPtr(&word, 1));
  CHECK(written.state == PipeState::OPEN);
  CHECK(written.bytes == 0);
  auto writable = pipe->whenWritable();
  double cpu = cpuSeconds();
  unsigned wakeups = 0;
  auto until = f.timer.now() + 2 * kj::SECONDS;
  while (f.timer.now() < until) {
    CHECK(pipe->read(buffer).state == PipeState::NOT_CONNECTED);
    pipe->whenReadable().exclusiveJoin(f.timer.atTime(until)).wait(f.io.waitScope);
    ++wakeups;
  }
  CHECK(wakeups < 5);
  CHECK(cpuSeconds() - cpu < 0.5);

  askHost("connect");
  f.wait(kj::mv(writable));
  for (;;) {  // it may have been spurious
    written = pipe->write(kj::arrayPtr(&word, 1));
    if (written.bytes > 0) break;
    f.wait(pipe->whenWritable());
  }
  CHECK(written.bytes == 5);
  askHost("read hello, send abc");
  CHECK((f.readUntil(*pipe, PipeState::OPEN, 3) == "abc"));

  askHost("disconnect");
  f.readUntil(*pipe, PipeState::NOT_CONNECTED, 0);
  askHost("connect, send def");
  CHECK((f.readUntil(*pipe, PipeState::OPEN, 3) == "def"));

  // A host that does not read: the pipe fills, then takes more once the host has read.
  auto block = kj::heapArray<kj::byte>(100 << 10);
  memset(block.begin(), 'x', block.size());
  kj::ArrayPtr<const kj::byte> piece = block;
  size_t total = 0;
  for (;;) {
    auto result = pipe->write(kj::arrayPtr(&piece, 1));
    REQUIRE(result.state == PipeState::OPEN);
    CHECK(result.bytes <= MAX_SERIAL_WRITE_BYTES);
    total += result.bytes;
    if (result.bytes == 0) break;
  }
  CHECK(total > 0);
  askHost("read some");
  for (;;) {
    f.wait(pipe->whenWritable());
    if (pipe->write(kj::arrayPtr(&piece, 1)).bytes > 0) break;
  }

  // Unplugged: the end.
  askHost("unplug");
  f.readUntil(*pipe, PipeState::ENDED, 0);
}

}  // namespace
}  // namespace postern
