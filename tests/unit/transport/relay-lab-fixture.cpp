#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/transport/relay-lab.h"

namespace postern::test {

namespace {

SocketPair tcpPair() {
  int fd;
  KJ_SYSCALL(fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd listener(fd);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  KJ_SYSCALL(bind(listener, generic, size));
  KJ_SYSCALL(listen(listener, 1));
  KJ_SYSCALL(getsockname(listener, generic, &size));
  KJ_SYSCALL(fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd one(fd);
  KJ_SYSCALL(::connect(one, generic, size));
  KJ_SYSCALL(fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  return {kj::mv(one), kj::AutoCloseFd(fd)};
}

}  // namespace

SocketPair connectedSockets(SocketKind kind) {
  return kind == SocketKind::TCP ? tcpPair() : socketPair(SOCK_STREAM);
}

// Program ------------------------------------------------------------------------------------------------------------

Program::Program(kj::AsyncIoContext& io, kj::AutoCloseFd socket)
    : fd(socket),
      stream(io.lowLevelProvider->wrapSocketFd(socket.release(), kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP)) {}

kj::Promise<void> Program::write(kj::ArrayPtr<const kj::byte> bytes) {
  return stream->write(bytes.begin(), bytes.size());
}

kj::Promise<size_t> Program::readSome(kj::ArrayPtr<kj::byte> into) {
  return stream->tryRead(into.begin(), 1, into.size());
}

kj::Promise<bool> Program::readInto(kj::Vector<kj::byte>& all, kj::ArrayPtr<kj::byte> buffer) {
  return readSome(buffer).then([this, &all, buffer](size_t got) -> kj::Promise<bool> {
    if (got == 0) return true;
    all.addAll(buffer.slice(0, got));
    return readInto(all, buffer);
  });
}

kj::Promise<kj::Maybe<kj::Array<kj::byte>>> Program::readAll() {
  auto all = kj::heap<kj::Vector<kj::byte>>();
  auto buffer = kj::heapArray<kj::byte>(size_t(1) << 18);
  auto reading = kj::evalNow([&] { return readInto(*all, buffer); });
  return reading
      .then([&all = *all](bool) { return kj::Maybe<kj::Array<kj::byte>>(all.releaseAsArray()); },
            [](kj::Exception&& exception) -> kj::Maybe<kj::Array<kj::byte>> {
              KJ_REQUIRE(exception.getType() == kj::Exception::Type::DISCONNECTED, exception);
              return nullptr;
            })
      .attach(kj::mv(all), kj::mv(buffer));
}

void Program::reset() {
  linger atOnce{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &atOnce, sizeof(atOnce));
  stream = nullptr;
}

// RelayLab -----------------------------------------------------------------------------------------------------------

Line RelayLab::connect(SocketKind kind, kj::Maybe<RelayMeter&> hostMeter, kj::Maybe<RelayMeter&> guestMeter) {
  auto onHost = connectedSockets(kind);
  auto onGuest = connectedSockets(kind);
  auto channels = openChannel();
  Line line{kj::heap<Program>(io, kj::mv(onHost.other)),
            kj::heap<Program>(io, kj::mv(onGuest.other)),
            kj::heap<Relay>(kj::mv(channels.host), newSocketEnd(io.unixEventPort, kj::mv(onHost.one)), hostMeter),
            kj::heap<Relay>(kj::mv(channels.guest), newSocketEnd(io.unixEventPort, kj::mv(onGuest.one)), guestMeter),
            nullptr,
            nullptr};
  line.hostOutcome = line.hostRelay->run().eagerlyEvaluate(nullptr);
  line.guestOutcome = line.guestRelay->run().eagerlyEvaluate(nullptr);
  return line;
}

void RelayLab::expect(Line& line, RelayOutcome host, RelayOutcome guest) {
  CHECK(await(kj::mv(line.hostOutcome)) == host);
  CHECK(await(kj::mv(line.guestOutcome)) == guest);
}

kj::Array<kj::byte> RelayLab::bytes(size_t size) {
  auto result = kj::heapArray<kj::byte>(size);
  for (size_t i = 0; i + 8 <= size; i += 8) {
    uint64_t word = random.next();
    memcpy(result.begin() + i, &word, sizeof(word));
  }
  for (size_t i = size - size % 8; i < size; ++i) result[i] = kj::byte(random.next());
  return result;
}

void RelayLab::exchange(Line& line, kj::ArrayPtr<const kj::byte> there, kj::ArrayPtr<const kj::byte> back) {
  auto writing = line.hostProgram->write(there).then([&line] { line.hostProgram->finish(); }).eagerlyEvaluate(nullptr);
  auto answering =
      line.guestProgram->write(back).then([&line] { line.guestProgram->finish(); }).eagerlyEvaluate(nullptr);
  auto gotBack = line.hostProgram->readAll().eagerlyEvaluate(nullptr);
  auto gotThere = await(line.guestProgram->readAll());
  CHECK((KJ_REQUIRE_NONNULL(gotThere) == there));
  auto arrived = await(kj::mv(gotBack));
  CHECK((KJ_REQUIRE_NONNULL(arrived) == back));
}

}  // namespace postern::test
