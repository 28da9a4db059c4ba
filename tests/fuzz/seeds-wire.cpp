#include "protocol/frame.h"
#include "protocol/hello.h"
#include "tests/fuzz/real-exchange.h"
#include "tests/fuzz/seed.h"

namespace postern::fuzz {

namespace {

Seed& addFrame(Seed& seed, uint8_t kind, uint16_t length, size_t present, uint8_t reserved = 0) {
  seed.u16(length).u8(kind, reserved, 1, 2, 3, 4);
  for (size_t i = 0; i < present; ++i) seed.u8(i);
  return seed;
}

void writeFrameSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "frame");
  // u8 bound, u8 number of chunk sizes, chunk sizes.
  Seed whole(0, 0);
  folder.write("one-frame", addFrame(whole, 2, 48, 48));
  Seed empty(0, 1, 8);
  folder.write("empty-body", addFrame(empty, 2, 0, 0));
  Seed many(1, 4, 3, 5, 1, 30);
  for (uint8_t kind = 1; kind <= 3; ++kind) addFrame(many, kind, uint16_t(kind * 20), kind * size_t(20));
  folder.write("three-frames-in-chunks", many);
  Seed cut(0, 1, 4);
  folder.write("cut-body", addFrame(cut, 3, 100, 30));
  Seed unknown(0, 0);
  addFrame(unknown, 4, 4, 4);
  folder.write("unknown-kind-then-frame", addFrame(unknown, 1, 4, 4));
  Seed reserved(0, 0);
  folder.write("reserved-byte", addFrame(reserved, 1, 4, 4, 1));
  Seed over(0, 1, 8);
  folder.write("over-the-bound", addFrame(over, 2, 257, 257));
  Seed atBound(0, 2, 7, 200);
  folder.write("at-the-bound", addFrame(atBound, 2, 256, 256));
  Seed longest(1, 2, 255, 255);
  folder.write("longest-body-begun", addFrame(longest, 3, 65535, 600));
}

void writeHelloSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "hello");
  for (auto pattern : {Pattern::SESSION, Pattern::ENROLMENT}) {
    auto& real = RealExchange::of(pattern, Pin::NONE);
    const char* name = pattern == Pattern::SESSION ? "session" : "enrolment";
    // Flags: 1 the reader is the host, 2 put the right CRC in, 4 it speaks more versions.
    folder.write(kj::str(name, "-guest"), Seed(1).add(real.helloOf(Role::GUEST)));
    folder.write(kj::str(name, "-guest-any-crc"), Seed(3).add(real.helloOf(Role::GUEST)));
    folder.write(kj::str(name, "-host"), Seed(0).add(real.helloOf(Role::HOST)));
    folder.write(kj::str(name, "-host-more-versions"), Seed(6).add(real.helloOf(Role::HOST)));
    folder.write(kj::str(name, "-same-role"), Seed(2).add(real.helloOf(Role::GUEST)));
  }
  auto changed = [&](kj::StringPtr name, size_t place, kj::byte value, uint8_t flags = 3) {
    auto hello = RealExchange::of(Pattern::SESSION, Pin::NONE).helloOf(Role::GUEST);
    hello[place] = value;
    folder.write(name, Seed(flags).add(hello));
  };
  changed("wrong-magic", 0, 'p');
  changed("no-common-version", 4, 2);
  changed("versions-crossed", 5, 0);
  changed("unknown-transport", 7, 5);
  changed("reserved-bytes-set", 64, 1);
  changed("echo-set", 96, 1);
  changed("reply-wanted", 104, 1);
  changed("reply-undefined", 104, 2);
  changed("zero-byte-set", 105, 1);
  changed("wrong-crc", 108, 1, 1);
  folder.write("too-short",
               Seed(1).add(RealExchange::of(Pattern::SESSION, Pin::NONE).helloOf(Role::GUEST).slice(0, 111)));
}

void writeEndpointSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "endpoint");
  const char* texts[] = {"unix:/run/postern.sock",
                         "hybrid:/run/vm/v.sock",
                         "hybrid:/run/vm/v.sock:5000",
                         "hybrid:/a:b/c",
                         "hybrid:/a/c:0",
                         "serial:/dev/virtio-ports/org.postern.agent.0",
                         "vsock:host",
                         "vsock:any:9700",
                         "vsock:42:4294967294",
                         "vsock:4294967295",
                         "vsock:042",
                         "vsock:0",
                         "vsok:42",
                         "/run/postern.sock",
                         "unix:relative",
                         "unix:/folder/"};
  unsigned number = 0;
  for (kj::StringPtr text : texts) {
    folder.write(kj::str(number < 10 ? "0" : "", number), text.asBytes());
    ++number;
  }
  folder.write("control-character", "unix:/a\nb"_kj.asBytes());
  folder.write("path-of-107-bytes", kj::str("unix:/", kj::repeat('x', 106)).asBytes());
  folder.write("path-of-108-bytes", kj::str("unix:/", kj::repeat('x', 107)).asBytes());
}

void writeSerialSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "serial");
  // The steps are in fuzz-serial.cpp: 1 SYNC (1 wrong echo, 2 wants a reply, 4 new epoch), 3 frame, 9 close, 10 accept.
  folder.write("up", Seed(1, 2, 1, 0));
  folder.write("up-and-frames", Seed(1, 2, 3, 2, 3, 3, 3, 16, 11, 3, 3, 255));
  folder.write("restarted-peer", Seed(1, 2, 3, 2, 1, 1, 7, 10, 1, 2, 3, 2, 4));
  folder.write("closed-and-up-again", Seed(1, 2, 3, 2, 1, 9, 10, 1, 6, 3, 2, 1));
  folder.write("stale-frames-then-up", Seed(3, 3, 9, 1, 1, 3, 2, 2, 1, 2, 3, 2, 2));
  folder.write("wrong-echo", Seed(1, 3, 1, 1, 4, 10, 1, 2));
  folder.write("wrong-checksum-while-up", Seed(1, 2, 1, 10, 10, 1, 2));
  folder.write("same-role", Seed(1, 18, 4, 10, 1, 2));
  folder.write("sync-in-a-frame", Seed(1, 2, 11, 0, 12, 0, 1, 3, 0, 0, 0, 0, 0, 1, 2, 3, 4, 1, 2));
  folder.write("half-a-word-while-up", Seed(1, 2, 2, 9, 0, 1, 1, 10, 1, 2));
  folder.write("peer-away-and-back", Seed(5, 0, 4, 10, 5, 1, 1, 2, 5, 0, 5, 1, 10, 1, 6));
  folder.write("full-pipe", Seed(7, 2, 4, 100, 1, 2, 12, 50, 7, 255, 12, 250));
  folder.write("trickle", Seed(6, 1, 14, 1, 1, 2, 3, 2, 3, 12, 9));
  folder.write("retries", Seed(4, 5, 4, 10, 4, 20, 4, 40, 4, 80, 4, 100, 1, 2));
  folder.write("new-offer", Seed(13, 1, 1, 2, 13, 2, 9, 10, 1, 2));
  folder.write("parked-frame", Seed(1, 2, 15, 0, 3, 2, 1, 3, 2, 1, 15, 1));
}

}  // namespace

void writeWireSeeds(kj::StringPtr root) {
  writeFrameSeeds(root);
  writeHelloSeeds(root);
  writeEndpointSeeds(root);
  writeSerialSeeds(root);
}

}  // namespace postern::fuzz
