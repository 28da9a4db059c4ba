#include "tests/unit/cli/relay-fixture.h"

#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

namespace postern::test {

namespace {

using namespace transfer;

Problem gone() {
  return problem(ProblemKind::FAILED, kj::str("an opener has gone"));
}

template <typename Message>
kj::Array<kj::byte> toOpener(const Message& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
  FrameBuilder frame;
  auto to = frame.init<schema::ToOpener>();
  if constexpr (std::is_same_v<Message, Forward>) {
    write(message, to.initForward());
  } else if constexpr (std::is_same_v<Message, Backward>) {
    write(message, to.initBackward());
  } else if constexpr (std::is_same_v<Message, Commit>) {
    write(message, to.initCommit());
  } else {
    to.setSent(message);
  }
  return frame.toArray(content);
}

}  // namespace

Relay::Relay(int source, int destination) : source(source), destination(destination) {}

kj::Maybe<Relay::Packet> Relay::receive(int socket) {
  Packet packet;
  packet.words = kj::heapArray<capnp::word>(MAX_PACKET_BYTES / sizeof(capnp::word) + 1);
  iovec bytes = {packet.words.begin(), packet.words.size() * sizeof(capnp::word)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 2)] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  auto n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (n <= 0) return nullptr;
  packet.bytes = static_cast<size_t>(n);
  for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    int fds[2];
    size_t size = header->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(header), size);
    for (size_t i = 0; i < size / sizeof(int); ++i) packet.descriptors.add(kj::AutoCloseFd(fds[i]));
  }
  return packet;
}

void Relay::send(int socket, kj::ArrayPtr<const kj::byte> frame) {
  if (::send(socket, frame.begin(), frame.size(), MSG_NOSIGNAL) < 0 && end == nullptr) end = gone();
}

kj::OneOf<Summary, Problem> Relay::run() {
  while (end == nullptr) {
    // What the source says next waits for the file that is on its way.
    bool waits = file != nullptr && (KJ_ASSERT_NONNULL(file).from.get() >= 0 || KJ_ASSERT_NONNULL(file).to == nullptr);
    pollfd both[] = {{destination, POLLIN, 0}, {source, static_cast<short>(waits ? 0 : POLLIN), 0}};
    if (poll(both, 2, -1) < 0) continue;
    if (both[0].revents != 0) {
      KJ_IF_MAYBE (packet, receive(destination)) {
        fromDestination(kj::mv(*packet));
      } else {
        return gone();
      }
    } else if ((both[1].revents & POLLIN) != 0) {
      KJ_IF_MAYBE (packet, receive(source)) {
        fromSource(kj::mv(*packet));
      } else {
        return gone();
      }
    } else if (both[1].revents != 0) {
      return gone();
    }
  }
  return kj::mv(KJ_ASSERT_NONNULL(end));
}

void Relay::fromSource(Packet packet) {
  FrameReader reader;
  auto rest = packet.words.asBytes().slice(0, packet.bytes);
  auto left = kj::ArrayPtr<const kj::byte>(rest);
  while (left.size() > 0) {
    auto next = KJ_REQUIRE_NONNULL(reader.next(left));
    auto& view = *next.get<kj::Own<FrameView>>();
    auto parsed = parseToMover(view);
    forward(kj::mv(parsed.get<ToMover>().get<Forward>()), view.content(), packet.descriptors);
  }
}

void Relay::forward(Forward message, kj::ArrayPtr<const kj::byte> bytes, kj::Vector<kj::AutoCloseFd>& fds) {
  KJ_IF_MAYBE (data, message.tryGet<Data>()) {
    auto& present = KJ_REQUIRE_NONNULL(file);
    sentBytes += bytes.size();
    KJ_IF_MAYBE (to, present.to) {
      KJ_REQUIRE(pwrite(*to, bytes.begin(), bytes.size(), static_cast<off_t>(data->offset)) > 0 || bytes.size() == 0);
    }
    return;
  }
  if (message.is<FileEnd>()) return commit(Whole());
  if (message.is<FileFailed>()) return commit(kj::mv(message.get<FileFailed>().problem));
  send(destination, toOpener(message, bytes));
  if (!message.is<Entry>()) return;
  auto& entry = message.get<Entry>();
  if (entry.kind == EntryKind::FILE && !entry.inlined) {
    auto from = fds.empty() ? kj::AutoCloseFd() : kj::mv(fds[0]);
    file = File{entries, kj::mv(from), nullptr};
  }
  ++entries;
}

void Relay::fromDestination(Packet packet) {
  FrameReader reader;
  auto left = kj::ArrayPtr<const kj::byte>(packet.words.asBytes().slice(0, packet.bytes));
  while (left.size() > 0) {
    auto next = KJ_REQUIRE_NONNULL(reader.next(left));
    auto parsed = parseToMover(*next.get<kj::Own<FrameView>>());
    auto& message = parsed.get<ToMover>();
    if (message.is<Opened>()) {
      KJ_REQUIRE_NONNULL(file).to = kj::mv(packet.descriptors[0]);
      if (KJ_REQUIRE_NONNULL(file).from.get() >= 0) content();
    } else {
      backward(kj::mv(message.get<Backward>()));
    }
  }
}

void Relay::backward(Backward message) {
  KJ_IF_MAYBE (failed, message.tryGet<DestinationFailed>()) {
    KJ_IF_MAYBE (present, file) {
      if (present->number == failed->entry && present->to == nullptr) file = nullptr;
    }
  }
  send(source, toOpener(message));
  if (message.is<Summary>()) end = message.get<Summary>();
  if (message.is<Refused>()) end = copy(message.get<Refused>().problem);
}

void Relay::content() {
  beforeContent();
  auto& present = KJ_REQUIRE_NONNULL(file);
  auto& to = KJ_REQUIRE_NONNULL(present.to);
  char block[65536];
  for (off_t at = 0;;) {
    auto n = pread(present.from, block, sizeof(block), at);
    KJ_REQUIRE(n >= 0);
    if (n == 0) break;
    KJ_REQUIRE(pwrite(to, block, static_cast<size_t>(n), at) == n);
    at += n;
    sentBytes += static_cast<uint64_t>(n);
    send(source, toOpener(sentBytes));
  }
  commit(Whole());
}

void Relay::commit(Outcome outcome) {
  KJ_IF_MAYBE (present, file) {
    send(destination, toOpener(Commit{present->number, kj::mv(outcome), false}));
  }
  file = nullptr;
}

}  // namespace postern::test
