#include "protocol/transfer/opener-message.h"
#include "tests/fuzz/seed.h"

namespace postern::fuzz {

namespace {

using namespace transfer;

kj::Array<kj::byte> filled(size_t size, kj::byte byte) {
  auto result = kj::heapArray<kj::byte>(size);
  for (auto& b : result) b = byte;
  return result;
}

Entry entryOf(EntryKind kind, kj::StringPtr name) {
  Entry entry;
  entry.kind = kind;
  entry.name = kj::heapString(name);
  entry.mode = 0644;
  entry.modifiedSeconds = 1'700'000'000;
  return entry;
}

Problem someProblem() {
  return {ProblemKind::DENIED, kj::str("no"), kj::str("r")};
}

// A seed and what it is made with.
class Stream {
 public:
  explicit Stream(uint8_t flags, uint8_t sent = 0) : seed(flags, sent, 2, 5, 40) {}

  template <typename Message>
  Stream& forward(Message message, kj::ArrayPtr<const kj::byte> content = nullptr) {
    write(Forward(kj::mv(message)), builder.init<schema::Forward>());
    return add(content);
  }
  template <typename Message>
  Stream& backward(Message message) {
    write(Backward(kj::mv(message)), builder.init<schema::Backward>());
    return add(nullptr);
  }
  template <typename Schema, typename Fill>
  Stream& other(Fill&& fill) {
    fill(builder.init<Schema>());
    return add(nullptr);
  }
  Stream& add(kj::ArrayPtr<const kj::byte> content) {
    seed.add(builder.toArray(content));
    return *this;
  }

  Seed seed;

 private:
  FrameBuilder builder;
};

void writeForward(SeedFolder& folder) {
  Stream tree(0);
  auto file = entryOf(EntryKind::FILE, "small");
  file.size = 5;
  file.inlined = true;
  file.hash = filled(HASH_BYTES, 7);
  auto link = entryOf(EntryKind::SYMBOLIC_LINK, "link");
  link.target = kj::str("../x");
  auto hard = entryOf(EntryKind::HARD_LINK, "hard");
  hard.linkTo.add(kj::str("dir"));
  hard.linkTo.add(kj::str("small"));
  tree.forward(Totals{3, 1, 5, 1, 3}).forward(entryOf(EntryKind::DIRECTORY, "dir"));
  tree.forward(kj::mv(file), filled(5, 'x')).forward(kj::mv(link));
  tree.forward(EntryFailed{kj::str("gone"), someProblem()}).forward(Leave()).forward(kj::mv(hard)).forward(Done());
  folder.write("tree", tree.seed);

  Stream large(16);
  auto announced = entryOf(EntryKind::FILE, "large");
  announced.size = CHUNK_BYTES + 30;
  announced.wantsBase = true;
  announced.hasLinks = true;
  large.forward(Totals{1, 0, CHUNK_BYTES + 30, 0, 1}).forward(kj::mv(announced)).forward(Same{0, CHUNK_BYTES});
  large.forward(Data{CHUNK_BYTES}, filled(10, 'd')).forward(Hole{CHUNK_BYTES + 10, 20});
  large.forward(FileEnd{filled(HASH_BYTES, 3)}).forward(Done());
  folder.write("large-file-with-base", large.seed);

  Stream attributes(0);
  auto full = entryOf(EntryKind::BLOCK_DEVICE, "disk");
  full.owner = kj::str("root");
  full.group = kj::str("disk");
  full.deviceMajor = 8;
  full.attributes.add(Attribute{kj::str("user.a"), filled(4, 'v')});
  full.attributes.add(Attribute{kj::str("system.posix_acl_access"), nullptr});
  attributes.forward(Totals{1, 0, 0, 0, 1}).forward(kj::mv(full)).forward(Done());
  folder.write("device-with-attributes", attributes.seed);

  Stream stream(0);
  auto standardInput = entryOf(EntryKind::FILE, "-");
  standardInput.stream = true;
  stream.forward(Totals{1, 0, 0, 0, 1, true}).forward(kj::mv(standardInput)).forward(Data{0}, filled(9, 's'));
  stream.forward(FileEnd()).forward(Done());
  folder.write("standard-input", stream.seed);

  Stream listing(8);
  auto listed = entryOf(EntryKind::FILE, "listed");
  listed.size = MAX_FILE_BYTES;
  listing.forward(Totals{2, 1, 0, 1, 1}).forward(entryOf(EntryKind::DIRECTORY, "d")).forward(kj::mv(listed));
  listing.forward(entryOf(EntryKind::SOCKET, "s")).forward(Leave()).forward(Done());
  folder.write("listing", listing.seed);

  Stream failed(0);
  auto broken = entryOf(EntryKind::FILE, "broken");
  broken.size = 9;
  failed.forward(Totals{1, 0, 9, 0, 1}).forward(kj::mv(broken)).forward(FileFailed{someProblem()}).forward(Done());
  folder.write("file-failed", failed.seed);
}

void writeBackward(SeedFolder& folder) {
  Stream all(1, 6);
  all.backward(Ready{true}).backward(Base{2 * CHUNK_BYTES}).backward(Hashes{filled(2 * HASH_BYTES, 1)});
  all.backward(DestinationFailed{1, kj::str("a/b"), someProblem()}).backward(Progress{2, 100});
  all.backward(Summary{3, 1, 100, 50, 1, 1});
  folder.write("all-that-comes-back", all.seed);
  Stream refused(1);
  folder.write("refused", refused.backward(Refused{someProblem()}).seed);
}

void writeOpeners(SeedFolder& folder) {
  Stream toMover(4 + 2);
  toMover.other<schema::ToMover>([](auto message) { write(Forward(Totals{1, 0, 9, 0, 1}), message.initForward()); });
  toMover.other<schema::ToMover>([](auto message) {
    auto file = entryOf(EntryKind::FILE, "by-descriptor");
    file.size = 9;
    write(Forward(kj::mv(file)), message.initForward());
  });
  toMover.other<schema::ToMover>([](auto message) { write(Opened{1, true, true}, message.initOpened()); });
  toMover.other<schema::ToMover>([](auto message) { write(Forward(Done()), message.initForward()); });
  folder.write("opener-to-mover", toMover.seed);

  Stream toOpener(3, 2);
  toOpener.other<schema::ToOpener>([](auto message) { write(Backward(Ready{false}), message.initBackward()); });
  toOpener.other<schema::ToOpener>([](auto message) { write(Commit{1, someProblem(), false}, message.initCommit()); });
  toOpener.other<schema::ToOpener>([](auto message) { write(Commit{2, Whole(), true}, message.initCommit()); });
  toOpener.other<schema::ToOpener>([](auto message) { message.setSent(77); });
  folder.write("mover-to-opener", toOpener.seed);
}

}  // namespace

void writeTransferSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "transfer");
  writeForward(folder);
  writeBackward(folder);
  writeOpeners(folder);
  Stream padding(0);
  padding.forward(Totals{1, 0, 1, 0, 1});
  folder.write("bad-padding", padding.seed.u32(8).u32(1).u32(0).u32(0).u8('c', 1, 0, 0, 0, 0, 0, 0));
  folder.write("over-the-bound", Seed(0, 0, 0).u32(uint32_t(MAX_MESSAGE_BYTES) + 8).u32(0).u32(0));
}

}  // namespace postern::fuzz
