// postern-bench: prints what the protocol costs, as ratios to what it is built on. README.md says what each row means.

#include <kj/debug.h>
#include <kj/main.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/measurement.h"

namespace postern::bench {

namespace {

struct Measurement {
  kj::StringPtr name;
  void (*run)(const Options&, Report&);
};

const Measurement MEASUREMENTS[] = {
    {"bulk", measureBulk},
    {"file", measureFile},
    {"rpc-pipelined", measurePipelinedRpc},
    {"ping", measurePing},
    {"ping-under-bulk", measurePingUnderBulk},
    {"handshake", measureHandshake},
    {"memory", measureMemory},
    {"policy", measurePolicy},
    {"product-ping", measureProductPing},
};

class BenchMain {
 public:
  explicit BenchMain(kj::ProcessContext& context) : context(context) {}

  kj::MainFunc getMain() {
    return kj::MainBuilder(context, "postern-bench " POSTERN_VERSION,
                           "Measures the protocol against what it is built on. Exits 1 when a target was missed.")
        .addOptionWithArg({"only"}, KJ_BIND_METHOD(*this, addOnly), "<name>",
                          "Only this measurement: bulk, file, rpc-pipelined, ping, ping-under-bulk, handshake, memory, "
                          "policy or product-ping. May be given several times.")
        .addOptionWithArg({"runs"}, KJ_BIND_METHOD(*this, setRuns), "<n>", "Runs of each measurement; 5 if not given.")
        .addOption({"json"}, KJ_BIND_METHOD(*this, setJson), "Prints JSON in place of a table.")
        .addOption({"quick"}, KJ_BIND_METHOD(*this, setQuick),
                   "Little work, only to see that everything runs: the numbers mean nothing, and a missed target does "
                   "not count.")
        .callAfterParsing(KJ_BIND_METHOD(*this, run))
        .build();
  }

 private:
  kj::ProcessContext& context;
  kj::Vector<const Measurement*> chosen;
  uint runs = 5;
  bool json = false;
  Options options;

  kj::MainBuilder::Validity addOnly(kj::StringPtr name) {
    for (auto& measurement : MEASUREMENTS) {
      if (measurement.name == name) {
        chosen.add(&measurement);
        return true;
      }
    }
    return "no such measurement";
  }

  kj::MainBuilder::Validity setRuns(kj::StringPtr text) {
    char* end;
    unsigned long number = strtoul(text.cStr(), &end, 10);
    if (*end == '\0' && number >= 1 && number <= 1000) {
      runs = static_cast<uint>(number);
      return true;
    }
    return "a number from 1 to 1000";
  }

  kj::MainBuilder::Validity setJson() {
    json = true;
    return true;
  }
  kj::MainBuilder::Validity setQuick() {
    options.quick = true;
    return true;
  }

  kj::MainBuilder::Validity run() {
    KJ_REQUIRE(sodium_init() >= 0);
    if (chosen.empty()) {
      for (auto& measurement : MEASUREMENTS) chosen.add(&measurement);
    }
    Report report;
    for (auto* measurement : chosen) {
      for (uint i = 0; i < runs; ++i) {
        fprintf(stderr, "%s: run %u of %u\n", measurement->name.cStr(), i + 1, runs);
        measurement->run(options, report);
      }
    }
    auto text = json ? report.asJson() : report.asTable();
    fputs(text.cStr(), stdout);
    fflush(stdout);
    if (!options.quick && !report.isMet()) context.exitError("a target was missed");
    return true;
  }
};

}  // namespace

}  // namespace postern::bench

KJ_MAIN(postern::bench::BenchMain)
