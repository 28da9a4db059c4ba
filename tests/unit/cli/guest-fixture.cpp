#include "tests/unit/cli/guest-fixture.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/thread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "host/local-rpc/local-rpc.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/guest-paths.h"

namespace postern::test {

namespace {

using namespace transfer;
using Call = schema::FileOrder::Call;

FakeGuest::Order orderOf(schema::FileOrder::Reader from) {
  return {from.getCall(),          kj::str(from.getPath().asChars()),
          from.getRecursive(),     from.getArchive(),
          from.getIntoDirectory(), from.getNoClobber(),
          from.getResume(),        from.getVerify(),
          from.getMakeParents(),   from.getSparse(),
          from.getRate()};
}

kj::AutoCloseFd openRoot(kj::StringPtr root) {
  int fd;
  KJ_SYSCALL(fd = open(root.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

struct Silent final : public SourceListener, public DestinationListener {
  void progress(const Progress&) override {}
  void failed(kj::StringPtr, const Problem&) override {}
};

// The guest's opener: what it would be told of an order by the broker.
OpenerEnd runGuest(const FakeGuest::Order& order, kj::StringPtr root, kj::AutoCloseFd mover) {
  auto rootFolder = openRoot(root);
  auto opened = openPath(rootFolder, "/", order.path);
  if (opened.is<Problem>()) return kj::mv(opened.get<Problem>());
  auto& place = opened.get<OpenedPath>();
  Silent listener;
  struct stat status {};
  bool isFolder =
      place.name.size() == 0 ||
      (fstatat(place.folder, place.name.cStr(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode));
  if (order.call == Call::PUT) {
    DestinationOptions options;
    options.archive = order.archive;
    options.noClobber = order.noClobber;
    options.resume = order.resume;
    options.verify = order.verify;
    options.into = order.intoDirectory || isFolder;
    options.name = kj::str(place.name);
    auto folder = kj::mv(place.folder);
    if (options.into) {
      auto inner = openFolder(folder, place.name);
      if (inner.is<Problem>()) return kj::mv(inner.get<Problem>());
      folder = kj::mv(inner.get<kj::AutoCloseFd>());
    }
    return runDestinationOpener(kj::mv(mover), kj::mv(folder), options, listener);
  }
  SourceOptions options;
  options.recursive = order.recursive;
  options.archive = order.archive;
  options.verify = order.verify;
  options.listing = order.call == Call::LIST || order.call == Call::STAT;
  options.listDepth = order.call == Call::STAT ? 0 : order.recursive ? 256 : 1;
  kj::Vector<SourceTop> tops;
  auto as = place.name.size() == 0 ? kj::str("root") : kj::str(place.name);
  tops.add(SourceTop{kj::mv(place.folder), kj::mv(place.name), kj::mv(as), kj::str(order.path), kj::String()});
  return runSourceOpener(kj::mv(mover), kj::mv(tops), options, listener);
}

PathScope everything() {
  capnp::MallocMessageBuilder message;
  auto scope = message.initRoot<schema::PathScope>();
  scope.initRules(1)[0].setId("all");
  auto parsed = PathScope::parse(scope.asReader());
  return kj::mv(parsed.get<PathScope>());
}

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

// One transfer: the guest's opener and the relay, a thread each. Dropping it cuts both off.
class Running {
 public:
  Running(FakeGuest::Order order, kj::StringPtr root, kj::AutoCloseFd caller, RelayOptions options) {
    auto pair = host::newSocketPair(SOCK_SEQPACKET);
    handles.add(copyOf(caller));
    handles.add(copyOf(pair.first));
    auto ended = kj::newPromiseAndCrossThreadFulfiller<OpenerEnd>();
    over = kj::mv(ended.promise);
    bool put = order.call == Call::PUT;
    auto relayed = kj::newPromiseAndCrossThreadFulfiller<void>();
    over = relayed.promise.then([over = kj::mv(over)]() mutable { return kj::mv(over); });
    relay = kj::heap<kj::Thread>([this, put, options, caller = kj::mv(caller), ours = kj::mv(pair.first),
                                  relayed = kj::mv(relayed.fulfiller)]() mutable {
      TransferRelay relay(kj::mv(put ? caller : ours), kj::mv(put ? ours : caller), options);
      relay.run();
      cut();
      relayed->fulfill();
    });
    opener = kj::heap<kj::Thread>(
        [order = kj::mv(order), root = kj::str(root), mover = kj::mv(pair.second),
         ended = kj::mv(ended.fulfiller)]() mutable { ended->fulfill(runGuest(order, root, kj::mv(mover))); });
  }
  ~Running() noexcept(false) { cut(); }
  kj::Promise<OpenerEnd> whenOver() { return kj::mv(over); }

 private:
  kj::Vector<kj::AutoCloseFd> handles;
  kj::Promise<OpenerEnd> over = nullptr;
  kj::Own<kj::Thread> opener, relay;

  void cut() {
    for (auto& handle : handles) shutdown(handle, SHUT_RDWR);
  }
};

}  // namespace

void answer(FakeGuest::Context& context, ProblemKind kind, kj::StringPtr detail) {
  write(problem(kind, kj::str(detail)), context.getResults().initProblem());
}

kj::Promise<void> FakeGuest::serve(Context context) {
  auto order = orderOf(context.getParams().getOrder());
  auto call = order.call;
  auto path = kj::str(order.path);
  bool recursive = order.recursive, parents = order.makeParents;
  orders.add(orderOf(context.getParams().getOrder()));
  KJ_IF_MAYBE (other, instead(context)) return kj::mv(*other);
  if (call == Call::MKDIR || call == Call::REMOVE) {
    auto rootFolder = openRoot(root);
    auto scope = everything();
    auto why = call == Call::MKDIR ? makeDirectory(rootFolder, "/", path, parents, 0755, scope)
                                   : removePath(rootFolder, "/", path, recursive, scope);
    KJ_IF_MAYBE (problem, why) write(*problem, context.getResults().initProblem());
    return kj::READY_NOW;
  }
  return host::takeDescriptor(context.getParams().getOpener())
      .then([this, order = kj::mv(order), context](kj::Maybe<kj::AutoCloseFd> caller) mutable {
        auto running = kj::heap<Running>(kj::mv(order), root, kj::mv(KJ_REQUIRE_NONNULL(caller)), relay);
        auto over = running->whenOver().then([this, context](OpenerEnd end) mutable -> kj::Promise<void> {
          if (relay.vanishInFile) return whenVanished();
          KJ_IF_MAYBE (problem, end.tryGet<Problem>()) {
            write(*problem, context.getResults().initProblem());
          } else {
            write(end.get<Summary>(), context.getResults().initSummary());
          }
          return kj::READY_NOW;
        });
        return over.attach(kj::mv(running));
      });
}

}  // namespace postern::test
