// noise-vectors FILE: runs every vector of a file in cacophony's JSON format through both sides of the Noise engine.
// The last line is "N passed, N failed, N skipped". Exit status: 0 all passed (and some were run), 1 some failed or
// none was run, 2 the file cannot be read or is no such JSON.

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include <map>
#include <string>

#include "tests/noise/vector-run.h"

namespace postern::noise {
namespace {

kj::String readFile(const char* path) {
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) kj::throwRecoverableException(KJ_EXCEPTION(FAILED, "cannot open", strerror(errno)));
  kj::FdInputStream stream{kj::AutoCloseFd(descriptor)};
  return stream.readAllText();
}

void parse(kj::StringPtr text, vectors::File::Builder out) {
  capnp::JsonCodec codec;
  codec.handleByAnnotation<vectors::File>();
  // Some files are the bare list.
  size_t start = strspn(text.cStr(), " \t\r\n");
  if (text[start] == '[') {
    codec.decode(kj::str("{\"vectors\":", text, "}"), out);
  } else {
    codec.decode(text, out);
  }
  KJ_REQUIRE(out.hasVectors(), "no vectors in it");
}

struct Tally {
  unsigned passed = 0;
  unsigned failed = 0;
  unsigned skipped = 0;
  std::map<std::string, unsigned> skippedFor;
};

void judge(vectors::Vector::Reader vector, Tally& tally) {
  auto name = vector.hasProtocolName() ? vector.getProtocolName() : vector.getName();
  auto protocol = parseProtocol(name);
  KJ_IF_MAYBE (reason, protocol.tryGet<kj::StringPtr>()) {
    ++tally.skipped;
    ++tally.skippedFor[reason->cStr()];
    return;
  }
  KJ_IF_MAYBE (problem, kj::runCatchingExceptions([&]() { runVector(protocol.get<Protocol>(), vector); })) {
    ++tally.failed;
    fprintf(stderr, "noise-vectors: %s: %s\n", name.cStr(), problem->getDescription().cStr());
    return;
  }
  ++tally.passed;
}

int run(const char* path) {
  capnp::MallocMessageBuilder message;
  auto file = message.initRoot<vectors::File>();
  KJ_IF_MAYBE (problem, kj::runCatchingExceptions([&]() { parse(readFile(path), file); })) {
    fprintf(stderr, "noise-vectors: %s: not a file of test vectors: %s\n", path, problem->getDescription().cStr());
    return 2;
  }

  Tally tally;
  for (auto vector : file.asReader().getVectors()) judge(vector, tally);
  for (auto& [reason, count] : tally.skippedFor) printf("skipped %u: %s\n", count, reason.c_str());
  printf("%u passed, %u failed, %u skipped\n", tally.passed, tally.failed, tally.skipped);
  return tally.failed == 0 && tally.passed > 0 ? 0 : 1;
}

}  // namespace
}  // namespace postern::noise

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: noise-vectors FILE\n");
    return 2;
  }
  if (sodium_init() < 0) {
    fprintf(stderr, "noise-vectors: libsodium does not start\n");
    return 2;
  }
  return postern::noise::run(argv[1]);
}
