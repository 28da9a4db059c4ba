#pragma once
// What a policy says, as plain data: read by grammar.h, checked by check.h, then never changed. Who decides by it is
// Policy (policy.h).

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>

#include "protocol/policy/call.h"
#include "protocol/policy/path-glob.h"
#include "protocol/policy/problem.h"

namespace postern::policy {

enum class Side : uint8_t {
  HOST,   // policy.d: who on the host may ask what of which VM, and VMs of the host and of each other
  GUEST,  // agent.toml: what may be done in this guest
};

// Somebody, as written in `from`, `to`, a group or a segment.
struct Party {
  enum class Kind : uint8_t {
    USER,        // user:NAME, a user of the host
    HOST_GROUP,  // group:NAME, a group of the host
    HOST,        // host: from: any local caller; to: the host itself
    VM,          // NAME
    TAG,         // tag:NAME, VMs with this tag
    GROUP,       // @NAME, a group of the policy
    ANY,         // any VM; never the host
  };
  Kind kind;
  kj::String name;  // empty for HOST and ANY
  Place place;
};
kj::String KJ_STRINGIFY(const Party& party);  // as written

// Bounds that delay and do not drop; `open` and `calls` refuse. What is null is not bounded. A rate, open, callsPerHour
// or bytes of 0 lets nothing pass, which the limit refuses and not the verdict.
struct Limits {
  kj::Maybe<uint64_t> rate;          // bytes a second in the long run
  kj::Maybe<uint64_t> burst;         // bytes that may go at once on top of the rate, after a pause
  kj::Maybe<uint64_t> peak;          // bytes a second while a burst lasts
  kj::Maybe<uint64_t> open;          // channels open at one time
  kj::Maybe<uint64_t> callsPerHour;  // calls begun
  kj::Maybe<uint64_t> bytes;         // bytes under way: sent and not yet taken by the receiver

  bool isEmpty() const;
};

// Bounds of one file transfer, which end it. What is null is not bounded.
struct Quotas {
  kj::Maybe<uint64_t> bytes;  // of content
  kj::Maybe<uint64_t> files;  // everything that is not a directory
  kj::Maybe<uint64_t> depth;  // directories inside each other
  bool special = false;       // set-id and sticky bits, devices and security attributes may be made

  bool isEmpty() const;
};

// Channels that a rule lets pass are told of to an inspection appliance, a program of the host.
struct Mirror {
  enum class Copy : uint8_t { META, FULL };  // who, what, when and how much; or every byte as well
  kj::String to;                             // the path of its Unix socket: canonical, at most MAX_SOCKET_PATH_BYTES
  Copy copy;
};

struct Community {
  kj::String name;
  kj::Vector<Party> members;
};

struct Rule {
  enum class Kind : uint8_t { ALLOW, DENY, SEGMENT };
  Kind kind;
  kj::String id;
  Place place;
  kj::Vector<CallPattern> calls;
  kj::Vector<Party> from;       // empty for a segment; in a guest, empty means host
  kj::Vector<Party> to;         // empty for a segment; in a guest, empty: this guest
  kj::Vector<PathGlob> paths;   // empty: any path
  Quotas quotas;                // of an [[allow]] of file calls
  Limits limits;                // per rule and VM
  kj::Maybe<kj::String> runAs;  // a user inside the guest
  kj::Maybe<int64_t> expires;   // seconds since 1970; from then on the rule does not apply
  kj::Maybe<Mirror> mirror;
  // Of a segment.
  kj::Vector<Party> promiscuous;
  kj::Vector<Community> communities;
  kj::Vector<Party> isolated;
};
kj::StringPtr kindName(Rule::Kind kind);  // "allow"

struct Group {
  kj::String name;
  Place place;
  kj::Vector<Party> members;  // USER, HOST_GROUP, VM, TAG, GROUP
};

struct Port {
  kj::String vm;
  Place place;
  bool blocked = false;
  Limits limits;  // per VM
};

// An entry of `test`.
struct Expectation {
  Place place;
  bool wantsAllow = false;
  kj::Maybe<kj::String> ruleId;  // the rule that must decide
  kj::Vector<Party> from;        // USER and HOST_GROUPs, or HOST, or VM and TAGs, or ANY
  kj::Vector<Party> to;          // HOST, or VM and TAGs, or ANY; in a guest empty
  kj::String call;
  kj::Maybe<kj::String> path;
  kj::Maybe<int64_t> at;  // seconds since 1970; if null, as if nothing had expired
};

struct Document {
  Side side = Side::HOST;
  kj::Vector<kj::String> files;  // what every Place points into
  kj::Vector<Rule> rules;
  kj::Vector<Group> groups;
  kj::Vector<Port> ports;
  kj::Vector<Expectation> tests;
  bool vmToVm = false;
  kj::Maybe<Place> vmToVmPlace;  // null: not written anywhere
};

}  // namespace postern::policy
