// memory: what a link holds while nothing happens on it, against the bounds of the design; and that it wakes nobody.

#include <kj/debug.h>
#include <kj/vector.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "protocol/frame.h"
#include "protocol/hello.h"
#include "protocol/limits.h"
#include "tests/bench/bench-server.h"
#include "tests/bench/measurement.h"

namespace postern::bench {

namespace {

constexpr double KIB = 1024;
constexpr double IDLE_LINK_BYTES = 64 * KIB;
constexpr double HALF_OPEN_BYTES = 4 * KIB;
// The end of the measured time is itself a timer's wake-up; a loaded kernel may add a spurious one.
constexpr double WAKE_UPS_ALLOWED = 5;
constexpr auto WATCHED = 3 * kj::SECONDS;
constexpr uint64_t TRAFFIC_BYTES = 1 << 20;

void allowManyDescriptors() {
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max;
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limit));
}

struct Footprint {
  double heap;          // allocated, as malloc counts
  double privateDirty;  // pages that only this process has, as the kernel counts

  Footprint operator-(const Footprint& other) const { return {heap - other.heap, privateDirty - other.privateDirty}; }
};

double privateDirtyBytes() {
  FILE* rollup = fopen("/proc/self/smaps_rollup", "re");
  KJ_REQUIRE(rollup != nullptr, "the kernel has no smaps_rollup");
  KJ_DEFER(fclose(rollup));
  char line[256];
  unsigned long kib;
  while (fgets(line, sizeof(line), rollup) != nullptr) {
    if (sscanf(line, "Private_Dirty: %lu", &kib) == 1) return static_cast<double>(kib) * KIB;
  }
  KJ_FAIL_REQUIRE("smaps_rollup has no Private_Dirty");
}

Footprint footprint() {
  malloc_trim(0);
  auto info = mallinfo2();
  return {static_cast<double>(info.uordblks + info.hblkhd), privateDirtyBytes()};
}

double voluntarySwitches() {
  rusage usage;
  KJ_SYSCALL(getrusage(RUSAGE_SELF, &usage));
  return static_cast<double>(usage.ru_nvcsw);
}

// Both ends of a link, with RPC, in this process.
struct LiveLink {
  kj::Own<Session> guest;
  kj::Own<Session> host;
  kj::Own<RpcConnection> guestRpc;
  kj::Own<RpcConnection> hostRpc;

  LiveLink(Runtime& runtime, EnrolledPair& pair) {
    auto sockets = newSocketPair();
    auto hostPromise = runtime.connectHost(kj::mv(sockets.far), pair).eagerlyEvaluate(nullptr);
    guest = runtime.connectGuest(kj::mv(sockets.near), pair).wait(runtime.io.waitScope);
    host = hostPromise.wait(runtime.io.waitScope);
    hostRpc = kj::heap<RpcConnection>(*host, Role::HOST, kj::heap<BenchServer>(*host), [](kj::StringPtr) {});
    guestRpc = kj::heap<RpcConnection>(*guest, Role::GUEST, kj::heap<BenchServer>(*guest), [](kj::StringPtr) {});
  }

  // A call and a stream, each way.
  void carryTraffic(Runtime& runtime) {
    carry(runtime, *guest, *guestRpc);
    carry(runtime, *host, *hostRpc);
  }

 private:
  static void carry(Runtime& runtime, Session& session, RpcConnection& rpc) {
    auto bench = rpc.peer().castAs<Bench>();
    bench.echoRequest().send().getEcho().pingRequest().send().wait(runtime.io.waitScope);
    auto stream = openBulk(session, bench);
    auto sending = sendBulk(*stream.channel, TRAFFIC_BYTES).eagerlyEvaluate(nullptr);
    KJ_REQUIRE(stream.drained.wait(runtime.io.waitScope) == TRAFFIC_BYTES);
  }
};

struct LiveResult {
  double heap, privateDirty;  // a link's end
  double wakeUps;             // of the whole process
};

LiveResult measureLive(size_t links) {
  allowManyDescriptors();
  Runtime runtime;
  EnrolledPair pair;
  kj::Vector<kj::Own<LiveLink>> live(links);
  // One first, so that what the process needs once is not counted.
  LiveLink(runtime, pair).carryTraffic(runtime);
  auto settle = limits::BUFFER_IDLE * 2 + 500 * kj::MILLISECONDS;
  runtime.timer.afterDelay(settle).wait(runtime.io.waitScope);
  auto before = footprint();
  for (size_t i = 0; i < links; ++i) {
    live.add(kj::heap<LiveLink>(runtime, pair))->carryTraffic(runtime);
  }
  runtime.timer.afterDelay(settle).wait(runtime.io.waitScope);
  auto grown = footprint() - before;
  double switches = voluntarySwitches();
  runtime.timer.afterDelay(WATCHED).wait(runtime.io.waitScope);
  double ends = 2 * static_cast<double>(links);
  return {grown.heap / ends, grown.privateDirty / ends, voluntarySwitches() - switches};
}

// Heap of a host's end whose peer has sent the first `bytes` of an honest HELLO and nothing else.
double measureHalfOpen(size_t links, size_t bytes) {
  allowManyDescriptors();
  Runtime runtime;
  EnrolledPair pair;
  Hello hello;
  describeCredentials(pair.guest, hello);
  kj::byte frame[HELLO_FRAME_BYTES];
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
  writeHello(hello, kj::arrayPtr(frame, sizeof(frame)).slice(FRAME_HEADER_BYTES, sizeof(frame)));

  kj::Vector<kj::AutoCloseFd> peers(links + 1);
  kj::Vector<kj::Promise<kj::Own<Session>>> waiting(links + 1);
  auto open = [&]() {
    auto sockets = newSocketPair();
    KJ_SYSCALL(write(sockets.near, frame, bytes));
    peers.add(kj::mv(sockets.near));
    waiting.add(runtime.connectHost(kj::mv(sockets.far), pair).eagerlyEvaluate(nullptr));
  };
  // One first, as above.
  open();
  runtime.timer.afterDelay(100 * kj::MILLISECONDS).wait(runtime.io.waitScope);
  auto before = footprint();
  for (size_t i = 0; i < links; ++i) open();
  runtime.timer.afterDelay(100 * kj::MILLISECONDS).wait(runtime.io.waitScope);
  return (footprint() - before).heap / static_cast<double>(links);
}

// In a process of its own, so that what was measured earlier is not in the heap.
template <typename Result, typename Measure>
Result inFreshProcess(Measure&& measure) {
  PeerProcess process(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) {
    Result result = measure();
    kj::FdOutputStream(sockets[0].get()).write(&result, sizeof(result));
  });
  auto socket = process.takeSocket();
  Result result;
  kj::FdInputStream(socket.get()).read(&result, sizeof(result));
  process.finish();
  return result;
}

}  // namespace

void measureMemory(const Options& options, Report& report) {
  size_t links = options.quick ? 20 : 500;
  auto live = inFreshProcess<LiveResult>([&]() { return measureLive(links); });
  report.add("memory, idle link, heap", "KiB", Target::atMost(1.0), {IDLE_LINK_BYTES / KIB, live.heap / KIB});
  report.add("memory, idle link, private pages", "KiB", Target::atMost(1.0),
             {IDLE_LINK_BYTES / KIB, live.privateDirty / KIB});
  report.add("memory, wake-ups of idle links", "in 3 s", Target::atMost(1.0), {WAKE_UPS_ALLOWED, live.wakeUps});

  size_t halfOpen = options.quick ? 20 : 200;
  auto halfOpenRow = [&](kj::StringPtr name, size_t bytes) {
    double heap = inFreshProcess<double>([&]() { return measureHalfOpen(halfOpen, bytes); });
    report.add(name, "KiB", Target::atMost(1.0), {HALF_OPEN_BYTES / KIB, heap / KIB});
  };
  halfOpenRow("memory, half-open, nothing came", 0);
  halfOpenRow("memory, half-open, half a HELLO", HELLO_FRAME_BYTES / 2);
  halfOpenRow("memory, half-open, HELLO only", HELLO_FRAME_BYTES);
}

}  // namespace postern::bench
