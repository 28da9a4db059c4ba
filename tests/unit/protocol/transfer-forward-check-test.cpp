#include "protocol/transfer/forward-check.h"

#include <vector>

#include "tests/unit/protocol/transfer-fixture.h"

namespace postern::transfer {
namespace {

using Form = ForwardCheck::Form;

// A check, and what it said to the last message.
class Judge {
 public:
  explicit Judge(Form form = Form::CHANNEL) : check(form) {}
  ForwardCheck check;

  template <typename T>
  Judge& operator()(T message, size_t contentBytes = 0) {
    REQUIRE(rule.empty());
    rule = ruleOf(check.check(forward(kj::mv(message)), contentBytes));
    return *this;
  }
  Judge& data(uint64_t offset, size_t bytes) { return (*this)(Data{offset}, bytes); }
  Judge& enter(kj::StringPtr name) { return (*this)(entryOf(EntryKind::DIRECTORY, name)); }
  Judge& fifo(kj::StringPtr name) { return (*this)(entryOf(EntryKind::FIFO, name)); }
  bool isFine() const { return rule.empty(); }

  std::string rule;
};

// After totals that allow everything these tests do.
Judge begun(Form form = Form::CHANNEL) {
  Judge judge(form);
  return kj::mv(judge(Totals{100, 100, 1 << 20, 10, 100}));
}
Entry wanting(uint64_t size) {
  auto entry = fileOf("f", size);
  entry.wantsBase = true;
  return entry;
}
Entry streamed() {
  auto entry = fileOf("-", 0);
  entry.stream = true;
  return entry;
}

TEST_CASE("a whole tree in order is in order, and the check knows where it is") {
  auto bytes = sampleForward();
  kj::ArrayPtr<const kj::byte> rest = bytes;
  FrameReader reader;
  ForwardCheck check;
  std::vector<std::string> paths;
  for (;;) {
    auto next = reader.next(rest);
    KJ_IF_MAYBE (got, next) {
      auto& view = *got->get<FrameView*>();
      auto parsed = parseForward(view);
      auto& message = parsed.get<Forward>();
      KJ_IF_MAYBE (entry, message.tryGet<Entry>()) {
        if (entry->kind != EntryKind::DIRECTORY) paths.push_back(check.pathOf(entry->name).cStr());
        CHECK(ruleOf(check.check(message, view.content().size())).empty());
        if (entry->wantsBase) check.toldBase(CHUNK_BYTES + 1);
        CHECK(check.inFile() == (entry->kind == EntryKind::FILE && !entry->inlined));
      } else {
        CHECK(ruleOf(check.check(message, view.content().size())).empty());
      }
    } else {
      break;
    }
  }
  CHECK(check.isDone());
  CHECK(check.entriesSeen() == 8);
  CHECK(check.entryNumber() == 7);
  CHECK(check.announced().files == 6);
  CHECK((paths == std::vector<std::string>{"na\xffme\n/small", "na\xffme\n/inner/na\xffme\n", "large", "broken",
                                           "na\xffme\n", "na\xffme\n"}));
}

// T68
TEST_CASE("totals come first and once, and nothing follows done") {
  CHECK(Judge()(fileOf("f", 0)).rule == "totals come first");
  CHECK(Judge()(Done()).rule == "totals come first");
  CHECK(begun()(Totals()).rule == "totals come once");
  CHECK(begun()(Done())(Done()).rule == "nothing follows done");
  CHECK(begun()(Done())(Totals()).rule == "nothing follows done");
  CHECK(begun()(Done()).fifo("a").rule == "nothing follows done");
}

TEST_CASE("what is left was entered, and what was entered is left before the end") {
  CHECK(begun()(Leave()).rule == "what is left was entered");
  CHECK(begun().enter("a")(Leave())(Leave()).rule == "what is left was entered");
  CHECK(begun().enter("a")(Done()).rule == "what was entered is left");
  CHECK(begun().enter("a").enter("b")(Leave())(Leave())(Done()).isFine());
}

TEST_CASE("a tree is no deeper than was announced, and a hard bound holds in any case") {
  auto deep = [](uint32_t announced, size_t levels) {
    Judge judge;
    judge(Totals{0, MAX_DEPTH, 0, announced, 1});
    for (size_t i = 0; i < levels && judge.isFine(); ++i) judge.enter("d");
    return judge.rule;
  };
  CHECK(deep(0, 1) == "it is no deeper than was announced");
  CHECK(deep(3, 3).empty());
  CHECK(deep(3, 4) == "it is no deeper than was announced");
  CHECK(deep(MAX_DEPTH, MAX_DEPTH).empty());
  CHECK(deep(MAX_DEPTH, MAX_DEPTH + 1) == "it is no deeper than was announced");
  // Side by side they are not deep.
  Judge judge;
  judge(Totals{0, 300, 0, 1, 300});
  for (int i = 0; i < 300; ++i) judge.enter("d")(Leave());
  CHECK(judge.isFine());
}

TEST_CASE("no more entries, failures or tops come than were announced, with the slack of a tree that grows") {
  auto count = [](Totals totals, auto&& each) {
    Judge judge;
    judge(totals).enter("top");
    uint64_t n = 0;
    for (; judge.isFine() && n < 2 * ANNOUNCED_SLACK_ENTRIES; ++n) each(judge);
    CHECK_FALSE(judge.isFine());
    return std::make_pair(n - 1, judge.rule);
  };
  auto entries = count(Totals{5, 2, 0, 1, 1}, [](Judge& judge) { judge.fifo("f"); });
  CHECK(entries.first == 6 + ANNOUNCED_SLACK_ENTRIES);  // beside `top`
  CHECK(entries.second == "no more entries come than were announced");
  auto failures = count(Totals{5, 2, 0, 1, 1}, [](Judge& judge) { judge(EntryFailed{kj::str("f"), someProblem()}); });
  CHECK(failures.first == 7 + ANNOUNCED_SLACK_ENTRIES);
  CHECK(failures.second == "no more fails than was announced");

  Judge tops;
  tops(Totals{5, 5, 0, 1, 2}).fifo("a").enter("b").fifo("c").fifo("d")(Leave());
  CHECK(tops.isFine());
  CHECK(tops.fifo("e").rule == "no more tops come than were announced");
}

TEST_CASE("files are together no larger than was announced, with slack, whatever of them is holes") {
  constexpr uint64_t MOST = 1000 + ANNOUNCED_SLACK_BYTES;
  auto most = [](uint64_t size) {
    Judge judge;
    return judge(Totals{9, 0, 1000, 0, 9})(fileOf("f", size)).rule;
  };
  CHECK(most(MOST).empty());
  CHECK(most(MOST + 1) == "no more bytes come than were announced");
  CHECK(most(MAX_FILE_BYTES) == "no more bytes come than were announced");
  Judge judge;
  judge(Totals{9, 0, 1000, 0, 9})(fileOf("f", MOST - 5))(FileFailed{someProblem()})(inlinedOf("g", 5), 5);
  CHECK(judge.isFine());
  CHECK(judge(inlinedOf("h", 1), 1).rule == "no more bytes come than were announced");
  Judge huge;
  huge(Totals{9, 0, MAX_FILE_BYTES, 0, 9})(fileOf("f", MAX_FILE_BYTES))(Hole{0, MAX_FILE_BYTES})(FileEnd());
  CHECK(huge.isFine());
}

TEST_CASE("nothing comes between a file that is not inlined and its end") {
  auto in = []() { return kj::mv(begun()(fileOf("f", 10))); };
  auto rule = "nothing comes between a file and its end";
  CHECK(in().fifo("g").rule == rule);
  CHECK(in()(Leave()).rule == rule);
  CHECK(in()(Done()).rule == rule);
  CHECK(in()(Totals()).rule == rule);
  CHECK(in()(EntryFailed{kj::str("f"), someProblem()}).rule == rule);
  CHECK(in().data(0, 10)(FileEnd()).fifo("g").isFine());
  CHECK(in()(FileFailed{someProblem()}).fifo("g").isFine());
  CHECK(in().data(0, 4)(FileFailed{someProblem()}).fifo("g").isFine());
}

TEST_CASE("bytes belong to a file that is being sent") {
  auto rule = "bytes belong to a file";
  CHECK(begun().data(0, 1).rule == rule);
  CHECK(begun()(Hole{0, 1}).rule == rule);
  CHECK(begun()(Same{0, 1}).rule == rule);
  CHECK(begun()(FileEnd()).rule == rule);
  CHECK(begun()(FileFailed{someProblem()}).rule == rule);
  CHECK(begun()(inlinedOf("f", 1), 1)(FileEnd()).rule == rule);
  CHECK(begun()(fileOf("f", 0))(FileEnd())(FileEnd()).rule == rule);
  CHECK(begun().enter("d").data(0, 1).rule == rule);
}

TEST_CASE("a file is covered from its first byte to its last, without gap or overlap") {
  auto in = []() { return kj::mv(begun()(fileOf("f", 100))); };
  CHECK(in().data(0, 50)(Hole{50, 25}).data(75, 25)(FileEnd()).isFine());
  auto gap = "bytes follow each other without gap or overlap";
  CHECK(in().data(1, 50).rule == gap);
  CHECK(in().data(0, 50).data(51, 1).rule == gap);
  CHECK(in().data(0, 50).data(49, 1).rule == gap);
  CHECK(in().data(0, 50)(Hole{0, 50}).rule == gap);
  CHECK(in()(Hole{0, 50})(Hole{60, 1}).rule == gap);
  auto size = "bytes end within the file's size";
  CHECK(in().data(0, 101).rule == size);
  CHECK(in()(Hole{0, 101}).rule == size);
  CHECK(in()(Hole{0, MAX_FILE_BYTES}).rule == size);
  CHECK(in().data(0, 100)(Hole{100, 1}).rule == size);
  CHECK(in().data(0, 99)(FileEnd()).rule == "a file ends at its size");
  CHECK(in()(FileEnd()).rule == "a file ends at its size");
  CHECK(begun()(fileOf("f", 0))(FileEnd()).isFine());
}

TEST_CASE("what is the same is whole chunks of the base that was told, or up to the file's end") {
  constexpr uint64_t C = CHUNK_BYTES;
  auto in = [](uint64_t size, kj::Maybe<uint64_t> base) {
    auto judge = kj::mv(begun()(wanting(size)));
    KJ_IF_MAYBE (bytes, base) judge.check.toldBase(*bytes);
    return judge;
  };
  CHECK(in(2 * C + 7, 2 * C + 7)(Same{0, C})(Same{C, C + 7})(FileEnd()).isFine());
  CHECK(in(2 * C, 9 * C)(Same{0, 2 * C})(FileEnd()).isFine());
  auto waits = "a file that wants a base waits for it";
  CHECK(in(C, nullptr).data(0, 1).rule == waits);
  CHECK(in(C, nullptr)(Hole{0, C}).rule == waits);
  CHECK(in(C, nullptr)(Same{0, C}).rule == waits);
  CHECK(in(0, nullptr)(FileEnd()).rule == waits);
  CHECK(in(C, nullptr)(FileFailed{someProblem()}).isFine());
  CHECK(in(C, uint64_t(0)).data(0, 1).isFine());
  auto base = "what is the same is in the base that was told";
  CHECK(in(C, uint64_t(0))(Same{0, C}).rule == base);
  CHECK(in(C, C - 1)(Same{0, C}).rule == base);
  CHECK(in(3 * C, C)(Same{0, 2 * C}).rule == base);
  CHECK(begun()(fileOf("f", C))(Same{0, C}).rule == base);
  auto chunks = "what is the same is whole chunks, or up to the file's end";
  CHECK(in(3 * C, 3 * C)(Same{0, C - 1}).rule == chunks);
  CHECK(in(3 * C, 3 * C).data(0, 1)(Same{1, C}).rule == chunks);
  // What was told of one file says nothing of the next.
  CHECK(in(C, C)(Same{0, C})(FileEnd())(wanting(C))(Same{0, C}).rule == waits);
  CHECK(in(C, C)(Same{0, C})(FileEnd())(fileOf("g", C))(Same{0, C}).rule == base);
}

TEST_CASE("sockets are in lists only, and lists have no content") {
  CHECK(begun()(entryOf(EntryKind::SOCKET, "s")).rule == "sockets are in lists only");
  CHECK(begun(Form::OPENER)(entryOf(EntryKind::SOCKET, "s")).rule == "sockets are in lists only");
  auto list = []() { return begun(Form::LISTING); };
  CHECK(list()(entryOf(EntryKind::SOCKET, "s"))(fileOf("f", MAX_FILE_BYTES))
            .enter("d")(fileOf("g", 5))(Leave())(Done())
            .isFine());
  CHECK(list()(inlinedOf("f", 0)).rule == "a listing has no content");
  CHECK(list()(wanting(0)).rule == "a listing has no content");
  CHECK(list()(fileOf("f", 5)).data(0, 5).rule == "bytes belong to a file");
  CHECK(list()(fileOf("f", 0))(FileEnd()).rule == "bytes belong to a file");
  CHECK(Judge(Form::LISTING)(Totals{1, 0, 0, 0, 1, true}).rule == "a listing is no stream");
}

TEST_CASE("between opener and mover a file may go on as a descriptor, without its bytes") {
  auto in = []() { return kj::mv(begun(Form::OPENER).enter("d")(fileOf("f", 10))); };
  CHECK(in()(fileOf("g", 10))(Leave())(Done()).isFine());
  CHECK(in().data(0, 10)(FileEnd())(Leave())(Done()).isFine());
  CHECK(in()(FileFailed{someProblem()})(Leave())(Done()).isFine());
  CHECK(in().data(0, 5)(Leave()).rule == "nothing comes between a file and its end");
  CHECK(in()(Leave()).data(0, 5).rule == "bytes belong to a file");
}

TEST_CASE("a stream is announced, alone, in order, and ends where it ends") {
  auto in = [](Form form = Form::CHANNEL) { return kj::mv(Judge(form)(Totals{1, 0, 0, 0, 1, true})); };
  CHECK(in()(streamed()).data(0, 7).data(7, 9)(FileEnd())(Done()).isFine());
  CHECK(in(Form::OPENER)(streamed()).data(0, 7)(FileEnd())(Done()).isFine());
  CHECK(in()(streamed())(FileEnd())(Done()).isFine());
  CHECK(in()(Done()).isFine());
  CHECK(in()(streamed()).data(7, 9).rule == "bytes follow each other without gap or overlap");
  CHECK(in()(streamed())(Hole{0, 9}).rule == "a stream is data alone");
  CHECK(in()(fileOf("f", 0)).rule == "a stream is announced as one, and is nothing else");
  CHECK(begun()(streamed()).rule == "a stream is announced as one, and is nothing else");
  CHECK(in().enter("d").rule == "a stream is one file");
  CHECK(in()(streamed())(FileEnd()).fifo("x").rule == "no more tops come than were announced");
}

TEST_CASE("a path for people is bounded, and what is left of a longer one is its end") {
  Judge judge;
  judge(Totals{0, MAX_DEPTH, 0, MAX_DEPTH, 1});
  for (uint32_t i = 0; i < MAX_DEPTH; ++i) judge.enter(std::string(255, 'd').c_str());
  auto path = judge.check.pathOf("name");
  CHECK(path.size() == MAX_PATH_BYTES);
  CHECK(path.endsWith("d/name"));
  CHECK((begun().check.pathOf("name") == "name"));
}

}  // namespace
}  // namespace postern::transfer
