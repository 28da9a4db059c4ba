#pragma once
// One line of QMP, as a checked value. The only function here that sees QEMU's bytes; what it gives is bounded, its
// text printable. Never throws for what a line says.
//
// Of JSON it takes what capnp's codec takes, nested at most MAX_QMP_NESTING deep; a line is bounded by its reader, and
// the tree of the longest one takes a few megabytes, for the time of one call.

#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern::host {

constexpr size_t MAX_QMP_NESTING = 16;
// Of each text that is kept: an error's description, a reason, the id of a device.
constexpr size_t MAX_QMP_TEXT_BYTES = 200;

struct QmpGreeting {};

struct QmpAnswer {
  uint64_t id;
  kj::Maybe<kj::String> error;  // not null: QEMU refuses, for this reason
  // query-status; null in other answers.
  struct Status {
    kj::String state;
    bool running;
  };
  kj::Maybe<Status> status;
};

struct QmpEvent {
  enum class Kind { STOP, RESUME, RESET, SHUTDOWN, AGENT_PORT, OTHER };
  Kind kind;
  bool portOpen = false;         // AGENT_PORT: a program in the guest has it open
  kj::Maybe<kj::String> reason;  // RESET, SHUTDOWN: "guest-shutdown", "host-qmp-quit", "guest-reset"
  kj::Maybe<bool> byGuest;       // RESET, SHUTDOWN
};

struct QmpGarbage {
  kj::String why;
};

using QmpMessage = kj::OneOf<QmpGreeting, QmpAnswer, QmpEvent, QmpGarbage>;

QmpMessage parseQmp(kj::ArrayPtr<const char> untrustedLine);

}  // namespace postern::host
