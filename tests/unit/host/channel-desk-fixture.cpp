#include "tests/unit/host/channel-desk-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "transport/unix-socket.h"

namespace postern::host::test {

kj::Promise<Outcome> LabVm::serve(Serving serving) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  serving.fill(message->initRoot<schema::Flow>());
  served = kj::mv(message);
  servedCaller = kj::mv(serving.caller);
  servedService = kj::mv(serving.service);
  hop = kj::mv(serving.socket);
  auto ready = kj::mv(before).orDefault(kj::READY_NOW);
  before = nullptr;
  return ready.then([this]() {
    if (outcome != Outcome::REACHED) hop = nullptr;
    return outcome;
  });
}

namespace {

struct LabEntered final : public kj::Refcounted {
  kj::Own<capnp::MallocMessageBuilder> flow = kj::heap<capnp::MallocMessageBuilder>();
  kj::AutoCloseFd mirror;
};

class LabEntrance final : public schema::SessionObserver::Entrance::Server {
 public:
  LabEntrance(LabVm& vm, kj::Own<LabEntered> entered) : vm(vm), entered(kj::mv(entered)) {}

  kj::Promise<void> enter(EnterContext context) override {
    ++vm.entrances;
    auto ready = kj::mv(vm.beforeEntering).orDefault(kj::READY_NOW);
    vm.beforeEntering = nullptr;
    return ready.then([this, context]() mutable { return answer(context); });
  }

 private:
  LabVm& vm;
  kj::Own<LabEntered> entered;

  kj::Promise<void> answer(EnterContext context) {
    auto flow = context.getParams().getFlow();
    entered->flow->setRoot(flow);
    context.getResults().setEntered(vm.letsIn);
    if (!flow.getMirror().hasSocket()) return kj::READY_NOW;
    return takeDescriptor(flow.getMirror().getSocket()).then([this](auto fd) {
      KJ_IF_MAYBE (f, fd) entered->mirror = kj::mv(*f);
      auto copied = entered->flow->getRoot<schema::Flow>();
      copied.getMirror().disownSocket();
    });
  }
};

}  // namespace

ChannelDeskLab::ChannelDeskLab()
    : store((mkdir(folder.path("policy.d").cStr(), 0755), folder.path("policy.d")), folder.path("grants.d")),
      decisions(store),
      records(port.getTimer(), openAudit()),
      grants(port),
      channels(makeChannels()) {}

kj::Own<Channels> ChannelDeskLab::makeChannels() {
  return kj::heap<Channels>(Channels::Environment{port, decisions, records, grants},
                            [this](kj::StringPtr name) -> kj::Maybe<ChannelVm&> {
                              KJ_IF_MAYBE (vm, vms.find(name)) return **vm;
                              return nullptr;
                            });
}

kj::Own<AuditLog> ChannelDeskLab::openAudit() {
  auto opened = AuditLog::open(folder.path("audit.log"), port.getTimer(), port);
  KJ_REQUIRE(opened.is<kj::Own<AuditLog>>());
  return kj::mv(opened.get<kj::Own<AuditLog>>());
}

LabVm& ChannelDeskLab::add(kj::StringPtr name) {
  auto vm = kj::heap<LabVm>(name);
  auto& reference = *vm;
  vms.insert(kj::str(name), kj::mv(vm));
  return reference;
}

void ChannelDeskLab::policy(const std::string& rules) {
  auto text = "policy = 1\n" + rules;
  REQUIRE((replaceFile(folder.path("policy.d/p.toml"), text.c_str(), 0644) == nullptr));
  KJ_IF_MAYBE (lines, store.reload()) FAIL(std::string((*lines)[0].cStr()));
}

kj::Promise<LabAnswer> ChannelDeskLab::asking(LabVm& vm, uint64_t id, kj::StringPtr to, kj::StringPtr service) {
  LabAnswer answer{kj::heap<capnp::MallocMessageBuilder>(), kj::Own<capnp::MallocMessageBuilder>(), nullptr, nullptr};
  auto entered = kj::refcounted<LabEntered>();
  ChannelQuestion question{id, to == "host" ? kj::String() : kj::str(to), kj::str(service),
                           kj::heap<LabEntrance>(vm, kj::addRef(*entered))};
  return channels->ask(vm, kj::mv(question))
      .then([this, &vm, answer = kj::mv(answer), entered = kj::mv(entered)](
                kj::Maybe<kj::Own<GuestQuestions::Prospect>> prospect) mutable -> kj::Promise<LabAnswer> {
        answer.passed = kj::mv(entered->flow);
        answer.mirror = kj::mv(entered->mirror);
        auto results = answer.message->initRoot<schema::SessionObserver::ConnectResults>();
        KJ_IF_MAYBE (p, prospect) {
          channels->begin(vm, kj::mv(*p), results);
          if (results.getAllowed()) {
            return takeDescriptor(results.getSocket()).then([answer = kj::mv(answer)](auto fd) mutable {
              answer.socket = kj::mv(KJ_REQUIRE_NONNULL(fd));
              // As a message that has gone: what it carried is the receiver's.
              answer.message->template getRoot<schema::SessionObserver::ConnectResults>().disownSocket();
              return kj::mv(answer);
            });
          }
        }
        return kj::mv(answer);
      });
}

void ChannelDeskLab::close(LabVm& vm, uint64_t id, kj::StringPtr why, uint64_t there, uint64_t back) {
  capnp::MallocMessageBuilder message;
  auto params = message.initRoot<schema::SessionObserver::ChannelClosedParams>();
  params.setId(id);
  params.setWhy(why);
  params.setMicroseconds(1234);
  params.initTraffic().setBytesThere(there);
  params.getTraffic().setBytesBack(back);
  channels->closed(vm, parseClosing(params.asReader()));
}

kj::AutoCloseFd ChannelDeskLab::listen(kj::StringPtr name) {
  auto socket = newUnixSocket();
  auto address = unixAddress(folder.path(name));
  KJ_SYSCALL(bind(socket, reinterpret_cast<struct sockaddr*>(&address), sizeof(address)));
  KJ_SYSCALL(::listen(socket, 16));
  return socket;
}

void ChannelDeskLab::serveUnix(kj::StringPtr service, kj::StringPtr socket, bool proxy) {
  ServiceTarget target;
  target.name = kj::str(service);
  target.leadsTo = LocalAddress(UnixAddress{folder.path(socket)});
  target.proxy = proxy;
  kj::Vector<HostService> all;
  all.add(HostService{kj::mv(target), nullptr});
  channels->hostServices().set(kj::mv(all));
}

kj::String ChannelDeskLab::auditText() {
  auto read = readFile(folder.path("audit.log"), 64 << 20);
  KJ_REQUIRE(read.is<kj::String>());
  return kj::mv(read.get<kj::String>());
}

unsigned ChannelDeskLab::linesWith(kj::StringPtr part) {
  unsigned count = 0;
  std::string text = auditText().cStr();
  for (size_t at = 0; (at = text.find(part.cStr(), at)) != std::string::npos; at = text.find('\n', at)) ++count;
  return count;
}

unsigned ChannelDeskLab::eventsOf(kj::StringPtr kind) {
  unsigned count = 0;
  records.eventLog().forEachAfter(0, [&](const Event& event) { count += event.kind == kind; });
  return count;
}

ChannelClaim claimed(uint64_t id, kj::StringPtr to, kj::StringPtr service) {
  ChannelClaim claim;
  claim.id = id;
  claim.way = ChannelClaim::Way::ASKED;
  claim.to = kj::str(to);
  claim.service = kj::str(service);
  claim.rule = kj::str("pg");
  claim.openFor = 10 * kj::SECONDS;
  return claim;
}
ChannelClaim claimedFrom(uint64_t id, kj::StringPtr from, kj::StringPtr service) {
  auto claim = claimed(id, "", service);
  claim.way = ChannelClaim::Way::FROM_VM;
  claim.from = kj::str(from);
  return claim;
}
void adopt(ChannelDeskLab& lab, LabVm& vm, ChannelClaim claim) {
  ChannelClaims claims;
  claims.good.add(kj::mv(claim));
  lab.channels->adopt(vm, kj::mv(claims));
}

bool says(kj::StringPtr text, kj::StringPtr part) {
  bool found = strstr(text.cStr(), part.cStr()) != nullptr;
  if (!found) MESSAGE(std::string(text.cStr()));
  return found;
}

bool isConnected(int from, int to) {
  char byte = 'x', got = 0;
  return send(from, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 && recv(to, &got, 1, MSG_DONTWAIT) == 1 && got == 'x';
}

bool isOver(int socket) {
  char byte;
  auto got = recv(socket, &byte, 1, MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN);
}

}  // namespace postern::host::test
