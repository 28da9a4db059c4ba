#include "tests/integration/skewed-schema.h"

#include <stdio.h>

namespace postern::test {

namespace {

using capnp::DynamicCapability;
using capnp::DynamicStruct;

kj::Path absolute(kj::StringPtr path) {
  return kj::Path(nullptr).eval(path);
}

class SkewedEnd final : public DynamicCapability::Server {
 public:
  SkewedEnd(const SkewedSchema& schema, kj::StringPtr name)
      : DynamicCapability::Server(schema.interface(name)), schema(schema) {}

  kj::Promise<void> call(capnp::InterfaceSchema::Method method,
                         capnp::CallContext<DynamicStruct, DynamicStruct> context) override {
    auto name = method.getProto().getName();
    say(kj::str("called ", name));
    auto results = context.getResults();
    fillLater(results);
    if (name == "callsFor") {
      auto calls = newSkewedEnd(schema, "GuestCalls");
      results.set("calls", calls.castAs<DynamicCapability>(schema.interface("GuestCalls")));
    }
    if (name == "heartbeat") results.set("intervalMilliseconds", 500);
    if (name == "info") fillLater(results.init("info").as<DynamicStruct>());
    return kj::READY_NOW;
  }

 private:
  const SkewedSchema& schema;
};

}  // namespace

SkewedSchema::SkewedSchema(kj::StringPtr file, kj::StringPtr root)
    : disk(kj::newDiskFilesystem()),
      source(disk->getRoot().openSubdir(absolute(root))),
      installed(disk->getRoot().openSubdir(absolute("/usr/include"))),
      imports{source.get(), installed.get()},
      parsed(parser.parseFromDirectory(disk->getRoot(), absolute(file), imports)) {}

capnp::Capability::Client newSkewedEnd(const SkewedSchema& schema, kj::StringPtr interfaceName) {
  return DynamicCapability::Client(kj::heap<SkewedEnd>(schema, interfaceName));
}

void fillLater(DynamicStruct::Builder to) {
  for (auto field : to.getSchema().getFields()) {
    if (!field.getProto().getName().startsWith("later")) continue;
    if (field.getType().isText()) {
      to.set(field, "of a later version");
    } else {
      to.set(field, ~uint64_t(0));
    }
  }
}

kj::Promise<void> askLater(const SkewedSchema& schema, kj::StringPtr interfaceName, capnp::Capability::Client of) {
  auto interface = schema.interface(interfaceName);
  if (interface.findMethodByName("later") == nullptr) return kj::READY_NOW;
  auto request = of.castAs<DynamicCapability>(interface).newRequest("later");
  fillLater(request);
  return request.send().then(
      [](capnp::Response<DynamicStruct>&&) { say("later: answered"); },
      [](kj::Exception&& e) {
        say(e.getType() == kj::Exception::Type::UNIMPLEMENTED ? "later: unimplemented"_kj : "later: failed"_kj);
      });
}

void say(kj::StringPtr line) {
  printf("%s\n", line.cStr());
  fflush(stdout);
}

}  // namespace postern::test
