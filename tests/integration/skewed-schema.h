#pragma once
// SkewedSchema: protocol/guest.capnp as an older or a newer version has it, read at run time from a file that a test
// has made of the real one. What a newer one has and this version does not know has a name that begins with "later".
//
// SkewedEnd: a whole end of such a version, as a bootstrap capability: it answers every call that its schema has, tells
// each on standard output, and fills in whatever is called "later".

#include <capnp/dynamic.h>
#include <capnp/schema-parser.h>
#include <kj/async.h>
#include <kj/filesystem.h>

namespace postern::test {

class SkewedSchema {
 public:
  // `file` has the schema; what it imports is below `root` and in /usr/include. Absolute paths.
  SkewedSchema(kj::StringPtr file, kj::StringPtr root);

  capnp::InterfaceSchema interface(kj::StringPtr name) const { return parsed.getNested(name).asInterface(); }

 private:
  kj::Own<kj::Filesystem> disk;
  kj::Own<const kj::ReadableDirectory> source, installed;
  const kj::ReadableDirectory* const imports[2];
  capnp::SchemaParser parser;
  const capnp::ParsedSchema parsed;
};

// `schema` outlives it.
capnp::Capability::Client newSkewedEnd(const SkewedSchema& schema, kj::StringPtr interfaceName);

void fillLater(capnp::DynamicStruct::Builder to);

// Calls the method `later` of that interface, if there is one, and tells how that ended.
kj::Promise<void> askLater(const SkewedSchema& schema, kj::StringPtr interfaceName, capnp::Capability::Client of);

void say(kj::StringPtr line);

}  // namespace postern::test
