#include <dirent.h>

#include "tests/unit/guest-agent/file-stage.h"
#include "transport/fd-pipe.h"
#include "transport/stream-link.h"

namespace postern::guest::test {

namespace {

kj::Array<kj::String> agentAsOpener() {
  return kj::arr(kj::str(POSTERN_AGENT), kj::str("--opener"));
}

class Nobody final : public schema::Host::Server {};

}  // namespace

kj::Own<const GuestPolicy> policyOf(kj::StringPtr rules, kj::StringPtr folder) {
  kj::Vector<char> text;
  text.addAll("policy = 1\n"_kj);
  for (char c : rules) {
    if (c == '@') {
      text.addAll(folder);
    } else if (c == '%') {
      if (geteuid() == 0) text.addAll("run-as = \"root\""_kj);
    } else {
      text.add(c);
    }
  }
  auto parsed = GuestPolicy::parse("agent.toml", kj::heapString(text.asPtr()));
  KJ_IF_MAYBE (errors, parsed.tryGet<PolicyErrors>()) KJ_FAIL_REQUIRE("the test's policy", errors->lines);
  return kj::mv(parsed.get<kj::Own<const GuestPolicy>>());
}

Pair socketPair(int type) {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

void HostListener::failed(kj::StringPtr path, const transfer::Problem& problem) {
  failures.add(kj::str(path, ": ", transfer::word(problem.kind)));
  details.add(kj::str(problem.detail));
}

FileStage::FileStage(kj::StringPtr rules, kj::Maybe<kj::Array<kj::String>> opener,
                     kj::Maybe<schema::Host::Client> theHost)
    : BrokerLab(shell("exit 3"), 5 * kj::SECONDS, POWER_HAPPENS_WITHIN, kj::mv(opener).orDefault(agentAsOpener())),
      policy(policyOf(rules, root)),
      pool(port.getTimer()),
      environment{port.getTimer(), pool, random},
      brokerClient(client()),
      info(*brokerClient, port.getTimer(), nullptr),
      power(*brokerClient, port.getTimer(), port.getTimer(), [](schema::Goodbye) {}),
      files(*brokerClient, port),
      channels(*brokerClient, port),
      services{policy, info, power, files, channels} {
  KJ_SYSCALL(mkdir(root.cStr(), 0755));
  planFiles = [this](const FileOrder& order, kj::StringPtr caller) {
    return planOpener(*policy, agentRunsAs, order, caller);
  };
  Hello guestHello, hostHello;
  guestHello.role = Role::GUEST;
  hostHello.role = Role::HOST;
  random.fill(kj::arrayPtr(guestHello.nonce.data(), guestHello.nonce.size()));
  random.fill(kj::arrayPtr(hostHello.nonce.data(), hostHello.nonce.size()));
  auto wire = socketPair(SOCK_STREAM);
  auto guestPromise =
      openStreamLink(newSocketPipe(port, kj::mv(wire.one)), guestHello, scratch).eagerlyEvaluate(nullptr);
  auto hostPromise =
      openStreamLink(newSocketPipe(port, kj::mv(wire.other)), hostHello, scratch).eagerlyEvaluate(nullptr);
  auto guestOutcome = guestPromise.wait(scope);
  auto hostOutcome = hostPromise.wait(scope);
  auto guestLink = kj::mv(guestOutcome.get<kj::Own<FrameLink>>());
  auto hostLink = kj::mv(hostOutcome.get<kj::Own<FrameLink>>());
  Secret<32> toHost, toGuest;
  random.fill(toHost.asPtr());
  random.fill(toGuest.asPtr());
  auto tag = linkTag(guestLink->hellos());
  guest = kj::heap<Session>(Role::GUEST, kj::mv(guestLink), RecordSealer({toHost.clone()}, tag),
                            RecordOpener({toGuest.clone()}), false, environment);
  host = kj::heap<Session>(Role::HOST, kj::mv(hostLink), RecordSealer({toGuest.clone()}, tag),
                           RecordOpener({toHost.clone()}), false, environment);
  guestRpc =
      kj::heap<RpcConnection>(*guest, Role::GUEST, newGuestServer(services, rekeying, *guest), [](kj::StringPtr) {});
  hostRpc = kj::heap<RpcConnection>(
      *host, Role::HOST, kj::mv(theHost).orDefault([]() -> schema::Host::Client { return kj::heap<Nobody>(); }),
      [](kj::StringPtr) {});
}

FileStage::~FileStage() noexcept(false) {
  hostRpc = nullptr;
  guestRpc = nullptr;
  host = nullptr;
  guest = nullptr;
  // Threads of movers that are gone end by themselves.
  turn(100 * kj::MILLISECONDS);
}

schema::GuestCalls::Client FileStage::callsFor(kj::StringPtr user) {
  auto request = hostRpc->peer().castAs<schema::Guest>().callsForRequest();
  request.initCaller().initUser().setName(user);
  return request.send().getCalls();
}

FileOrder FileStage::order(FileCall call, kj::StringPtr path) {
  FileOrder order;
  order.call = call;
  order.path = kj::str(path);
  return order;
}

FileStage::Called FileStage::call(schema::GuestCalls::Client calls, const FileOrder& order) {
  auto request = calls.fileRequest();
  transfer::write(order, request.initOrder());
  kj::Maybe<kj::Own<BulkChannel>> channel;
  if (transfer::hasChannel(order.call)) {
    auto opened = KJ_ASSERT_NONNULL(host->bulk().open());
    request.setChannel(opened.offer.channel);
    request.setCredit(opened.offer.credit);
    channel = kj::mv(opened.channel);
  }
  return {request.send(), kj::mv(channel)};
}

kj::Own<BulkChannel> FileStage::begin(const FileOrder& order) {
  // The caller stays for as long as his transfer.
  auto calls = kj::heap(callsFor("alice"));
  auto called = call(*calls, order);
  auto response = wait(kj::mv(called.response));
  KJ_REQUIRE(!response.hasRefusal(), response.getRefusal());
  KJ_REQUIRE(!response.hasProblem(), response.getProblem());
  return KJ_ASSERT_NONNULL(kj::mv(called.channel)).attach(kj::mv(calls));
}

kj::String FileStage::refusalOf(const FileOrder& order) {
  auto called = call(callsFor("alice"), order);
  auto response = wait(kj::mv(called.response));
  if (!response.hasRefusal()) return kj::String();
  return kj::str(response.getRefusal().getReason(), ": ", response.getRefusal().getDetail());
}

kj::Maybe<ProblemKind> FileStage::problemOf(const FileOrder& order) {
  auto called = call(callsFor("alice"), order);
  auto response = wait(kj::mv(called.response));
  KJ_REQUIRE(!response.hasRefusal(), response.getRefusal());
  if (!response.hasProblem()) return nullptr;
  heard.details.add(kj::str(response.getProblem().getDetail()));
  return response.getProblem().getKind();
}

OpenerEnd FileStage::run(kj::Own<transfer::Mover> mover, kj::Function<OpenerEnd()> opener) {
  kj::Maybe<OpenerEnd> result;
  {
    kj::Thread thread([&]() { result = opener(); });
    wait(mover->run());
  }
  return kj::mv(KJ_ASSERT_NONNULL(result));
}

OpenerEnd FileStage::put(kj::StringPtr from, kj::StringPtr name, const FileOrder& order) {
  auto channel = begin(order);
  auto sockets = socketPair(SOCK_SEQPACKET);
  transfer::MoverGuard guard;
  transfer::MoverOptions options{false, order.verify, order.sparse};
  auto mover = transfer::newSourceMover(port, kj::mv(sockets.one), kj::mv(channel), options, guard);
  return run(kj::mv(mover), [&]() {
    kj::Vector<transfer::SourceTop> tops;
    kj::AutoCloseFd at(open(from.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    tops.add(transfer::SourceTop{kj::mv(at), kj::str(name), kj::str(name), kj::str(name), kj::String(), false});
    transfer::SourceOptions how;
    how.recursive = order.recursive;
    how.archive = order.archive;
    how.verify = order.verify;
    return transfer::runSourceOpener(kj::mv(sockets.other), kj::mv(tops), how, heard);
  });
}

OpenerEnd FileStage::get(const FileOrder& order, kj::StringPtr to) {
  auto channel = begin(order);
  auto sockets = socketPair(SOCK_SEQPACKET);
  transfer::MoverGuard guard;
  transfer::MoverOptions options{false, order.verify, order.sparse};
  auto mover = transfer::newDestinationMover(port, kj::mv(sockets.one), kj::mv(channel), options, guard);
  return run(kj::mv(mover), [&]() {
    kj::AutoCloseFd at(open(to.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    transfer::DestinationOptions how;
    how.archive = order.archive;
    how.verify = order.verify;
    how.into = true;
    return transfer::runDestinationOpener(kj::mv(sockets.other), kj::mv(at), how, heard);
  });
}

OpenerEnd FileStage::list(const FileOrder& order) {
  auto channel = begin(order);
  auto sockets = socketPair(SOCK_SEQPACKET);
  transfer::MoverGuard guard;
  transfer::MoverOptions options{true};
  auto mover = transfer::newDestinationMover(port, kj::mv(sockets.one), kj::mv(channel), options, guard);
  return run(kj::mv(mover), [&]() { return transfer::runListing(kj::mv(sockets.other), heard); });
}

void FileStage::waitUntilIdle() {
  for (int i = 0; i < 500 && files.running() > 0; ++i) turn(10 * kj::MILLISECONDS);
  KJ_REQUIRE(files.running() == 0, "a transfer still runs");
}

kj::String readFile(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return kj::str("cannot be opened: ", errno);
  return kj::FdInputStream(fd.get()).readAllText();
}

size_t openersAlive() {
  size_t count = 0;
  auto* proc = opendir("/proc");
  KJ_REQUIRE(proc != nullptr);
  while (auto* entry = readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    // Empty of one that has ended, or is gone by now.
    auto command = readFile(kj::str("/proc/", entry->d_name, "/cmdline"));
    auto status = readFile(kj::str("/proc/", entry->d_name, "/status"));
    bool own = strstr(status.cStr(), kj::str("PPid:\t", getpid(), "\n").cStr()) != nullptr;
    kj::StringPtr last = "--opener";
    if (own && command.size() > last.size() &&
        memcmp(command.end() - last.size() - 1, last.begin(), last.size()) == 0) {
      ++count;
    }
  }
  closedir(proc);
  return count;
}

}  // namespace postern::guest::test
