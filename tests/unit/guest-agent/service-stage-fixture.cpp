#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <map>
#include <vector>

#include "tests/unit/guest-agent/service-stage.h"

namespace postern::guest::test {

namespace {

ServicesSettings servicesOf(kj::StringPtr text, kj::StringPtr folder) {
  kj::Vector<char> whole;
  for (char c : text) {
    if (c == '%') {
      whole.addAll(folder);
    } else {
      whole.add(c);
    }
  }
  auto parsed = parseServicesSettings("agent.toml", whole.asPtr());
  KJ_IF_MAYBE (errors, parsed.tryGet<ServicesErrors>()) KJ_FAIL_REQUIRE("the test's services", errors->lines);
  return kj::mv(parsed.get<ServicesSettings>());
}

}  // namespace

ServiceStage::ServiceStage(kj::StringPtr rules, kj::StringPtr services, kj::Maybe<schema::Host::Client> theHost)
    : FileStage(rules, nullptr, kj::mv(theHost)) {
  planService = [this](kj::StringPtr service, kj::StringPtr caller) { return plan(service, caller); };
  reload(rules, services);
}
ServiceStage::~ServiceStage() noexcept(false) {}

kj::OneOf<ServicePlan, ServiceRefusal> ServiceStage::plan(kj::StringPtr service, kj::StringPtr caller) {
  return guest::planService(*policy, exported, agentRunsAs, service, caller);
}

void ServiceStage::reload(kj::StringPtr rules, kj::StringPtr text) {
  policy = policyOf(rules, root);
  exported = servicesOf(text, root);
  broker->configurationChanged();
  kj::Vector<ExportedService> told;
  for (auto& target : exported.services) told.add(exportOf(target));
  channels.reconsider(kj::mv(told));
}

schema::GuestCalls::Client ServiceStage::callsForVm(kj::StringPtr name) {
  auto request = hostRpc->peer().castAs<schema::Guest>().callsForRequest();
  request.initCaller().setVm(name);
  return request.send().getCalls();
}

ServiceStage::Called ServiceStage::connect(schema::GuestCalls::Client calls, kj::StringPtr service) {
  auto request = calls.connectRequest();
  auto opened = KJ_ASSERT_NONNULL(host->bulk().open());
  request.setService(service);
  request.setChannel(opened.offer.channel);
  request.setCredit(opened.offer.credit);
  return {request.send(), kj::mv(opened.channel)};
}

kj::Own<BulkChannel> ServiceStage::reach(schema::GuestCalls::Client calls, kj::StringPtr service) {
  auto called = connect(kj::mv(calls), service);
  auto response = wait(kj::mv(called.response));
  KJ_REQUIRE(!response.hasRefusal(), response.getRefusal());
  return kj::mv(called.channel);
}

kj::String ServiceStage::refusalOf(schema::GuestCalls::Client calls, kj::StringPtr service) {
  auto called = connect(kj::mv(calls), service);
  auto response = wait(kj::mv(called.response));
  if (!response.hasRefusal()) return kj::String();
  return kj::str(response.getRefusal().getReason(), ": ", response.getRefusal().getDetail());
}

void ServiceStage::send(BulkChannel& channel, kj::StringPtr text) {
  KJ_REQUIRE(wait(channel.write(text.asBytes())), "the channel ended");
}

// Null: there are so many bytes.
kj::Promise<kj::Maybe<BulkEnd>> ServiceStage::receiveInto(BulkChannel& channel, kj::Vector<char>& text, size_t bytes) {
  if (text.size() >= bytes) return kj::Maybe<BulkEnd>(nullptr);
  return channel.read().then(
      [this, &channel, &text, bytes](kj::OneOf<BulkChunk, BulkEnd> got) -> kj::Promise<kj::Maybe<BulkEnd>> {
        KJ_IF_MAYBE (chunk, got.tryGet<BulkChunk>()) {
          text.addAll(chunk->bytes().asChars());
          return receiveInto(channel, text, bytes);
        }
        return kj::Maybe<BulkEnd>(got.get<BulkEnd>());
      });
}

kj::String ServiceStage::receive(BulkChannel& channel, size_t bytes) {
  kj::Vector<char> text;
  wait(receiveInto(channel, text, bytes));
  return kj::heapString(text.asPtr());
}

kj::String ServiceStage::readFrom(int socket, size_t bytes) {
  kj::Vector<char> text;
  for (int i = 0; i < 2000 && text.size() < bytes; ++i) {
    char part[4096];
    ssize_t got = recv(socket, part, kj::min(sizeof(part), bytes - text.size()), MSG_DONTWAIT);
    if (got == 0) break;
    if (got > 0) {
      text.addAll(part, part + got);
    } else {
      turn(10 * kj::MILLISECONDS);
    }
  }
  return kj::heapString(text.asPtr());
}

BulkEnd ServiceStage::endOf(BulkChannel& channel) {
  kj::Vector<char> text;
  return KJ_REQUIRE_NONNULL(wait(receiveInto(channel, text, size_t(1) << 30)));
}

bool ServiceStage::isOpen(BulkChannel& channel) {
  if (!wait(channel.write(kj::StringPtr("?").asBytes()))) return false;
  return receive(channel, 1) == "?";
}

bool ServiceStage::settlesAt(size_t count) {
  for (int i = 0; i < 1000 && channels.channels() != count; ++i) turn(10 * kj::MILLISECONDS);
  return channels.channels() == count;
}

// Targets --------------------------------------------------------------------------------------------------------

namespace {

kj::AutoCloseFd listening(kj::StringPtr path) {
  int fd;
  KJ_SYSCALL(fd = ::socket(path.size() == 0 ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd own(fd);
  if (path.size() > 0) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.begin(), path.size());
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  } else {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  }
  KJ_SYSCALL(listen(fd, 4096));
  return own;
}

kj::String addressOf(int socket, kj::StringPtr path) {
  if (path.size() > 0) return kj::str("unix:", path);
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  KJ_SYSCALL(getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size));
  return kj::str("tcp:127.0.0.1:", ntohs(address.sin_port));
}

}  // namespace

PlainTarget::PlainTarget(kj::StringPtr path) : socket(listening(path)), address(addressOf(socket, path)) {}

bool PlainTarget::hasConnection() {
  pollfd ready{socket, POLLIN, 0};
  return poll(&ready, 1, 0) == 1;
}

kj::AutoCloseFd PlainTarget::accept() {
  pollfd ready{socket, POLLIN, 0};
  KJ_REQUIRE(poll(&ready, 1, 20000) == 1, "nobody connects");
  int fd;
  KJ_SYSCALL(fd = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

EchoTarget::EchoTarget(kj::StringPtr path) : EchoTarget(listening(path), path) {}

EchoTarget::EchoTarget(kj::AutoCloseFd socketParam, kj::StringPtr path)
    : address(addressOf(socketParam, path)), socket(kj::mv(socketParam)) {
  auto ends = socketPair(SOCK_STREAM);
  stop = kj::mv(ends.one);
  stopped = kj::mv(ends.other);
  thread = kj::heap<kj::Thread>([this]() { serve(); });
}
EchoTarget::~EchoTarget() noexcept(false) {
  stop = nullptr;
  thread = nullptr;
}

void EchoTarget::serve() {
  std::map<int, kj::AutoCloseFd> connections;
  for (;;) {
    std::vector<pollfd> ready = {{stopped, POLLIN, 0}, {socket, POLLIN, 0}};
    for (auto& one : connections) ready.push_back({one.first, POLLIN, 0});
    poll(ready.data(), ready.size(), -1);
    if (ready[0].revents != 0) return;
    for (size_t i = 2; i < ready.size(); ++i) {
      if (ready[i].revents == 0) continue;
      char bytes[4096];
      ssize_t got = recv(ready[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got <= 0 || ::send(ready[i].fd, bytes, size_t(got), MSG_NOSIGNAL) != got) connections.erase(ready[i].fd);
    }
    if (ready[1].revents == 0) continue;
    int fd = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) connections.emplace(fd, kj::AutoCloseFd(fd));
  }
}

}  // namespace postern::guest::test
