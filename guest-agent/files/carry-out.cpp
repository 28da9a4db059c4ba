#include "guest-agent/files/carry-out.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/stat.h>

#include "guest-agent/files/opener-answer.h"
#include "protocol/transfer/limits.h"
#include "transport/printable.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/guest-paths.h"
#include "transport/transfer/opener-socket.h"
#include "transport/transfer/source-conversation.h"
#include "transport/transfer/source-opener.h"

namespace postern::guest {

namespace {

using transfer::FileCall;
using transfer::FileOrder;
using transfer::Problem;
using transfer::ProblemKind;

// A mover that was refused has so long to take it before the socket closes.
constexpr auto REFUSAL_LINGER = 5 * kj::SECONDS;
constexpr uint16_t NEW_DIRECTORY_MODE = 0755;
// What "/" is called at the other end.
constexpr kj::StringPtr NAME_OF_ROOT = "root"_kj;

kj::StringPtr lastComponent(kj::StringPtr path) {
  if (path.size() == 1) return NAME_OF_ROOT;
  return path.slice(KJ_ASSERT_NONNULL(path.findLast('/')) + 1);
}

kj::String parentOf(kj::StringPtr path) {
  size_t end = KJ_ASSERT_NONNULL(path.findLast('/'));
  return end == 0 ? kj::str("/") : kj::heapString(path.slice(0, end));
}

// Sources -------------------------------------------------------------------------------------------------------

transfer::SourceOptions sourceOptions(const OpenerWork& work) {
  auto& order = work.order.order;
  transfer::SourceOptions options;
  options.recursive = order.recursive;
  options.archive = order.archive;
  options.verify = order.verify;
  options.listing = order.call != FileCall::GET;
  if (order.call == FileCall::LIST) options.listDepth = order.recursive ? transfer::MAX_DEPTH : 1;
  options.scope = work.order.scope;
  options.owners = &work.owners;
  return options;
}

void send(const OpenerWork& work, kj::AutoCloseFd socket) {
  auto& order = work.order.order;
  auto opened = transfer::openPath(work.root, work.order.root, order.path);
  KJ_IF_MAYBE (problem, opened.tryGet<Problem>()) return refuse(order, kj::mv(*problem), kj::mv(socket));
  auto& place = opened.get<transfer::OpenedPath>();
  kj::Vector<transfer::SourceTop> tops;
  tops.add(transfer::SourceTop{kj::mv(place.folder), kj::mv(place.name), kj::str(lastComponent(order.path)),
                               kj::str(order.path), kj::str(order.path), false});
  transfer::SourceListener listener;
  transfer::runSourceOpener(kj::mv(socket), kj::mv(tops), sourceOptions(work), listener);
}

// The other end sees one top, which could not be read.
void refuseAsSource(const FileOrder& order, Problem problem, kj::AutoCloseFd socket) {
  transfer::SourceListener listener;
  transfer::SourceConversation conversation(kj::mv(socket), listener, [](kj::StringPtr path) { return kj::str(path); });
  transfer::Totals totals;
  totals.files = 1;
  totals.tops = 1;
  if (conversation.announce(totals) != nullptr) return;
  transfer::EntryFailed failed{kj::str(lastComponent(order.path)), kj::mv(problem)};
  if (conversation.put(transfer::Forward(kj::mv(failed)))) conversation.finish();
}

// Destinations --------------------------------------------------------------------------------------------------

struct Destination {
  kj::AutoCloseFd folder;
  kj::String name;  // into: empty
  bool into;
};

Problem isALink(const FileOrder& order) {
  return transfer::problem(ProblemKind::SYMBOLIC_LINK,
                           kj::str(printable(order.path, transfer::MAX_PROBLEM_BYTES / 2),
                                   ": is a symbolic link, and none is followed; name the path that it leads to, or "
                                   "remove it first"));
}

// An existing directory is what tops go into; everything else is the name that the one top gets.
kj::OneOf<Destination, Problem> findDestination(const OpenerWork& work) {
  auto& order = work.order.order;
  auto opened = transfer::openPath(work.root, work.order.root, order.path);
  KJ_IF_MAYBE (problem, opened.tryGet<Problem>()) return kj::mv(*problem);
  auto& place = opened.get<transfer::OpenedPath>();
  struct stat status {};
  bool isThere = place.name.size() == 0 || fstatat(place.folder, place.name.cStr(), &status, AT_SYMLINK_NOFOLLOW) == 0;
  if (place.name.size() == 0 || (isThere && S_ISDIR(status.st_mode))) {
    auto folder = transfer::openFolder(place.folder, place.name);
    KJ_IF_MAYBE (problem, folder.tryGet<Problem>()) return kj::mv(*problem);
    return Destination{kj::mv(folder.get<kj::AutoCloseFd>()), kj::String(), true};
  }
  if (isThere && S_ISLNK(status.st_mode)) return isALink(order);
  if (order.intoDirectory) {
    return transfer::problemOf(isThere ? ENOTDIR : ENOENT, "be written into", order.path);
  }
  return Destination{kj::mv(place.folder), kj::mv(place.name), false};
}

void receive(const OpenerWork& work, kj::AutoCloseFd socket) {
  auto& order = work.order.order;
  auto found = findDestination(work);
  KJ_IF_MAYBE (problem, found.tryGet<Problem>()) return refuse(order, kj::mv(*problem), kj::mv(socket));
  auto& destination = found.get<Destination>();
  transfer::DestinationOptions options;
  options.archive = order.archive;
  options.noClobber = order.noClobber;
  options.resume = order.resume;
  options.verify = order.verify;
  options.keepOwner = order.archive && geteuid() == 0;
  options.into = destination.into;
  options.scopePath = destination.into ? kj::str(order.path) : parentOf(order.path);
  options.name = kj::mv(destination.name);
  options.scope = work.order.scope;
  options.owners = &work.owners;
  transfer::DestinationListener listener;
  transfer::runDestinationOpener(kj::mv(socket), kj::mv(destination.folder), options, listener);
}

void refuseAsDestination(Problem problem, kj::AutoCloseFd socketFd) {
  transfer::OpenerSocket socket(kj::mv(socketFd));
  transfer::FrameBuilder frame;
  transfer::write(problem, frame.init<schema::ToMover>().initBackward().initRefused());
  if (!socket.put(frame) || !socket.flush()) return;
  // A socket that closes with something unread takes what was sent along.
  for (;;) {
    auto next = socket.next(REFUSAL_LINGER);
    KJ_IF_MAYBE (message, next) {
      if (message->is<transfer::FrameView*>()) continue;
    }
    return;
  }
}

}  // namespace

void carryOut(const OpenerWork& work, kj::AutoCloseFd socket) {
  auto& order = work.order.order;
  auto& root = work.order.root;
  switch (order.call) {
    case FileCall::GET:
    case FileCall::LIST:
    case FileCall::STAT:
      return send(work, kj::mv(socket));
    case FileCall::PUT:
      return receive(work, kj::mv(socket));
    case FileCall::MKDIR:
      return sendAnswer(kj::mv(socket), transfer::makeDirectory(work.root, root, order.path, order.makeParents,
                                                                NEW_DIRECTORY_MODE, work.order.scope));
    case FileCall::REMOVE:
      return sendAnswer(kj::mv(socket),
                        transfer::removePath(work.root, root, order.path, order.recursive, work.order.scope));
  }
  KJ_UNREACHABLE;
}

void refuse(const FileOrder& order, Problem problem, kj::AutoCloseFd socket) {
  if (!transfer::hasChannel(order.call)) return sendAnswer(kj::mv(socket), kj::Maybe<Problem>(kj::mv(problem)));
  if (order.call == FileCall::PUT) return refuseAsDestination(kj::mv(problem), kj::mv(socket));
  refuseAsSource(order, kj::mv(problem), kj::mv(socket));
}

}  // namespace postern::guest
