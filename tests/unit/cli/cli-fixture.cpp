#include "tests/unit/cli/cli-fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

namespace postern::test {

namespace {

// A handle by which the connection can be cut from anywhere.
kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

std::function<void()> cutting(int fd) {
  return [fd]() { ::shutdown(fd, SHUT_RDWR); };
}

bool isAmong(kj::StringPtr name, const kj::Vector<kj::String>& names) {
  for (auto& one : names) {
    if (one == name) return true;
  }
  return false;
}

}  // namespace

#define ANSWER_UNLESS_SCRIPTED(context)                                                                   \
  KJ_IF_MAYBE (promise, script.behaviour.instead([&]() { return (context).getResults().initFailure(); })) \
  return kj::mv(*promise)

kj::Promise<void> FakeSession::ping(PingContext context) {
  ++script.pings;
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setLinkNanoseconds(script.linkNanoseconds);
  return kj::READY_NOW;
}

kj::Promise<void> FakeSession::info(InfoContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  script.info(context.getResults().initInfo());
  return kj::READY_NOW;
}

kj::Promise<void> FakeSession::power(PowerContext context) {
  auto request = context.getParams().getRequest();
  script.deadlineMilliseconds = request.getDeadlineMilliseconds();
  script.delaySeconds = request.getDelaySeconds();
  script.message = kj::str(request.getMessage());
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setOperation(7);
  if (script.power) tasks.add(script.power(context.getParams().getObserver()));
  return kj::READY_NOW;
}

kj::Promise<void> FakeSession::whenGone(WhenGoneContext context) {
  script.askedReset = context.getParams().getReset();
  KJ_IF_MAYBE (gone, script.gone) {
    auto ending = kj::mv(*gone);
    script.gone = nullptr;
    return ending.then([this, context]() mutable {
      if (script.goneFailure.size() > 0) {
        context.getResults().initFailure().setText(script.goneFailure);
      } else {
        context.getResults().setHow("goodbye");
      }
    });
  }
  return kj::NEVER_DONE;
}

kj::Promise<void> FakeSession::issueBundle(IssueBundleContext context) {
  auto params = context.getParams();
  script.lifetimeSeconds = params.getLifetimeSeconds();
  script.bundleTransport = kj::str(params.getTransport());
  script.bundleGrants = kj::str(params.getGrants());
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setBundle(script.bundle);
  context.getResults().setHostFingerprint("aa:bb:cc");
  return kj::READY_NOW;
}

kj::Promise<void> FakeSession::file(FileContext context) {
  context.allowCancellation();
  ANSWER_UNLESS_SCRIPTED(context);
  return script.guest.serve(context);
}

kj::Promise<void> FakeSession::connect(ConnectContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  if (script.lapses > 0) {
    --script.lapses;
    context.getResults().initFailure().setKind(hs::Failure::Kind::LAPSED);
    context.getResults().getFailure().setText("posternd was started again");
    return kj::READY_NOW;
  }
  script.connected.add(kj::str(context.getParams().getService()));
  return host::takeDescriptor(context.getParams().getStream()).then([this, context](auto socket) mutable {
    auto over = kj::newPromiseAndCrossThreadFulfiller<kj::StringPtr>();
    auto thread = kj::heap<kj::Thread>([service = script.service, socket = kj::mv(KJ_REQUIRE_NONNULL(socket)),
                                        over = kj::mv(over.fulfiller)]() mutable {
      fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
      auto why = service(socket);
      socket = nullptr;
      over->fulfill(kj::mv(why));
    });
    thread->detach();
    auto observer = context.getParams().getObserver();
    tasks.add(over.promise.then([observer](kj::StringPtr why) mutable -> kj::Promise<void> {
      if (why.size() == 0) return kj::READY_NOW;
      auto request = observer.closedRequest();
      request.setWhy(why);
      return request.send().ignoreResult();
    }));
    context.getResults().setChannel(7);
  });
}

kj::Promise<void> FakeSession::services(ServicesContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  auto list = context.getResults().initServices(static_cast<unsigned>(script.exported.size()));
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, script.exported[i]);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::open(OpenContext context) {
  ++script.calls;
  auto vm = context.getParams().getVm();
  auto path = kj::str(context.getParams().getPath().asChars());
  script.opened.add(kj::str(vm, ' ', context.getParams().getCalls()[0], ' ', path));
  ANSWER_UNLESS_SCRIPTED(context);
  kj::Vector<kj::StringPtr> granted;
  for (auto call : context.getParams().getCalls()) {
    if (!isAmong(call, script.denied)) granted.add(call);
  }
  if (isAmong(path, script.denied) || granted.empty()) {
    auto failure = context.getResults().initFailure();
    failure.setKind(hs::Failure::Kind::DENIED);
    failure.setText(kj::str(context.getParams().getCalls()[0], ": denied: no rule allows it"));
    failure.setSuggestion("[[allow]]\nid = \"x\"\n");
    return kj::READY_NOW;
  }
  if (isAmong(vm, script.unknown) || isAmong(vm, script.offline)) {
    auto failure = context.getResults().initFailure();
    bool unknown = isAmong(vm, script.unknown);
    failure.setKind(unknown ? hs::Failure::Kind::INVALID : hs::Failure::Kind::NOT_CONNECTED);
    failure.setText(unknown ? "unknown VM"
                            : "not connected (last heartbeat 42 s ago); is postern-agent running in it?");
    return kj::READY_NOW;
  }
  if (script.giveNoSocket) return kj::READY_NOW;
  auto pair = host::newSocketPair(SOCK_STREAM);
  auto handle = copyOf(pair.first);
  session.behaviour.vanish = cutting(handle);
  auto rpc = kj::heap<host::LocalRpc>(io, kj::mv(pair.first), kj::heap<FakeSession>(session), host::LOCAL_MESSAGE_WORDS,
                                      host::LOCAL_FLOW_WORDS, host::Descriptors::ANY);
  script.sessions.add(Served{kj::mv(handle), kj::mv(rpc)});
  context.getResults().setSocket(host::newDescriptor(kj::mv(pair.second)));
  auto list = context.getResults().initGranted(static_cast<unsigned>(granted.size()));
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, granted[i]);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::listVms(ListVmsContext context) {
  script.list(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::showVm(ShowVmContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  script.vm(context.getResults().initVm());
  context.getResults().setGuestPolicy(script.guestPolicy);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::addVm(AddVmContext context) {
  ++script.calls;
  for (auto grant : context.getParams().getGrants()) script.addedGrants.add(kj::str(grant));
  ANSWER_UNLESS_SCRIPTED(context);
  script.added(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::setVm(SetVmContext context) {
  for (auto tag : context.getParams().getVm().getTags()) script.tags.add(kj::str(tag));
  ANSWER_UNLESS_SCRIPTED(context);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::removeVm(RemoveVmContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setRemovedGrants(script.removedGrants);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::status(StatusContext context) {
  ++script.calls;
  if (script.behaviour.mode == Behaviour::Mode::VANISH) script.behaviour.vanish();
  if (script.behaviour.mode != Behaviour::Mode::ANSWER) return kj::NEVER_DONE;
  script.status(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::events(EventsContext context) {
  return script.events(context.getParams().getSink());
}

kj::Promise<void> FakeControl::forcePower(ForcePowerContext context) {
  script.forcedReset = context.getParams().getReset();
  ANSWER_UNLESS_SCRIPTED(context);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::whenOff(WhenOffContext context) {
  KJ_IF_MAYBE (off, script.qemuOff) {
    auto ending = kj::mv(*off);
    script.qemuOff = nullptr;
    return ending.then([context]() mutable { context.getResults().setHow("SHUTDOWN"); });
  }
  context.getResults().initFailure().setKind(hs::Failure::Kind::INVALID);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::explainPolicy(ExplainPolicyContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setText(script.explanation);
  context.getResults().setAllowed(script.allowed);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::reloadPolicy(ReloadPolicyContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setHash("cafe");
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::audit(AuditContext context) {
  ANSWER_UNLESS_SCRIPTED(context);
  script.audit(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::channels(ChannelsContext context) {
  script.askedVm = kj::str(context.getParams().getVm());
  ANSWER_UNLESS_SCRIPTED(context);
  script.channels(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::ports(PortsContext context) {
  script.askedVm = kj::str(context.getParams().getVm());
  ANSWER_UNLESS_SCRIPTED(context);
  script.ports(context.getResults());
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::blockPort(BlockPortContext context) {
  script.askedVm = kj::str(context.getParams().getVm());
  script.blocked = context.getParams().getBlocked();
  ANSWER_UNLESS_SCRIPTED(context);
  context.getResults().setCut(script.cut);
  return kj::READY_NOW;
}

kj::Promise<void> FakeControl::closeChannel(CloseChannelContext context) {
  script.closed = context.getParams().getId();
  ANSWER_UNLESS_SCRIPTED(context);
  return kj::READY_NOW;
}

CliWorld::CliWorld()
    : asyncIo(kj::setupAsyncIo()),
      interrupt(kj::newPromiseAndFulfiller<void>()),
      interrupted(interrupt.promise.fork()) {
  for (auto name : {"here", "guest", "tmp"}) KJ_SYSCALL(mkdir(folder.path(name).cStr(), 0755));
  int handle;
  KJ_SYSCALL(handle = ::open(folder.path("here").cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  hereHandle = kj::AutoCloseFd(handle);
  session.guest.root = folder.path("guest");
}

CliWorld::~CliWorld() noexcept(false) {
  served.clear();
  control.sessions.clear();
}

ExitStatus CliWorld::run(std::initializer_list<kj::StringPtr> words) {
  printed.clear();
  said.clear();
  auto root = folder.path("root");
  kj::Vector<kj::StringPtr> all;
  all.add("--root"_kj);
  all.add(root);
  for (auto word : words) all.add(word);
  return cli::runPostern(*this, all);
}

kj::String CliWorld::output() {
  return kj::heapString(printed);
}
kj::String CliWorld::errors() {
  return kj::heapString(said);
}

void CliWorld::interruptAfter(kj::Duration time) {
  interruptTimer = timer().afterDelay(time).then([this]() { interrupt.fulfiller->fulfill(); }).eagerlyEvaluate(nullptr);
}
void CliWorld::interruptWhen(kj::Promise<void> promise) {
  interruptTimer = promise.then([this]() { interrupt.fulfiller->fulfill(); }).eagerlyEvaluate(nullptr);
}
void CliWorld::interruptAtOutput(kj::StringPtr text) {
  interruptText = kj::str(text);
}

void CliWorld::out(kj::StringPtr text) {
  printed.addAll(text);
  if (interruptText.size() > 0 && contains(output(), interruptText)) interrupt.fulfiller->fulfill();
}

kj::Promise<client::Outcome<kj::Own<client::ControlClient>>> CliWorld::connectControl(kj::StringPtr path) {
  if (notRunning) return client::ControlClient::connect(io(), timer(), path);
  auto pair = host::newSocketPair(SOCK_STREAM);
  controlHandle = copyOf(pair.first);
  control.behaviour.vanish = cutting(controlHandle);
  served.add(kj::heap<host::LocalRpc>(io(), kj::mv(pair.first), kj::heap<FakeControl>(control, session, io()),
                                      host::CONTROL_MESSAGE_WORDS));
  return client::Outcome<kj::Own<client::ControlClient>>(kj::heap<client::ControlClient>(io(), kj::mv(pair.second)));
}

}  // namespace postern::test
