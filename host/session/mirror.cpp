#include "host/session/mirror.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "host/audit/audit-line.h"
#include "protocol/wire-int.h"
#include "transport/printable.h"
#include "transport/receive.h"
#include "transport/relay/relay-end.h"

namespace postern::host {

namespace {

constexpr size_t LENGTH_BYTES = 4;
constexpr size_t HEADER_BYTES = LENGTH_BYTES + 1 + 8;
constexpr size_t MAX_TEXT_SHOWN = 200;

// Of names that were checked long ago: nothing is left to be escaped but what ends a text.
kj::String jsonText(kj::StringPtr text) {
  auto safe = printable(text, MAX_TEXT_SHOWN);
  kj::Vector<char> out;
  out.add('"');
  for (char c : safe) {
    if (c == '"' || c == '\\') out.add('\\');
    out.add(c);
  }
  out.add('"');
  out.add('\0');
  return kj::String(out.releaseAsArray());
}

}  // namespace

Mirror::Mirror(kj::UnixEventPort& port, kj::AutoCloseFd fd) {
  if (fd == nullptr || !isStreamSocket(fd)) return;
  refuseDescriptors(fd);
  socket = kj::mv(fd);
  observer.emplace(port, socket, kj::UnixEventPort::FdObserver::OBSERVE_WRITE);
}

Mirror::~Mirror() noexcept(false) {
  flushing = nullptr;  // before what it writes to
}

void Mirror::gone() {
  observer = nullptr;
  socket = {};
  begun = nullptr;
}

// What the socket takes now; -1: nothing.
ssize_t Mirror::write(kj::ArrayPtr<const kj::byte> first, kj::ArrayPtr<const kj::byte> second) {
  // The kernel only reads; iovec has no const form.
  iovec pieces[2] = {{const_cast<kj::byte*>(first.begin()), first.size()},
                     {const_cast<kj::byte*>(second.begin()), second.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) gone();
  return sent;
}

// T108
bool Mirror::send(Frame type, uint64_t channel, kj::ArrayPtr<const kj::byte> payload) {
  if (socket < 0 || (isBusy() && !tryFlush())) return false;
  kj::byte header[HEADER_BYTES];
  putLittleEndian<uint32_t>(static_cast<uint32_t>(HEADER_BYTES - LENGTH_BYTES + payload.size()), header);
  header[LENGTH_BYTES] = static_cast<kj::byte>(type);
  putLittleEndian<uint64_t>(channel, header + LENGTH_BYTES + 1);
  auto sent = write(kj::arrayPtr(header, sizeof(header)), payload);
  if (sent < 0) return false;
  auto whole = sizeof(header) + payload.size();
  if (static_cast<size_t>(sent) == whole) return true;
  begun = kj::heapArray<kj::byte>(whole);
  memcpy(begun.begin(), header, sizeof(header));
  memcpy(begun.begin() + sizeof(header), payload.begin(), payload.size());
  done = static_cast<size_t>(sent);
  if (tryFlush() || socket < 0) return true;
  flushing = nullptr;  // of an earlier one, which is out
  flushing = flush().eagerlyEvaluate([this](kj::Exception&&) { gone(); });
  return true;
}

// As much as the socket takes. Whether nothing is left of what was begun, and there is an appliance.
bool Mirror::tryFlush() {
  while (isBusy()) {
    auto sent = write(begun.slice(done, begun.size()), nullptr);
    if (sent < 0) return false;
    done += static_cast<size_t>(sent);
    if (done == begun.size()) begun = nullptr;
  }
  return true;
}

kj::Promise<void> Mirror::flush() {
  KJ_IF_MAYBE (o, observer) {
    return o->whenBecomesWritable().then([this]() -> kj::Promise<void> {
      return tryFlush() || socket < 0 ? kj::Promise<void>(kj::READY_NOW) : flush();
    });
  }
  return kj::READY_NOW;
}

MirroredChannel::MirroredChannel(Terms terms, uint64_t id, const kj::Clock& clock, uint64_t& dropped)
    : terms(kj::mv(terms)), id(id), clock(clock), dropped(dropped) {}

void MirroredChannel::send(Mirror::Frame type, kj::ArrayPtr<const kj::byte> payload) {
  if (lost > 0) {
    kj::byte number[8];
    putLittleEndian<uint64_t>(lost, number);
    if (terms.mirror->send(Mirror::Frame::LOST, id, kj::arrayPtr(number, sizeof(number)))) lost = 0;
  }
  // What the appliance has not been told is lost stays in front.
  if (lost == 0 && terms.mirror->send(type, id, payload)) return;
  ++lost;
  ++dropped;
}

void MirroredChannel::opened(kj::StringPtr service, kj::StringPtr rule) {
  auto text =
      kj::str("{\"time\":\"", formatTime(clock.now()), "\",\"who\":", jsonText(terms.who),
              ",\"to\":", jsonText(terms.to), ",\"service\":", jsonText(service), ",\"rule\":", jsonText(rule), '}');
  send(Mirror::Frame::OPENED, text.asBytes());
}

void MirroredChannel::passed(TrafficWay way, kj::ArrayPtr<const kj::byte> bytes) {
  if (!terms.full) return;
  send(way == TrafficWay::THERE ? Mirror::Frame::BYTES_THERE : Mirror::Frame::BYTES_BACK, bytes);
}

void MirroredChannel::closed(kj::StringPtr why, const TrafficCounters& traffic, kj::Duration took) {
  auto text = kj::str("{\"time\":\"", formatTime(clock.now()), "\",\"why\":", jsonText(why),
                      ",\"bytes-there\":", traffic.there.bytes, ",\"bytes-back\":", traffic.back.bytes,
                      ",\"messages-there\":", traffic.there.messages, ",\"messages-back\":", traffic.back.messages,
                      ",\"throttled-us\":", traffic.throttled / kj::MICROSECONDS,
                      ",\"duration-us\":", took / kj::MICROSECONDS, '}');
  send(Mirror::Frame::CLOSED, text.asBytes());
}

}  // namespace postern::host
