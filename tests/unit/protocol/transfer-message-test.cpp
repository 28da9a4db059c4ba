// Each message of a transfer there and back, and each bound of each field.
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "protocol/transfer/opener-message.h"
#include "tests/unit/protocol/transfer-fixture.h"

namespace postern::transfer {
namespace {

using Bytes = std::vector<kj::byte>;

template <typename Parse, typename Judge>
void onEachFrame(kj::ArrayPtr<const kj::byte> bytes, Parse&& parse, Judge&& judge) {
  FrameReader reader;
  for (;;) {
    auto next = reader.next(bytes);
    KJ_IF_MAYBE (got, next) {
      if (got->is<FrameError>()) return;
      auto& view = *got->get<FrameView*>();
      judge(view, parse(view));
    } else {
      return;
    }
  }
}

auto asForward = [](FrameView& view) { return parseForward(view); };
auto asBackward = [](FrameView& view) { return parseBackward(view); };

kj::Array<kj::byte> written(const Forward& message, kj::ArrayPtr<const kj::byte> content) {
  return frameOf(message, content);
}
kj::Array<kj::byte> written(const Backward& message, kj::ArrayPtr<const kj::byte>) {
  return frameOf(message);
}

// What the parser takes it can write, and reads again as the same. Frames that were looked at.
template <typename T, typename Parse>
size_t checkSame(kj::ArrayPtr<const kj::byte> bytes, Parse&& parse) {
  size_t frames = 0;
  onEachFrame(bytes, parse, [&](FrameView& view, kj::OneOf<T, FrameError> parsed) {
    ++frames;
    if (parsed.template is<FrameError>()) return;
    auto first = written(parsed.template get<T>(), view.content());
    onEachFrame(first, parse, [&](FrameView& again, kj::OneOf<T, FrameError> second) {
      REQUIRE(second.template is<T>());
      CHECK((written(second.template get<T>(), again.content()).asPtr() == first.asPtr()));
    });
  });
  return frames;
}

kj::OneOf<Forward, FrameError> parsedForward(kj::ArrayPtr<const kj::byte> frame) {
  kj::OneOf<Forward, FrameError> result = FrameError{"no frame"};
  onEachFrame(frame, asForward, [&](FrameView&, kj::OneOf<Forward, FrameError> parsed) { result = kj::mv(parsed); });
  return result;
}
std::string wrongWith(const Forward& message, size_t contentBytes = 0) {
  return ruleOf(parsedForward(frameOf(message, bytesOf(contentBytes))));
}
std::string wrongWith(Entry entry, size_t contentBytes = 0) {
  return wrongWith(forward(kj::mv(entry)), contentBytes);
}
std::string wrongWith(const Backward& message) {
  std::string rule = "no frame";
  onEachFrame(frameOf(message), asBackward,
              [&](FrameView&, kj::OneOf<Backward, FrameError> parsed) { rule = ruleOf(parsed); });
  return rule;
}

TEST_CASE("each message of the forward direction is read as it was written") {
  kj::Vector<Forward> messages;
  auto add = [&](Forward message) { messages.add(kj::mv(message)); };
  Totals totals{MAX_COUNT, MAX_COUNT, MAX_FILE_BYTES, MAX_DEPTH, ~0u, false, MAX_FILE_BYTES};
  add(forward(kj::mv(totals)));
  add(forward(Totals{1, 0, 0, 0, 1, true}));
  for (uint8_t kind = 0; kind <= uint8_t(EntryKind::SOCKET); ++kind) add(forward(fullEntry(EntryKind(kind))));
  auto large = fullEntry(EntryKind::FILE);
  large.size = MAX_FILE_BYTES;
  large.hasLinks = large.wantsBase = true;
  add(forward(kj::mv(large)));
  auto stream = fileOf("-", 0);
  stream.stream = true;
  add(forward(kj::mv(stream)));
  add(forward(Hole{MAX_FILE_BYTES - 1, 1}));
  add(forward(Same{0, MAX_FILE_BYTES}));
  add(forward(FileEnd()));
  add(forward(FileEnd{hashOf(3)}));
  add(forward(FileFailed{someProblem()}));
  add(forward(Leave()));
  add(forward(EntryFailed{kj::str("\xff"), someProblem()}));
  add(forward(Done()));
  for (auto& message : messages) {
    auto frame = frameOf(message);
    auto parsed = parsedForward(frame);
    INFO(ruleOf(parsed));
    REQUIRE(parsed.is<Forward>());
    CHECK((parsed.get<Forward>().which() == message.which()));
    CHECK((frameOf(parsed.get<Forward>()).asPtr() == frame.asPtr()));
  }
  // Fields that writing twice would not show to be exchanged.
  auto entry = parsedForward(frameOf(forward(fullEntry(EntryKind::BLOCK_DEVICE)))).get<Forward>().get<Entry>().name;
  CHECK((entry == "na\xffme\n"));
}

TEST_CASE("an entry's fields are what was written, each in its place") {
  auto parsed = parsedForward(frameOf(forward(fullEntry(EntryKind::BLOCK_DEVICE))));
  auto& entry = parsed.get<Forward>().get<Entry>();
  CHECK(entry.mode == 07654);
  CHECK(entry.modifiedSeconds == -5);
  CHECK(entry.modifiedNanoseconds == 999'999'999);
  CHECK(entry.uid == 1000);
  CHECK(entry.gid == 4'000'000'000);
  CHECK((entry.owner == "alice"));
  CHECK((entry.group == "users"));
  CHECK(entry.deviceMajor == 8);
  CHECK(entry.deviceMinor == 1);
  REQUIRE(entry.attributes.size() == 2);
  CHECK((entry.attributes[0].name == "user.comment"));
  CHECK((entry.attributes[0].value == bytesOf(3)));
}

TEST_CASE("each message of the backward direction is read as it was written") {
  kj::Vector<Backward> messages;
  auto add = [&](Backward message) { messages.add(kj::mv(message)); };
  add(backward(Ready{true}));
  add(backward(Ready{false}));
  add(backward(Refused{someProblem()}));
  add(backward(Base{0}));
  add(backward(Base{MAX_FILE_BYTES}));
  add(backward(Hashes{bytesOf(HASH_BYTES)}));
  add(backward(Hashes{bytesOf(HASH_BYTES * MAX_HASHES)}));
  add(backward(DestinationFailed{7, kj::str("a/b"), someProblem()}));
  add(backward(Progress{3, 4}));
  add(backward(Summary{1, 2, 3, 4, 5, 6}));
  for (auto& message : messages) {
    auto frame = frameOf(message);
    onEachFrame(frame, asBackward, [&](FrameView&, kj::OneOf<Backward, FrameError> parsed) {
      INFO(ruleOf(parsed));
      REQUIRE(parsed.is<Backward>());
      CHECK((parsed.get<Backward>().which() == message.which()));
      CHECK((frameOf(parsed.get<Backward>()).asPtr() == frame.asPtr()));
    });
  }
}

// T67
TEST_CASE("each bound of a forward message is held, and the last that is within it is taken") {
  auto with = [](EntryKind kind, std::function<void(Entry&)> change) {
    auto entry = fullEntry(kind);
    change(entry);
    return entry;
  };
  using K = EntryKind;
  auto named = [&](std::string name) {
    return with(K::FIFO, [&](Entry& e) { e.name = kj::heapString(name.data(), name.size()); });
  };
  for (auto name : {"", ".", "..", "a/b", "/", "a/"}) {
    INFO(name);
    CHECK(wrongWith(named(name)) == "a name is a component");
    CHECK(wrongWith(forward(EntryFailed{kj::str(name), someProblem()})) == "a name is a component");
  }
  CHECK(wrongWith(named(std::string("a\0b", 3))) == "a name is a component");
  CHECK(wrongWith(named(std::string(256, 'a'))) == "a name is a component");
  for (auto name : {"...", ".a", "..a", "-", "\n", "\xc0\xaf"}) CHECK(wrongWith(named(name)).empty());
  CHECK(wrongWith(named(std::string(255, 'a'))).empty());

  CHECK(wrongWith(with(K::FIFO, [](Entry& e) { e.mode = 010000; })) == "a mode has twelve bits");
  CHECK(wrongWith(with(K::FIFO, [](Entry& e) { e.modifiedNanoseconds = 1'000'000'000; })) ==
        "nanoseconds are below 10^9");
  auto owned = [&](std::string owner) {
    return with(K::FIFO, [&](Entry& e) { e.owner = kj::heapString(owner.data(), owner.size()); });
  };
  CHECK(wrongWith(owned(std::string(64, 'o'))).empty());
  CHECK(wrongWith(owned(std::string(65, 'o'))) == "owner and group are names of at most MAX_OWNER_BYTES");
  CHECK(wrongWith(owned(std::string("o\0", 2))) == "owner and group are names of at most MAX_OWNER_BYTES");
  CHECK(wrongWith(with(K::FIFO, [](Entry& e) { e.group = kj::heapString(std::string(65, 'g').c_str()); })) ==
        "owner and group are names of at most MAX_OWNER_BYTES");

  CHECK(wrongWith(fileOf("f", MAX_FILE_BYTES + 1)) == "a file is at most MAX_FILE_BYTES");
  CHECK(wrongWith(inlinedOf("f", 3), 2) == "an inlined file is its frame's content");
  CHECK(wrongWith(inlinedOf("f", 3), 4) == "an inlined file is its frame's content");
  CHECK(wrongWith(inlinedOf("f", INLINE_BYTES), INLINE_BYTES).empty());
  CHECK(wrongWith(inlinedOf("f", INLINE_BYTES + 1), 0) == "an inlined file is its frame's content");
  CHECK(wrongWith(inlinedOf("f", 0), 0).empty());
  CHECK(wrongWith(fileOf("f", 3), 3) == "an inlined file alone has content");
  CHECK(wrongWith(with(K::DIRECTORY, [](Entry&) {}), 3) == "an inlined file alone has content");
  auto hashed = inlinedOf("f", 0);
  hashed.hash = bytesOf(31);
  CHECK(wrongWith(kj::mv(hashed)) == "a hash has HASH_BYTES");
  auto early = fileOf("f", 9);
  early.hash = hashOf(1);
  CHECK(wrongWith(kj::mv(early)) == "the hash of a file that is not inlined comes at its end");
  auto both = inlinedOf("f", 0);
  both.wantsBase = true;
  CHECK(wrongWith(kj::mv(both)) == "an inlined file is neither a stream nor has a base");
  auto sized = fileOf("f", 1);
  sized.stream = true;
  CHECK(wrongWith(kj::mv(sized)) == "a stream has neither size nor base");

  auto target = [&](std::string text) {
    return with(K::SYMBOLIC_LINK, [&](Entry& e) { e.target = kj::heapString(text.data(), text.size()); });
  };
  auto targetRule = "a symbolic link's target has 1 to MAX_PATH_BYTES and no NUL";
  CHECK(wrongWith(target("")) == targetRule);
  CHECK(wrongWith(target(std::string(4096, 't'))) == targetRule);
  CHECK(wrongWith(target(std::string("a\0", 2))) == targetRule);
  CHECK(wrongWith(target(std::string(4095, 't'))).empty());

  auto link = [&](std::vector<std::string> parts) {
    return with(K::HARD_LINK, [&](Entry& e) {
      e.linkTo = {};
      for (auto& part : parts) e.linkTo.add(kj::heapString(part.data(), part.size()));
    });
  };
  CHECK(wrongWith(link({})) == "a hard link has 1 to MAX_DEPTH + 1 components");
  CHECK(wrongWith(link(std::vector<std::string>(258, "a"))) == "a hard link has 1 to MAX_DEPTH + 1 components");
  CHECK(wrongWith(link(std::vector<std::string>(257, "a"))).empty());
  for (auto part : {"", "..", "a/b"}) CHECK(wrongWith(link({"a", part})) == "a hard link has components");

  auto attributes = [&](size_t count, std::string name, size_t bytes) {
    return with(K::FIFO, [&](Entry& e) {
      e.attributes = {};
      for (size_t i = 0; i < count; ++i) {
        e.attributes.add(Attribute{kj::heapString(name.data(), name.size()), bytesOf(bytes)});
      }
    });
  };
  CHECK(wrongWith(attributes(64, "user.a", 1)).empty());
  CHECK(wrongWith(attributes(65, "user.a", 1)) == "an entry has at most MAX_ATTRIBUTES");
  CHECK(wrongWith(attributes(1, "user.a", MAX_ATTRIBUTE_BYTES - 6)).empty());
  CHECK(wrongWith(attributes(1, "user.a", MAX_ATTRIBUTE_BYTES - 5)) ==
        "attributes are at most MAX_ATTRIBUTE_BYTES in all");
  CHECK(wrongWith(attributes(5, "user.a", 8000)) == "attributes are at most MAX_ATTRIBUTE_BYTES in all");
  auto nameRule = "an attribute's name is of user, system.posix_acl, security or trusted";
  for (auto name : {"security.capability", "trusted.x", "system.posix_acl_default"}) {
    CHECK(wrongWith(attributes(1, name, 1)).empty());
  }
  for (auto name : {"", "user.", "User.a", "system.nfs4_acl", "a"})
    CHECK(wrongWith(attributes(1, name, 1)) == nameRule);
  CHECK(wrongWith(attributes(1, "user." + std::string(250, 'a'), 1)).empty());
  CHECK(wrongWith(attributes(1, "user." + std::string(251, 'a'), 1)) == nameRule);
  CHECK(wrongWith(attributes(1, std::string("user.a\0", 7), 1)) == nameRule);
}

TEST_CASE("an entry has nothing that belongs to another kind") {
  using K = EntryKind;
  std::vector<std::pair<std::vector<K>, std::function<void(Entry&)>>> fields = {
      {{K::FILE}, [](Entry& e) { e.size = 1; }},
      {{K::FILE}, [](Entry& e) { e.hasLinks = true; }},
      {{K::FILE}, [](Entry& e) { e.wantsBase = true; }},
      {{K::FILE}, [](Entry& e) { e.inlined = true; }},
      {{K::FILE}, [](Entry& e) { e.stream = true; }},
      {{}, [](Entry& e) { e.hash = hashOf(1); }},  // of inlined files alone
      {{K::SYMBOLIC_LINK}, [](Entry& e) { e.target = kj::str("x"); }},
      {{K::HARD_LINK}, [](Entry& e) { e.linkTo.add(kj::str("x")); }},
      {{K::CHARACTER_DEVICE, K::BLOCK_DEVICE}, [](Entry& e) { e.deviceMajor = 1; }},
      {{K::CHARACTER_DEVICE, K::BLOCK_DEVICE}, [](Entry& e) { e.deviceMinor = 1; }},
  };
  for (auto& [kinds, change] : fields) {
    for (uint8_t number = 0; number <= uint8_t(K::SOCKET); ++number) {
      auto kind = K(number);
      auto entry = fullEntry(kind);
      change(entry);
      bool allowed = std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
      INFO(int(number));
      CHECK(wrongWith(kj::mv(entry)).empty() == allowed);
    }
  }
}

TEST_CASE("each bound of totals, runs and hashes is held") {
  CHECK(wrongWith(forward(Totals{MAX_COUNT + 1})) == "counts are at most MAX_COUNT");
  CHECK(wrongWith(forward(Totals{0, MAX_COUNT + 1})) == "counts are at most MAX_COUNT");
  CHECK(wrongWith(forward(Totals{0, 0, MAX_FILE_BYTES + 1})) == "all bytes are at most MAX_FILE_BYTES");
  CHECK(wrongWith(forward(Totals{1, 0, 9, 0, 1, false, 10})) == "holes are among all bytes");
  CHECK(wrongWith(forward(Totals{0, 0, 0, MAX_DEPTH + 1})) == "directories are at most MAX_DEPTH deep");
  for (auto& totals : {Totals{2, 0, 0, 0, 1, true}, Totals{1, 1, 0, 0, 1, true}, Totals{1, 0, 1, 0, 1, true},
                       Totals{1, 0, 0, 0, 2, true}}) {
    CHECK(wrongWith(forward(Totals(totals))) == "a stream is one file");
  }
  CHECK(wrongWith(forward(Data{0}), 0) == "data has 1 to DATA_BYTES");
  CHECK(wrongWith(forward(Data{0}), DATA_BYTES).empty());
  CHECK(wrongWith(forward(Data{MAX_FILE_BYTES - 3}), 3).empty());
  CHECK(wrongWith(forward(Data{MAX_FILE_BYTES - 3}), 4) == "data ends within MAX_FILE_BYTES");
  CHECK(wrongWith(forward(Data{~uint64_t(0)}), 1) == "data ends within MAX_FILE_BYTES");
  auto run = "a run has bytes and ends within MAX_FILE_BYTES";
  for (uint64_t huge : {MAX_FILE_BYTES + 1, ~uint64_t(0)}) {
    CHECK(wrongWith(forward(Hole{0, huge})) == run);
    CHECK(wrongWith(forward(Hole{huge, 1})) == run);
    CHECK(wrongWith(forward(Same{0, huge})) == run);
    CHECK(wrongWith(forward(Same{huge, huge})) == run);
  }
  CHECK(wrongWith(forward(Hole{5, 0})) == run);
  CHECK(wrongWith(forward(Same{MAX_FILE_BYTES, 1})) == run);
  for (size_t size : {1, 31, 33, 64}) CHECK(wrongWith(forward(FileEnd{bytesOf(size)})) == "a hash has HASH_BYTES");
  for (size_t content : {1, 8}) {
    CHECK(wrongWith(forward(Leave()), content) == "data and inlined files alone have content");
    CHECK(wrongWith(forward(Done()), content) == "data and inlined files alone have content");
  }

  CHECK(wrongWith(backward(Base{MAX_FILE_BYTES + 1})) == "a base is at most MAX_FILE_BYTES");
  CHECK(wrongWith(backward(Progress{0, MAX_FILE_BYTES + 1})) == "all bytes are at most MAX_FILE_BYTES");
  for (size_t size : {size_t(0), size_t(31), size_t(33), (MAX_HASHES + 1) * HASH_BYTES}) {
    CHECK(wrongWith(backward(Hashes{bytesOf(size)})) == "hashes are 1 to MAX_HASHES of HASH_BYTES");
  }
  auto failedAt = [](std::string path) {
    return backward(DestinationFailed{0, kj::heapString(path.data(), path.size()), someProblem()});
  };
  CHECK(wrongWith(failedAt(std::string(4095, 'p'))).empty());
  CHECK(wrongWith(failedAt(std::string(4096, 'p'))) == "a path has at most MAX_PATH_BYTES and no NUL");
  CHECK(wrongWith(failedAt(std::string("a\0", 2))) == "a path has at most MAX_PATH_BYTES and no NUL");
}

TEST_CASE("kinds and messages of a later version are refused, and a problem's is taken for a failure") {
  FrameBuilder builder;
  auto entry = builder.init<schema::Forward>().initEntry();
  entry.setName("a"_kj.asBytes());
  entry.setKind(schema::Entry::Kind(8));
  CHECK(ruleOf(parsedForward(builder.toArray())) == "an entry is of a kind that is known");
  auto unknown = frameOf(forward(Done()));
  for (auto& byte : unknown.slice(16, unknown.size())) {
    if (byte == 9) byte = 10;
  }
  CHECK(ruleOf(parsedForward(unknown)) == "a message is one that is known");

  auto failed = builder.init<schema::Forward>().initFileFailed();
  failed.setKind(ProblemKind(99));
  auto text = std::string(511, 'd') + "\xc3\xa9";  // 512 bytes would end within a character
  failed.setDetail(text.c_str());
  failed.setRule(std::string(200, 'r').c_str());
  auto parsed = parsedForward(builder.toArray());
  auto& problem = parsed.get<Forward>().get<FileFailed>().problem;
  CHECK(problem.kind == ProblemKind::FAILED);
  CHECK((problem.detail == std::string(511, 'd').c_str()));
  CHECK(problem.rule.size() == MAX_RULE_ID_BYTES);
  CHECK((copy(problem).detail == problem.detail));
  CHECK((word(ProblemKind::NO_SPACE) == "no-space"));
  CHECK((word(ProblemKind(99)) == "failed"));
}

TEST_CASE("a summary's numbers are cut at their bounds") {
  Summary most{~uint64_t(0), ~uint64_t(0), ~uint64_t(0), ~uint64_t(0), ~uint64_t(0), ~uint64_t(0)};
  onEachFrame(frameOf(backward(kj::mv(most))), asBackward, [&](FrameView&, kj::OneOf<Backward, FrameError> parsed) {
    auto& summary = parsed.get<Backward>().get<Summary>();
    CHECK(summary.files == MAX_COUNT);
    CHECK(summary.bytes == MAX_FILE_BYTES);
    CHECK(summary.unchanged == MAX_COUNT);
  });
}

// T66, T67
TEST_CASE("every byte of a transfer flipped in every bit gives an error or a message in order, in both directions") {
  auto there = sampleForward(), back = sampleBackward();
  for (auto bytes : {there.asPtr(), back.asPtr()}) {
    for (auto& byte : bytes) {
      for (int bit = 0; bit < 8; ++bit) {
        byte = kj::byte(byte ^ (1 << bit));
        checkSame<Forward>(bytes, asForward);
        checkSame<Backward>(bytes, asBackward);
        byte = kj::byte(byte ^ (1 << bit));
      }
    }
  }
}

// T66
TEST_CASE("a message that is cut at every word, with its header telling so, gives an error or a message in order") {
  for (auto& whole : {frameOf(forward(fullEntry(EntryKind::HARD_LINK))),
                      frameOf(backward(DestinationFailed{1, kj::str("a/b"), someProblem()}))}) {
    for (size_t words = 1; words < whole.size() / 8 - 1; ++words) {
      auto shorter = kj::heapArray<kj::byte>(whole.slice(0, FRAME_HEADER_BYTES + words * 8));
      shorter[0] = kj::byte(words * 8);
      shorter[1] = kj::byte(words * 8 >> 8);
      CHECK(checkSame<Forward>(shorter, asForward) == 1);
      CHECK(checkSame<Backward>(shorter, asBackward) == 1);
    }
  }
}

// T70
TEST_CASE("a message whose lists all point at the same bytes is not read larger than it is") {
  FrameBuilder builder;
  auto entry = builder.init<schema::Forward>().initEntry();
  entry.setName("a"_kj.asBytes());
  entry.setKind(schema::Entry::Kind::HARD_LINK);
  constexpr unsigned LINKS = MAX_DEPTH + 1;
  auto links = entry.initLinkTo(LINKS);
  links.set(LINKS - 1, bytesOf(250));
  KJ_IF_MAYBE (bytes, kj::Maybe<kj::Array<kj::byte>>(builder.toArray())) {
    // Pointers of the list are one behind the other; the last one leads to the bytes. Make all lead there.
    auto words = kj::arrayPtr(reinterpret_cast<uint64_t*>(bytes->begin()), bytes->size() / 8);
    size_t last = 0;
    for (size_t i = 0; i < words.size(); ++i) {
      if ((words[i] & 7) == 1 && (words[i] >> 35) == 250 && ((words[i] >> 32) & 7) == 2) last = i;
    }
    REQUIRE(last > LINKS);
    for (unsigned i = 1; i < LINKS; ++i) words[last - i] = words[last] + (uint64_t(i) << 2);
    CHECK(ruleOf(parsedForward(*bytes)) == "a message is well-formed");
  }
}

TEST_CASE("what opener and mover say to each other is read as it was written") {
  auto viewOf = [](FrameBuilder& builder, kj::ArrayPtr<const kj::byte> content, auto&& judge) {
    auto frame = builder.toArray(content);
    kj::ArrayPtr<const kj::byte> rest = frame;
    FrameReader reader;
    auto next = reader.next(rest);
    judge(*KJ_ASSERT_NONNULL(next).get<FrameView*>());
  };
  FrameBuilder builder;
  write(Opened{7, true, true}, builder.init<schema::ToMover>().initOpened());
  viewOf(builder, nullptr, [](FrameView& view) {
    auto parsed = parseToMover(view);
    auto& opened = parsed.get<ToMover>().get<Opened>();
    CHECK((opened.entry == 7 && opened.resumed && opened.hasBase));
  });
  viewOf(builder, bytesOf(1), [](FrameView& view) { CHECK(parseToMover(view).is<FrameError>()); });

  kj::Vector<Outcome> outcomes;
  outcomes.add(Whole());
  outcomes.add(Unchanged());
  outcomes.add(someProblem());
  outcomes.add(Kept());
  for (auto& outcome : outcomes) {
    Commit commit{9, kj::mv(outcome), true};
    write(commit, builder.init<schema::ToOpener>().initCommit());
    viewOf(builder, nullptr, [&](FrameView& view) {
      auto parsed = parseToOpener(view);
      auto& read = parsed.get<ToOpener>().get<Commit>();
      CHECK((read.entry == 9 && read.synced));
      CHECK((read.outcome.which() == commit.outcome.which()));
    });
  }
  builder.init<schema::ToOpener>().setSent(MAX_FILE_BYTES);
  viewOf(builder, nullptr,
         [](FrameView& view) { CHECK(parseToOpener(view).get<ToOpener>().get<Sent>().bytes == MAX_FILE_BYTES); });
  builder.init<schema::ToOpener>().setSent(MAX_FILE_BYTES + 1);
  viewOf(builder, nullptr, [](FrameView& view) { CHECK(parseToOpener(view).is<FrameError>()); });

  write(forward(inlinedOf("a", 4)), builder.init<schema::ToMover>().initForward());
  viewOf(builder, bytesOf(4),
         [](FrameView& view) { CHECK(parseToMover(view).get<ToMover>().get<Forward>().is<Entry>()); });
  viewOf(builder, bytesOf(3), [](FrameView& view) { CHECK(parseToMover(view).is<FrameError>()); });
  write(backward(Base{4}), builder.init<schema::ToOpener>().initBackward());
  viewOf(builder, nullptr,
         [](FrameView& view) { CHECK(parseToOpener(view).get<ToOpener>().get<Backward>().is<Base>()); });
  viewOf(builder, bytesOf(3), [](FrameView& view) { CHECK(parseToOpener(view).is<FrameError>()); });
}

TEST_CASE("each kind of problem has a word of its own, and one of a later version is a failure") {
  std::set<std::string> words;
  auto last = static_cast<uint16_t>(ProblemKind::TOO_MANY);
  for (uint16_t kind = 0; kind <= last; ++kind) words.insert(word(ProblemKind(kind)).cStr());
  CHECK(words.size() == size_t(last) + 1);
  CHECK((word(ProblemKind(last + 1)) == "failed"));
}

}  // namespace
}  // namespace postern::transfer
