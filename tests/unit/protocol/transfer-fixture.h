#pragma once
// Messages of a transfer, and the shortest way to make, send and judge them.

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <string.h>

#include <string>

#include "protocol/transfer/entry.h"
#include "protocol/transfer/progress.h"

namespace postern::transfer {

inline kj::Array<kj::byte> bytesOf(size_t size, kj::byte fill = 'x') {
  auto result = kj::heapArray<kj::byte>(size);
  memset(result.begin(), fill, size);
  return result;
}
inline kj::Array<kj::byte> hashOf(kj::byte fill) {
  return bytesOf(HASH_BYTES, fill);
}

inline Entry entryOf(EntryKind kind, kj::StringPtr name) {
  Entry entry;
  entry.kind = kind;
  entry.name = kj::heapString(name);
  return entry;
}
inline Entry fileOf(kj::StringPtr name, uint64_t size) {
  auto entry = entryOf(EntryKind::FILE, name);
  entry.size = size;
  return entry;
}
inline Entry inlinedOf(kj::StringPtr name, uint64_t size) {
  auto entry = fileOf(name, size);
  entry.inlined = true;
  return entry;
}

// Every field that its kind may have, with something in it.
inline Entry fullEntry(EntryKind kind) {
  auto entry = entryOf(kind, "na\xffme\n");
  entry.mode = 07654;
  entry.modifiedSeconds = -5;
  entry.modifiedNanoseconds = 999'999'999;
  entry.uid = 1000;
  entry.gid = 4'000'000'000;
  entry.owner = kj::str("alice");
  entry.group = kj::str("users");
  entry.attributes.add(Attribute{kj::str("user.comment"), bytesOf(3)});
  entry.attributes.add(Attribute{kj::str("system.posix_acl_access"), nullptr});
  if (kind == EntryKind::SYMBOLIC_LINK) entry.target = kj::str("../where");
  if (kind == EntryKind::CHARACTER_DEVICE || kind == EntryKind::BLOCK_DEVICE) {
    entry.deviceMajor = 8;
    entry.deviceMinor = 1;
  }
  if (kind == EntryKind::HARD_LINK) {
    for (auto part : {"top", "dir", "file"}) entry.linkTo.add(kj::str(part));
  }
  return entry;
}

inline Problem someProblem() {
  return {ProblemKind::DENIED, kj::str("no such luck"), kj::str("no-keys")};
}

// A frame of one message.
inline kj::Array<kj::byte> frameOf(const Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
  FrameBuilder builder;
  write(message, builder.init<schema::Forward>());
  return builder.toArray(content);
}
inline kj::Array<kj::byte> frameOf(const Backward& message) {
  FrameBuilder builder;
  write(message, builder.init<schema::Backward>());
  return builder.toArray();
}

template <typename T>
Forward forward(T&& message) {
  Forward result;
  result.init<kj::Decay<T>>(kj::fwd<T>(message));
  return result;
}
template <typename T>
Backward backward(T&& message) {
  Backward result;
  result.init<kj::Decay<T>>(kj::fwd<T>(message));
  return result;
}

// One tree with everything in it: totals, directories, links, devices, inlined and large files, failures, done.
inline kj::Array<kj::byte> sampleForward() {
  kj::Vector<kj::byte> out;
  auto add = [&](const Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
    out.addAll(frameOf(message, content));
  };
  auto small = bytesOf(11);
  add(forward(Totals{6, 2, 700'000, 2, 5}));
  add(forward(fullEntry(EntryKind::DIRECTORY)));
  auto inlined = inlinedOf("small", small.size());
  inlined.hash = hashOf(7);
  add(forward(kj::mv(inlined)), small);
  add(forward(entryOf(EntryKind::DIRECTORY, "inner")));
  add(forward(fullEntry(EntryKind::SYMBOLIC_LINK)));
  add(forward(EntryFailed{kj::str("secret"), someProblem()}));
  add(forward(Leave()));
  add(forward(Leave()));
  auto large = fileOf("large", CHUNK_BYTES + 100);
  large.hasLinks = large.wantsBase = true;
  add(forward(kj::mv(large)));
  add(forward(Same{0, CHUNK_BYTES}));
  add(forward(Data{CHUNK_BYTES}), bytesOf(37));
  add(forward(Hole{CHUNK_BYTES + 37, 63}));
  add(forward(FileEnd{hashOf(9)}));
  add(forward(fileOf("broken", 100)));
  add(forward(FileFailed{problem(ProblemKind::CHANGED, kj::str("it grew"))}));
  add(forward(fullEntry(EntryKind::HARD_LINK)));
  add(forward(fullEntry(EntryKind::CHARACTER_DEVICE)));
  add(forward(Done()));
  return out.releaseAsArray();
}

inline kj::Array<kj::byte> sampleBackward() {
  kj::Vector<kj::byte> out;
  out.addAll(frameOf(backward(Ready{true})));
  out.addAll(frameOf(backward(Base{CHUNK_BYTES * 3})));
  out.addAll(frameOf(backward(Hashes{bytesOf(3 * HASH_BYTES)})));
  out.addAll(frameOf(backward(DestinationFailed{1, kj::str("dir/sm\nall"), someProblem()})));
  out.addAll(frameOf(backward(Progress{2, 1 << 20})));
  out.addAll(frameOf(backward(Summary{2, 1, 3000, 2000, 1, 1})));
  return out.releaseAsArray();
}

// What is wrong, or nothing.
inline std::string ruleOf(const kj::Maybe<FrameError>& error) {
  KJ_IF_MAYBE (e, error) return e->rule.cStr();
  return "";
}
template <typename T>
std::string ruleOf(const kj::OneOf<T, FrameError>& parsed) {
  KJ_IF_MAYBE (e, parsed.template tryGet<FrameError>()) return e->rule.cStr();
  return "";
}

}  // namespace postern::transfer
