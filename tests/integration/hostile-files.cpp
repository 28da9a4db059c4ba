#include "tests/integration/hostile-files.h"

#include <kj/debug.h>
#include <kj/function.h>
#include <string.h>

#include "protocol/transfer/frame.h"

namespace postern::test {

namespace {

using namespace transfer;
using Kind = schema::Entry::Kind;

// Frames one after the other, in the channel's byte stream.
class Liar {
 public:
  explicit Liar(BulkChannel& channel) : channel(channel) {}

  kj::Promise<void> say(FrameBuilder& frame, kj::ArrayPtr<const kj::byte> content = nullptr) {
    auto bytes = frame.toArray(content);
    auto view = bytes.asPtr();
    return channel.write(view).ignoreResult().attach(kj::mv(bytes));
  }
  kj::Promise<void> totals(uint64_t files, uint64_t bytes, uint32_t deepest = 1) {
    FrameBuilder frame;
    auto totals = frame.init<schema::Forward>().initTotals();
    totals.setFiles(files);
    totals.setDirectories(deepest);
    totals.setBytes(bytes);
    totals.setDeepest(deepest);
    totals.setTops(1);
    return say(frame);
  }
  template <typename Fill>
  kj::Promise<void> entry(Kind kind, kj::ArrayPtr<const char> name, Fill&& fill,
                          kj::ArrayPtr<const kj::byte> content = nullptr) {
    FrameBuilder frame;
    auto entry = frame.init<schema::Forward>().initEntry();
    entry.setKind(kind);
    entry.setName(name.asBytes());
    entry.setMode(0644);
    fill(entry);
    return say(frame, content);
  }
  // A small file, whole.
  kj::Promise<void> file(kj::ArrayPtr<const char> name, uint16_t mode = 0644) {
    auto content = "stolen"_kj.asBytes();
    return entry(
        Kind::FILE, name,
        [&](schema::Entry::Builder entry) {
          entry.setMode(mode);
          entry.setSize(content.size());
          entry.setInlined(true);
        },
        content);
  }
  kj::Promise<void> directory(kj::ArrayPtr<const char> name) {
    return entry(Kind::DIRECTORY, name, [](schema::Entry::Builder entry) { entry.setMode(0755); });
  }
  kj::Promise<void> link(kj::ArrayPtr<const char> name, kj::StringPtr target) {
    return entry(Kind::SYMBOLIC_LINK, name, [&](schema::Entry::Builder entry) { entry.setTarget(target.asBytes()); });
  }
  kj::Promise<void> large(kj::ArrayPtr<const char> name, uint64_t size) {
    return entry(Kind::FILE, name, [&](schema::Entry::Builder entry) { entry.setSize(size); });
  }
  kj::Promise<void> data(uint64_t offset) {
    FrameBuilder frame;
    frame.init<schema::Forward>().initData().setOffset(offset);
    return say(frame, block);
  }
  kj::Promise<void> end() {
    FrameBuilder frame;
    frame.init<schema::Forward>().initFileEnd();
    return say(frame);
  }
  kj::Promise<void> leave() {
    FrameBuilder frame;
    frame.init<schema::Forward>().setLeave();
    return say(frame);
  }
  kj::Promise<void> done() {
    FrameBuilder frame;
    frame.init<schema::Forward>().setDone();
    return say(frame);
  }
  template <typename Fill>
  kj::Promise<void> back(Fill&& fill) {
    FrameBuilder frame;
    fill(frame.init<schema::Backward>());
    return say(frame);
  }
  kj::Promise<void> ready() {
    return back([](schema::Backward::Builder message) { message.initReady().setInto(false); });
  }

 private:
  BulkChannel& channel;
  const kj::Array<kj::byte> block = kj::heapArray<kj::byte>(DATA_BYTES);
};

kj::Promise<void> times(uint64_t count, kj::Function<kj::Promise<void>(uint64_t)> each, uint64_t from = 0) {
  if (from == count) return kj::READY_NOW;
  auto one = each(from);
  return one.then([count, each = kj::mv(each), from]() mutable { return times(count, kj::mv(each), from + 1); });
}

kj::String evil() {
  return kj::str("\033]0;owned\007\033[2J\r\n\x01\x7f", kj::repeat('x', 300));
}

using Play = kj::Promise<void> (*)(Liar& liar);
struct Trick {
  kj::StringPtr name;
  Play play;
};

kj::Promise<void> nested(Liar& liar) {
  return liar.totals(1, 6, 100'000).then([&liar]() {
    return times(100'000, [&liar](uint64_t) { return liar.directory("d"_kj); });
  });
}
kj::Promise<void> endlessEntries(Liar& liar) {
  return liar.totals(1, 6).then(
      [&liar]() { return times(1'000'000, [&liar](uint64_t i) { return liar.file(kj::str("f", i)); }); });
}
kj::Promise<void> endlessFile(Liar& liar) {
  return liar.totals(1, 2 << 20).then([&liar]() { return liar.large("x"_kj, 2 << 20); }).then([&liar]() {
    return times(1'000'000, [&liar](uint64_t i) { return liar.data(i * DATA_BYTES); });
  });
}
#define ONE_FILE(name)                                                                                        \
  [](Liar& liar) {                                                                                            \
    return liar.totals(1, 6).then([&liar] { return liar.file(name); }).then([&liar] { return liar.done(); }); \
  }

// Of a guest that sends (get), and of one that receives (put).
constexpr Trick TRICKS[] = {
    {"parent"_kj, ONE_FILE(".."_kj)},
    {"dot"_kj, ONE_FILE("."_kj)},
    {"empty"_kj, ONE_FILE(""_kj)},
    {"absolute"_kj, ONE_FILE("/tmp/postern-escaped"_kj)},
    {"slash"_kj, ONE_FILE("../postern-escaped"_kj)},
    {"nul"_kj, ONE_FILE(kj::arrayPtr("a\0b", 3))},
    {"newline"_kj, ONE_FILE("\033[2Ja\nb"_kj)},
    {"set-id"_kj,
     [](Liar& liar) {
       return liar.totals(1, 6).then([&liar] { return liar.file("f"_kj, 07777); }).then([&liar] {
         return liar.done();
       });
     }},
    {"through-link"_kj,
     [](Liar& liar) {
       return liar.totals(3, 6)
           .then([&liar] { return liar.directory("t"_kj); })
           .then([&liar] { return liar.link("d"_kj, "../../outside"_kj); })
           .then([&liar] { return liar.directory("d"_kj); })
           .then([&liar] { return liar.file("postern-escaped"_kj); })
           .then([&liar] { return liar.leave(); })
           .then([&liar] { return liar.leave(); })
           .then([&liar] { return liar.done(); });
     }},
    {"foreign-hard-link"_kj,
     [](Liar& liar) {
       return liar.totals(1, 6)
           .then([&liar] { return liar.directory("t"_kj); })
           .then([&liar] {
             return liar.entry(Kind::HARD_LINK, "copy"_kj, [](schema::Entry::Builder entry) {
               auto to = entry.initLinkTo(2);
               to.set(0, "t"_kj.asBytes());
               to.set(1, "private"_kj.asBytes());
             });
           })
           .then([&liar] { return liar.leave(); })
           .then([&liar] { return liar.done(); });
     }},
    {"device"_kj,
     [](Liar& liar) {
       return liar.totals(1, 0)
           .then([&liar] {
             return liar.entry(Kind::CHARACTER_DEVICE, "null"_kj, [](schema::Entry::Builder entry) {
               entry.setDeviceMajor(1);
               entry.setDeviceMinor(3);
             });
           })
           .then([&liar] { return liar.done(); });
     }},
    {"short-content"_kj,
     [](Liar& liar) {
       return liar.totals(1, 6).then([&liar] {
         return liar.entry(
             Kind::FILE, "f"_kj,
             [](schema::Entry::Builder entry) {
               entry.setSize(600);
               entry.setInlined(true);
             },
             "stolen"_kj.asBytes());
       });
     }},
    {"beyond"_kj,
     [](Liar& liar) {
       return liar.totals(1, 2 << 20).then([&liar] { return liar.large("f"_kj, 2 << 20); }).then([&liar] {
         return liar.data(uint64_t(1) << 62);
       });
     }},
    {"not-whole"_kj,
     [](Liar& liar) {
       return liar.totals(1, 2 << 20)
           .then([&liar] { return liar.large("f"_kj, 2 << 20); })
           .then([&liar] { return liar.data(0); })
           .then([&liar] { return liar.end(); })
           .then([&liar] { return liar.done(); });
     }},
    {"same-of-nothing"_kj,
     [](Liar& liar) {
       return liar.totals(1, 2 << 20).then([&liar] { return liar.large("f"_kj, 2 << 20); }).then([&liar] {
         FrameBuilder frame;
         auto same = frame.init<schema::Forward>().initSame();
         same.setSameOffset(0);
         same.setSameBytes(2 << 20);
         return liar.say(frame);
       });
     }},
    {"bad-hash"_kj,
     [](Liar& liar) {
       return liar.totals(1, 6)
           .then([&liar] {
             return liar.entry(
                 Kind::FILE, "f"_kj,
                 [](schema::Entry::Builder entry) {
                   entry.setSize(6);
                   entry.setInlined(true);
                   memset(entry.initHash(HASH_BYTES).begin(), 7, HASH_BYTES);
                 },
                 "stolen"_kj.asBytes());
           })
           .then([&liar] { return liar.done(); });
     }},
    {"announces-a-billion"_kj,
     [](Liar& liar) { return liar.totals(1'000'000'000, uint64_t(1) << 47).then([&liar] { return liar.done(); }); }},
    {"nested"_kj, nested},
    {"endless-entries"_kj, endlessEntries},
    {"endless-file"_kj, endlessFile},
    {"leaves-too-often"_kj, [](Liar& liar) { return liar.totals(1, 1).then([&liar] { return liar.leave(); }); }},
    {"twice-totals"_kj, [](Liar& liar) { return liar.totals(1, 1).then([&liar] { return liar.totals(1, 1); }); }},
    {"evil-failure"_kj,
     [](Liar& liar) {
       return liar.totals(1, 1)
           .then([&liar] {
             FrameBuilder frame;
             auto failed = frame.init<schema::Forward>().initFailed();
             failed.setName("\033[2Jname"_kj.asBytes());
             failed.initProblem().setDetail(evil());
             return liar.say(frame);
           })
           .then([&liar] { return liar.done(); });
     }},
    {"garbage"_kj,
     [](Liar& liar) {
       FrameBuilder frame;
       frame.init<capnp::AnyPointer>().initAs<capnp::Data>(4000);
       return liar.say(frame, "content"_kj.asBytes());
     }},
    {"receives-finished"_kj,
     [](Liar& liar) {
       return liar.back([](schema::Backward::Builder message) { message.initFinished().setFiles(99); });
     }},
    {"receives-evil-refusal"_kj,
     [](Liar& liar) {
       return liar.back([](schema::Backward::Builder message) { message.initRefused().setDetail(evil()); });
     }},
    {"receives-hashes"_kj,
     [](Liar& liar) {
       return liar.ready().then([&liar] {
         return times(1000, [&liar](uint64_t) {
           return liar.back([](schema::Backward::Builder message) { message.initHashes(HASH_BYTES * MAX_HASHES); });
         });
       });
     }},
    {"receives-huge-base"_kj,
     [](Liar& liar) {
       return liar.ready().then([&liar] {
         return liar.back([](schema::Backward::Builder message) { message.initBase().setBytes(~uint64_t(0)); });
       });
     }},
    {"receives-failures"_kj,
     [](Liar& liar) {
       return liar.ready().then([&liar] {
         return times(10'000, [&liar](uint64_t i) {
           return liar.back([i](schema::Backward::Builder message) {
             auto failed = message.initFailed();
             failed.setEntry(i * 1'000'000'007);
             failed.setPath("\033[2Jpath\n"_kj.asBytes());
             failed.initProblem().setDetail(evil());
           });
         });
       });
     }},
};

}  // namespace

bool isFileTrick(kj::StringPtr trick) {
  for (auto& known : TRICKS) {
    if (known.name == trick) return true;
  }
  return false;
}

kj::Promise<void> playFileTrick(kj::StringPtr trick, BulkChannel& channel) {
  auto liar = kj::heap<Liar>(channel);
  for (auto& known : TRICKS) {
    if (known.name == trick) {
      auto played = known.play(*liar);
      return played.attach(kj::mv(liar));
    }
  }
  KJ_FAIL_REQUIRE("no such trick", trick);
}

}  // namespace postern::test
