// The bytes of one small transfer. Later versions must keep speaking to what is out there, so these never change;
// docs/PROTOCOL.md quotes them, and the last test holds it to that.
#include <kj/encoding.h>
#include <stdio.h>

#include "protocol/transfer/opener-message.h"
#include "tests/unit/protocol/transfer-fixture.h"

namespace postern::transfer {
namespace {

const char* const TOTALS =
    "6000000000000000000000000300020000000000000000000000000000000000000000000000000004000000060000000000000000000000"
    "020000000000000000000000000000000700000000000000000000000200000000000000000000000000000000000000";
const char* const INLINED =
    "a000000002000000000000000300020001000000000000000000000000000000000000000000000004000000060007000000000000000000"
    "0000a4010500000000f15365000000000000000000000000020000000000000002000000000000000000000000000000190000000a000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000006100000000000000"
    "6869000000000000";
const char* const LARGE =
    "a000000000000000000000000300020001000000000000000000000000000000000000000000000004000000060007000000000000000000"
    "0000a4010500000000f15365000000000000000000000000050000000000000000000000000000000000000000000000190000000a000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000006200000000000000";
const char* const DATA =
    "3000000005000000000000000300020002000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "3132333435000000";
const char* const FILE_END =
    "3000000000000000000000000300020005000000000000000000000000000000000000000000000000000000000000000000000000000000";
const char* const DONE =
    "3000000000000000000000000300020009000000000000000000000000000000000000000000000000000000000000000000000000000000";
const char* const READY =
    "3000000000000000000000000300020001000000000000000000000000000000000000000000000000000000000000000000000000000000";
const char* const FINISHED =
    "6000000000000000000000000300020000000600000000000000000000000000000000000000000004000000060000000000000000000000"
    "020000000000000000000000000000000700000000000000070000000000000000000000000000000000000000000000";

std::string hex(kj::ArrayPtr<const kj::byte> bytes) {
  return kj::encodeHex(bytes).cStr();
}

// "hi" in a file `a` and five bytes of a file `b` that is not inlined.
TEST_CASE("the frames of a small transfer have the bytes that they have had from the first version on") {
  auto described = [](Entry entry) {
    entry.mode = 0644;
    entry.modifiedSeconds = 1'700'000'000;
    entry.modifiedNanoseconds = 5;
    return entry;
  };
  CHECK(hex(frameOf(forward(Totals{2, 0, 7, 0, 2}))) == TOTALS);
  CHECK(hex(frameOf(forward(described(inlinedOf("a", 2))), "hi"_kj.asBytes())) == INLINED);
  CHECK(hex(frameOf(forward(described(fileOf("b", 5))))) == LARGE);
  CHECK(hex(frameOf(forward(Data{0}), "12345"_kj.asBytes())) == DATA);
  CHECK(hex(frameOf(forward(FileEnd()))) == FILE_END);
  CHECK(hex(frameOf(forward(Done()))) == DONE);
  CHECK(hex(frameOf(backward(Ready{true}))) == READY);
  CHECK(hex(frameOf(backward(Summary{2, 0, 7, 7, 0, 0}))) == FINISHED);
}

TEST_CASE("docs/PROTOCOL.md quotes every frame of the small transfer") {
  FILE* file = fopen("docs/PROTOCOL.md", "r");
  REQUIRE(file != nullptr);
  std::string document;
  for (int c = getc(file); c != EOF; c = getc(file)) {
    if (c != ' ' && c != '\n') document.push_back(static_cast<char>(c));
  }
  fclose(file);
  for (auto frame : {TOTALS, INLINED, LARGE, DATA, FILE_END, DONE, READY, FINISHED}) {
    INFO(std::string(frame));
    CHECK(document.find(frame) != std::string::npos);
  }
}

}  // namespace
}  // namespace postern::transfer
