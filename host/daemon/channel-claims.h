#pragma once
// What a session process says of channels, as checked values. The process parses a hostile guest, so all of it is a
// claim about its one VM: numbers are bounded here, names are names, and words are ours.

#include <kj/map.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>

#include "host/daemon/local-callers.h"
#include "host/session/session-control.capnp.h"

namespace postern::host {

// Of channels that live at the same time, in one VM: as many as a link has room for.
constexpr unsigned MAX_CHANNELS_PER_VM = 4096;
constexpr unsigned MAX_CLAIMED_RULES = 256;

// control.capnp's Traffic.
struct ChannelTraffic {
  uint64_t bytesThere = 0;
  uint64_t bytesBack = 0;
  uint64_t messagesThere = 0;
  uint64_t messagesBack = 0;
  uint64_t throttledNanoseconds = 0;

  ChannelTraffic operator+(const ChannelTraffic& other) const;
  void write(schema::Traffic::Builder to) const;
};
ChannelTraffic parseTraffic(schema::Traffic::Reader untrusted);

// Of each channel that lives, by id.
using LiveTraffic = kj::HashMap<uint64_t, ChannelTraffic>;
LiveTraffic parseLiveTraffic(capnp::List<schema::ChannelTraffic>::Reader untrusted);

// What a guest asks for.
struct ChannelQuestion {
  uint64_t id;
  kj::String to;  // a VM's name, which may be nobody's; empty: the host
  kj::String service;
  schema::SessionObserver::Entrance::Client entrance = nullptr;  // may be none that works
};
// Null: a name is none.
kj::Maybe<ChannelQuestion> parseQuestion(schema::SessionObserver::ConnectParams::Reader untrusted);

struct ChannelClosing {
  uint64_t id;
  kj::StringPtr why;  // one of the schema's words, or "ended"
  kj::Duration took;
  ChannelTraffic traffic;
};
ChannelClosing parseClosing(schema::SessionObserver::ChannelClosedParams::Reader untrusted);

// For a program of the host, or (grant 0) of questions that were too many.
struct ChannelRefusal {
  uint64_t grant;
  kj::String service;  // a name, or empty
  kj::String why;
  uint64_t count;  // at least 1
};
ChannelRefusal parseRefusal(schema::SessionObserver::ChannelRefusedParams::Reader untrusted);

// Counters since the process began.
struct PassClaim {
  uint64_t opened = 0;
  uint64_t refused = 0;
  uint64_t active = 0;
  ChannelTraffic traffic;

  PassClaim operator+(const PassClaim& other) const;
};
struct RuleClaim {
  kj::String rule;
  PassClaim counters;
};
struct PortClaim {
  PassClaim counters;
  uint64_t mirrorDropped = 0;
  kj::Vector<RuleClaim> rules;  // at most MAX_CLAIMED_RULES, each id once
};
PortClaim parsePortClaim(schema::SessionObserver::TrafficParams::Reader untrusted);

// A channel that an earlier posternd allowed.
struct ChannelClaim {
  uint64_t id;
  enum class Way : uint8_t {
    ASKED,     // by this VM's guest; `to` says of whom
    FROM_VM,   // of the VM `from`, to this VM
    FROM_HOST  // of a program of the host, to this VM
  } way;
  kj::String to;                                 // a VM's name; empty: the host
  kj::String from;                               // a VM's name
  kj::Maybe<kj::Own<const LocalCaller>> caller;  // as the process was told; never an administrator
  kj::String service;
  kj::String rule;
  kj::String mirror;  // ServiceTerms::mirrorText(), or what is not
  kj::Duration openFor;
};
struct ChannelClaims {
  kj::Vector<ChannelClaim> good;
  kj::Vector<uint64_t> bad;  // that make no sense
};
ChannelClaims parseChannels(capnp::List<schema::LiveChannel>::Reader untrusted);

}  // namespace postern::host
