#pragma once
// LibvirtDomain: what `enroll --libvirt` has postern-libvirt do to a domain: as this user, with the rights that this
// user has at libvirtd. Every failure ends the command.

#include "host/cli/invocation.h"

namespace postern::cli {

class LibvirtDomain {
 public:
  struct Found {
    kj::String uuid;
    kj::String guestTransport;  // where the guest finds the host; empty: it finds it by itself
  };
  struct Prepared {
    kj::Vector<kj::String> did;
    kj::String restart;  // why the domain, as it runs, does not suffice; empty: it does, or is off
  };

  // Ends the command if postern-libvirt is not installed beside this program.
  LibvirtDomain(Invocation& run, kj::StringPtr name);

  Found inspect();
  Prepared prepare(kj::StringPtr bundleFile);

 private:
  Invocation& run;
  const kj::String name;
  const kj::String program;

  using Line = kj::Function<void(kj::StringPtr key, kj::StringPtr value)>;
  void call(kj::ArrayPtr<const kj::StringPtr> words, Line line);
};

kj::String toText(const LibvirtDomain::Prepared& prepared);
void writeFields(JsonWriter& json, const LibvirtDomain::Prepared& prepared);

}  // namespace postern::cli
