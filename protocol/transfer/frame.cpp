#include "protocol/transfer/frame.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>

#include "protocol/wire-int.h"

namespace postern::transfer {

namespace {

constexpr size_t WORD = sizeof(capnp::word);

struct Header {
  size_t messageBytes;
  size_t contentBytes;

  size_t padding() const { return (WORD - contentBytes % WORD) % WORD; }
  size_t contentOffset() const { return FRAME_HEADER_BYTES + messageBytes; }
  size_t frameBytes() const { return contentOffset() + contentBytes + padding(); }
};

Header headerOf(kj::ArrayPtr<const kj::byte> bytes) {
  return {getLittleEndian<uint32_t>(bytes.begin()), getLittleEndian<uint32_t>(bytes.begin() + 4)};
}

kj::Maybe<FrameError> wrongWith(const Header& header) {
  if (header.messageBytes == 0) return FrameError{"a frame has a message"};
  if (header.messageBytes % WORD != 0) return FrameError{"a frame's message is whole words"};
  if (header.messageBytes > MAX_MESSAGE_BYTES) return FrameError{"a frame's message is at most MAX_MESSAGE_BYTES"};
  if (header.contentBytes > DATA_BYTES) return FrameError{"a frame's content is at most DATA_BYTES"};
  return nullptr;
}

bool isZero(kj::ArrayPtr<const kj::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](kj::byte b) { return b == 0; });
}

bool isAligned(const kj::byte* at) {
  return reinterpret_cast<uintptr_t>(at) % WORD == 0;
}

kj::ArrayPtr<const capnp::word> wordsAt(const kj::byte* at, size_t bytes) {
  return kj::arrayPtr(reinterpret_cast<const capnp::word*>(at), bytes / WORD);
}

// As much as the message has, and as much again for a caller that looks at a part of it before it reads all.
// T70
capnp::ReaderOptions limitsFor(kj::ArrayPtr<const capnp::word> message) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * message.size() + 64;
  options.nestingLimit = 8;
  return options;
}

}  // namespace

FrameView::FrameView(kj::ArrayPtr<const kj::byte> frame, kj::ArrayPtr<const capnp::word> message)
    : frame(frame), segment{message}, reader(kj::arrayPtr(segment, 1), limitsFor(message)) {
  auto header = headerOf(frame);
  contentBytes = frame.slice(header.contentOffset(), header.contentOffset() + header.contentBytes);
}

kj::OneOf<size_t, FrameError> frameBytes(kj::ArrayPtr<const kj::byte> untrustedHeader) {
  KJ_REQUIRE(untrustedHeader.size() >= FRAME_HEADER_BYTES);
  auto header = headerOf(untrustedHeader);
  KJ_IF_MAYBE (error, wrongWith(header)) return *error;
  return header.frameBytes();
}

FrameBuilder::FrameBuilder() {
  memset(static_cast<void*>(scratch), 0, sizeof(scratch));
}

capnp::MallocMessageBuilder& FrameBuilder::fresh() {
  joined = nullptr;
  message = nullptr;  // zeroes what it used of the scratch
  return message.emplace(kj::arrayPtr(scratch, kj::size(scratch)));
}

kj::ArrayPtr<const kj::byte> FrameBuilder::segment() {
  auto& made = KJ_REQUIRE_NONNULL(message, "init() comes first");
  KJ_IF_MAYBE (whole, joined) return whole->getSegmentsForOutput()[0].asBytes();
  auto segments = made.getSegmentsForOutput();
  if (segments.size() == 1) return segments[0].asBytes();
  size_t words = 1;
  for (auto segment : segments) words += segment.size();
  auto& whole = joined.emplace(unsigned(words), capnp::AllocationStrategy::FIXED_SIZE);
  whole.setRoot(made.getRoot<capnp::AnyPointer>().asReader());
  auto result = whole.getSegmentsForOutput();
  KJ_ASSERT(result.size() == 1);
  return result[0].asBytes();
}

size_t FrameBuilder::bytes(size_t contentBytes) {
  return Header{segment().size(), contentBytes}.frameBytes();
}

size_t FrameBuilder::contentOffset() {
  return FRAME_HEADER_BYTES + segment().size();
}

size_t FrameBuilder::close(kj::ArrayPtr<kj::byte> out, size_t contentBytes) {
  auto words = segment();
  Header header{words.size(), contentBytes};
  KJ_REQUIRE(wrongWith(header) == nullptr, words.size(), contentBytes);
  size_t total = header.frameBytes();
  KJ_REQUIRE(out.size() >= total);
  putLittleEndian(uint32_t(words.size()), out.begin());
  putLittleEndian(uint32_t(contentBytes), out.begin() + 4);
  memcpy(out.begin() + FRAME_HEADER_BYTES, words.begin(), words.size());
  memset(out.begin() + total - header.padding(), 0, header.padding());
  return total;
}

size_t FrameBuilder::put(kj::ArrayPtr<kj::byte> out, kj::ArrayPtr<const kj::byte> content) {
  KJ_REQUIRE(out.size() >= bytes(content.size()));
  auto place = out.begin() + contentOffset();
  if (content.size() > 0 && content.begin() != place) memcpy(place, content.begin(), content.size());
  return close(out, content.size());
}

kj::Array<kj::byte> FrameBuilder::toArray(kj::ArrayPtr<const kj::byte> content) {
  auto result = kj::heapArray<kj::byte>(bytes(content.size()));
  put(result, content);
  return result;
}

// T66
FrameReader::Next FrameReader::next(kj::ArrayPtr<const kj::byte>& bytes) {
  if (have > 0 || bytes.size() < FRAME_HEADER_BYTES) return keep(bytes);
  auto header = headerOf(bytes);
  KJ_IF_MAYBE (error, wrongWith(header)) return Next(*error);
  size_t total = header.frameBytes();
  if (bytes.size() < total) return keep(bytes);
  auto frame = bytes.slice(0, total);
  bytes = bytes.slice(total, bytes.size());
  auto message = frame.begin() + FRAME_HEADER_BYTES;
  if (!isAligned(message)) {
    auto copy = room(header.messageBytes);
    memcpy(copy, message, header.messageBytes);
    message = copy;
  }
  return hand(frame, wordsAt(message, header.messageBytes));
}

// Into the buffer: a header first, which says how much belongs to it.
FrameReader::Next FrameReader::keep(kj::ArrayPtr<const kj::byte>& bytes) {
  if (have < FRAME_HEADER_BYTES && !fill(bytes, FRAME_HEADER_BYTES)) return nullptr;
  auto header = headerOf(buffer.asBytes());
  KJ_IF_MAYBE (error, wrongWith(header)) return Next(*error);
  if (!fill(bytes, header.frameBytes())) return nullptr;
  have = 0;
  auto frame = buffer.asBytes().slice(0, header.frameBytes());
  return hand(frame, wordsAt(frame.begin() + FRAME_HEADER_BYTES, header.messageBytes));
}

FrameReader::Next FrameReader::hand(kj::ArrayPtr<const kj::byte> frame, kj::ArrayPtr<const capnp::word> message) {
  auto header = headerOf(frame);
  if (!isZero(frame.slice(frame.size() - header.padding(), frame.size()))) {
    return Next(FrameError{"a frame's padding is zero"});
  }
  return Next(&view.emplace(frame, message));
}

bool FrameReader::fill(kj::ArrayPtr<const kj::byte>& bytes, size_t until) {
  size_t n = std::min(until - have, bytes.size());
  if (n > 0) memcpy(room(until) + have, bytes.begin(), n);
  have += n;
  bytes = bytes.slice(n, bytes.size());
  return have == until;
}

// The buffer with room for so many bytes; what it holds stays.
kj::byte* FrameReader::room(size_t bytes) {
  size_t words = (bytes + WORD - 1) / WORD;
  if (buffer.size() < words) {
    auto larger = kj::heapArray<capnp::word>(words);
    if (have > 0) memcpy(static_cast<void*>(larger.begin()), buffer.begin(), have);
    buffer = kj::mv(larger);
  }
  return buffer.asBytes().begin();
}

}  // namespace postern::transfer
