// What decrypted bytes go through: the message assembler and a reader under the limits of rpc-system.h; and the parsers
// of CONFIRM and ACCEPT.
//
// input = u8 mode
//   0       u8 number of sizes | sizes of pieces, in words | a stream of serialised messages
//   1, 2    the bytes of a CONFIRM (1) or an ACCEPT (2)

#include <capnp/any.h>
#include <capnp/serialize.h>
#include <string.h>

#include "protocol/confirmation.h"
#include "protocol/limits.h"
#include "protocol/message-assembler.h"
#include "protocol/rpc-system.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

// Walking -----------------------------------------------------------------------------------------------------------

// Every pointer and every byte that a message has, followed as generic code of the RPC system would.
class Walk {
 public:
  void any(capnp::AnyPointer::Reader pointer) {
    switch (pointer.getPointerType()) {
      case capnp::PointerType::STRUCT:
        return structure(pointer.getAs<capnp::AnyStruct>());
      case capnp::PointerType::LIST:
        return list(pointer.getAs<capnp::AnyList>());
      case capnp::PointerType::NULL_:
      case capnp::PointerType::CAPABILITY:
        return;
    }
  }
  uint64_t bytesSeen() const { return seen; }

 private:
  uint64_t seen = 0;

  void structure(capnp::AnyStruct::Reader reader) {
    look(reader.getDataSection());
    for (auto pointer : reader.getPointerSection()) any(pointer);
  }
  void list(capnp::AnyList::Reader reader) {
    switch (reader.getElementSize()) {
      case capnp::ElementSize::POINTER:
        for (auto pointer : reader.as<capnp::List<capnp::AnyPointer>>()) any(pointer);
        return;
      case capnp::ElementSize::INLINE_COMPOSITE:
        for (auto element : reader.as<capnp::List<capnp::AnyStruct>>()) structure(element);
        return;
      default:
        return look(reader.getRawBytes());
    }
  }
  // Reads each byte, so that AddressSanitizer sees one that is not the message's.
  void look(Bytes bytes) {
    volatile kj::byte sink = 0;
    for (auto b : bytes) sink = static_cast<kj::byte>(sink ^ b);
    seen += bytes.size();
  }
};

void walk(const IncomingMessage& message) {
  auto options = rpcReaderOptions();
  Walk visitor;
  // Most messages of a fuzzer are malformed somewhere; that this is an exception is what is expected.
  (void)kj::runCatchingExceptions([&]() {
    capnp::FlatArrayMessageReader reader(message.words, options);
    visitor.any(reader.getRoot<capnp::AnyPointer>());
  });
  expect(visitor.bytesSeen() <= options.traversalLimitInWords * sizeof(capnp::word),
         "a reader walks no more than its limit");
}

// Assembling --------------------------------------------------------------------------------------------------------

struct Assembled {
  std::deque<IncomingMessage> messages;
  kj::Maybe<MessageError> error;
  bool midMessage = false;
};

// In pieces of the given sizes, in words, over and over.
Assembled assemble(Bytes stream, Bytes sizes) {
  Assembled result;
  MessageAssembler assembler;
  size_t at = 0, piece = 0;
  while (at < stream.size() && result.error == nullptr) {
    size_t size = stream.size();
    if (sizes.size() > 0) size = sizeof(capnp::word) * (sizes[piece++ % sizes.size()] + size_t(1));
    auto storage = copyOf(stream.slice(at, at + std::min(size, stream.size() - at)));
    at += storage.size();
    auto data = storage.asPtr();
    result.error = assembler.add(kj::mv(storage), data, result.messages);
  }
  result.midMessage = assembler.midMessage();
  return result;
}

void judgeMessages(const Assembled& assembled, Bytes stream) {
  size_t at = 0;
  for (auto& message : assembled.messages) {
    auto bytes = message.words.asBytes();
    expect(bytes.size() <= limits::MAX_RPC_MESSAGE_BYTES, "no message is over the limit");
    expect(bytes.size() <= stream.size() - at && memcmp(bytes.begin(), stream.begin() + at, bytes.size()) == 0,
           "messages are the stream, cut");
    at += bytes.size();
  }
  if (assembled.error == nullptr) {
    expect(assembled.midMessage == (at < stream.size()), "what is no whole message yet is kept");
  }
}

void runMessages(Input input) {
  auto sizes = input.take(input.u8());
  auto rest = input.takeAll();
  auto stream = rest.slice(0, rest.size() & ~size_t(7));  // a record's RPC data is whole words
  auto whole = assemble(stream, nullptr);
  auto pieces = assemble(stream, sizes);
  judgeMessages(whole, stream);
  judgeMessages(pieces, stream);
  expect(whole.error == pieces.error, "errors do not depend on the pieces");
  expect(whole.messages.size() == pieces.messages.size(), "messages do not depend on the pieces");
  for (auto& message : pieces.messages) walk(message);
}

// CONFIRM and ACCEPT ------------------------------------------------------------------------------------------------

void runConfirmation(Bytes bytes) {
  KJ_IF_MAYBE (first, parseConfirmation(copyOf(bytes))) {
    auto encoded = encodeConfirmation(*first);
    expect(encoded.size() <= limits::MAX_HANDSHAKE_BODY_BYTES, "a CONFIRM fits a frame before authentication");
    auto again = KJ_ASSERT_NONNULL(parseConfirmation(encoded), "what is encoded parses");
    expect(encodeConfirmation(again) == encoded, "a CONFIRM is the same after another round");
    expect((again.bulk != nullptr) == (first->bulk != nullptr), "the purpose is kept");
  }
}

void runAcceptance(Bytes bytes) {
  KJ_IF_MAYBE (first, parseAcceptance(copyOf(bytes))) {
    auto encoded = encodeAcceptance(*first);
    expect(encoded.size() <= limits::MAX_HANDSHAKE_BODY_BYTES, "an ACCEPT fits a frame before authentication");
    auto again = KJ_ASSERT_NONNULL(parseAcceptance(encoded), "what is encoded parses");
    expect(encodeAcceptance(again) == encoded, "an ACCEPT is the same after another round");
    expect((again.linkSecret != nullptr) == (first->linkSecret != nullptr), "the link secret is kept");
  }
}

void run(Input input) {
  switch (input.u8() % 3) {
    case 0:
      return runMessages(input);
    case 1:
      return runConfirmation(input.takeAll());
    default:
      return runAcceptance(input.takeAll());
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
