#include "guest-agent/broker/broker-wire.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <string.h>

#include "guest-agent/bounded-text.h"
#include "protocol/policy/names.h"
#include "protocol/policy/path-glob.h"
#include "protocol/transfer/limits.h"

namespace postern::guest {

namespace {

// The wire form. Every struct is without padding, so that its bytes are what its fields say.
enum class Kind : uint32_t {
  CONNECT = 1,
  PROBE = 2,
  INHIBITORS = 3,
  HOOKS = 4,
  RUN_HOOK = 5,
  TELL_USERS = 6,
  POWER = 7,
  ENROLLED = 8,
  CANCEL = 9,
  OPEN_FILES = 10,
  OPEN_SERVICE = 11,
};

// Text is ended by NUL, and NUL up to the end.
template <size_t MAX_BYTES>
struct WireText {
  char bytes[(MAX_BYTES + 8) / 8 * 8];
};

struct WireHead {
  Kind kind;
  uint32_t reserved;  // 0
  uint64_t number;
};
struct WireProbe {
  WireHead head;
  uint32_t which;
  uint32_t milliseconds;
};
struct WireAction {  // INHIBITORS, HOOKS
  WireHead head;
  uint32_t action;
  uint32_t reserved;  // 0
};
struct WireRunHook {
  WireAction head;
  WireText<MAX_HOOK_NAME_BYTES> name;
  WireText<MAX_CALLER_TEXT_BYTES> caller;
};
struct WireTell {
  WireHead head;
  WireText<MAX_TELL_BYTES> message;
};
struct WirePower {
  WireAction head;
  WireText<MAX_CALLER_TEXT_BYTES> caller;
};
struct WireOpenFiles {
  WireHead head;
  uint32_t call;      // FileCall
  uint32_t sparse;    // transfer::Sparse
  uint32_t flags;     // of OrderFlag
  uint32_t reserved;  // 0
  // Any bytes but NUL, as names of files are.
  WireText<transfer::MAX_PATH_BYTES> path;
  WireText<MAX_CALLER_TEXT_BYTES> caller;
};
struct WireOpenService {
  WireHead head;
  WireText<MAX_SERVICE_NAME_BYTES> service;
  WireText<MAX_CALLER_TEXT_BYTES> caller;
};
struct WireCancel {
  WireHead head;
  uint64_t of;
};
static_assert(sizeof(WireRunHook) <= MAX_REQUEST_BYTES);
static_assert(sizeof(WireOpenFiles) <= MAX_REQUEST_BYTES);

// What an order says beside its call and path, a bit each in this order.
template <typename Order, typename Use>
void withOrderFlags(Order& order, Use use) {
  use(order.recursive, 1u << 0);
  use(order.archive, 1u << 1);
  use(order.intoDirectory, 1u << 2);
  use(order.noClobber, 1u << 3);
  use(order.resume, 1u << 4);
  use(order.verify, 1u << 5);
  use(order.makeParents, 1u << 6);
  use(order.special, 1u << 7);
}
constexpr uint32_t ALL_ORDER_FLAGS = (1u << 8) - 1;

// Each gives false if the bytes are not such a thing.
template <typename T>
bool take(T& wire, kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() != sizeof(T)) return false;
  memcpy(&wire, untrusted.begin(), sizeof(T));
  return true;
}

template <size_t MAX_BYTES>
bool take(kj::String& text, const WireText<MAX_BYTES>& untrusted) {
  size_t length = strnlen(untrusted.bytes, sizeof(untrusted.bytes));
  if (length > MAX_BYTES) return false;
  for (size_t i = length; i < sizeof(untrusted.bytes); ++i) {
    if (untrusted.bytes[i] != 0) return false;
  }
  text = kj::heapString(untrusted.bytes, length);
  return true;
}

bool take(PowerAction& action, uint32_t untrusted) {
  action = PowerAction(untrusted);
  return untrusted <= uint32_t(PowerAction::SUSPEND);
}

bool take(Probe& probe, uint32_t untrusted) {
  probe = Probe(uint8_t(untrusted));
  return untrusted == uint32_t(Probe::OS) || untrusted == uint32_t(Probe::NETWORK) ||
         untrusted == uint32_t(Probe::FILESYSTEMS) || untrusted == uint32_t(Probe::USERS);
}

using Parsed = kj::OneOf<Request, WireError>;
constexpr WireError WRONG_SIZE{"a request's size does not belong to its kind"_kj};
constexpr WireError BAD_FIELD{"a request's field holds what it cannot"_kj};
constexpr WireError BAD_TEXT{"a request's text is unterminated, too long or unprintable"_kj};

Parsed parseProbe(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireProbe wire;
  ProbeRequest request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (!take(request.which, wire.which) || wire.milliseconds == 0) return BAD_FIELD;
  request.deadline = wire.milliseconds * kj::MILLISECONDS;
  return Request{number, request};
}

template <typename T>
Parsed parseAction(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireAction wire;
  T request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (wire.reserved != 0 || !take(request.action, wire.action)) return BAD_FIELD;
  return Request{number, request};
}

Parsed parseRunHook(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireRunHook wire;
  RunHookRequest request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (wire.head.reserved != 0 || !take(request.action, wire.head.action)) return BAD_FIELD;
  if (!take(request.name, wire.name) || !isHookName(request.name)) return BAD_TEXT;
  if (!take(request.caller, wire.caller) || parseCallerText(request.caller) == nullptr) return BAD_TEXT;
  return Request{number, kj::mv(request)};
}

Parsed parseTell(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireTell wire;
  TellUsersRequest request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (!take(request.message, wire.message) || request.message.size() == 0 ||
      boundedLines(request.message, MAX_TELL_BYTES) != request.message) {
    return BAD_TEXT;
  }
  return Request{number, kj::mv(request)};
}

Parsed parsePower(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WirePower wire;
  PowerRequest request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (wire.head.reserved != 0 || !take(request.action, wire.head.action)) return BAD_FIELD;
  if (!take(request.caller, wire.caller) || parseCallerText(request.caller) == nullptr) return BAD_TEXT;
  return Request{number, kj::mv(request)};
}

bool take(transfer::FileOrder& order, const WireOpenFiles& untrusted) {
  if (untrusted.call > uint32_t(transfer::FileCall::REMOVE) || untrusted.sparse > uint32_t(transfer::Sparse::NEVER) ||
      (untrusted.flags & ~ALL_ORDER_FLAGS) != 0 || untrusted.reserved != 0) {
    return false;
  }
  order.call = transfer::FileCall(untrusted.call);
  order.sparse = transfer::Sparse(untrusted.sparse);
  withOrderFlags(order, [&](bool& flag, uint32_t bit) { flag = (untrusted.flags & bit) != 0; });
  return true;
}

Parsed parseOpenFiles(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireOpenFiles wire;
  OpenFilesRequest request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (!take(request.order, wire)) return BAD_FIELD;
  if (!take(request.order.path, wire.path) || !policy::isCanonicalPath(request.order.path)) return BAD_TEXT;
  if (!take(request.caller, wire.caller) || parseCallerText(request.caller) == nullptr) return BAD_TEXT;
  return Request{number, kj::mv(request)};
}

Parsed parseOpenService(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireOpenService wire;
  OpenServiceRequest request;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  if (!take(request.service, wire.service) || !policy::isServiceName(request.service)) return BAD_TEXT;
  if (!take(request.caller, wire.caller) || parseCallerText(request.caller) == nullptr) return BAD_TEXT;
  return Request{number, kj::mv(request)};
}

template <typename T>
Parsed parseBare(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() != sizeof(WireHead)) return WRONG_SIZE;
  return Request{number, T{}};
}

Parsed parseCancel(uint64_t number, kj::ArrayPtr<const kj::byte> untrusted) {
  WireCancel wire;
  if (!take(wire, untrusted)) return WRONG_SIZE;
  return Request{number, CancelRequest{wire.of}};
}

template <size_t MAX_BYTES>
void setText(WireText<MAX_BYTES>& text, kj::StringPtr value) {
  KJ_REQUIRE(value.size() <= MAX_BYTES, "text too long for the broker");
  memset(text.bytes, 0, sizeof(text.bytes));
  memcpy(text.bytes, value.begin(), value.size());
}

template <typename T>
kj::Array<kj::byte> bytesOf(const T& wire) {
  return kj::heapArray(reinterpret_cast<const kj::byte*>(&wire), sizeof(wire));
}

}  // namespace

bool isHookName(kj::StringPtr name) {
  if (name.size() == 0 || name.size() > MAX_HOOK_NAME_BYTES || name[0] == '.') return false;
  for (char c : name) {
    bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!plain) return false;
  }
  return true;
}

// T59
kj::OneOf<Request, WireError> parseRequest(kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() < sizeof(WireHead)) return WRONG_SIZE;
  WireHead head;
  memcpy(&head, untrusted.begin(), sizeof(head));
  if (head.reserved != 0) return BAD_FIELD;
  switch (head.kind) {
    case Kind::CONNECT:
      return parseBare<ConnectRequest>(head.number, untrusted);
    case Kind::PROBE:
      return parseProbe(head.number, untrusted);
    case Kind::INHIBITORS:
      return parseAction<InhibitorsRequest>(head.number, untrusted);
    case Kind::HOOKS:
      return parseAction<HooksRequest>(head.number, untrusted);
    case Kind::RUN_HOOK:
      return parseRunHook(head.number, untrusted);
    case Kind::TELL_USERS:
      return parseTell(head.number, untrusted);
    case Kind::POWER:
      return parsePower(head.number, untrusted);
    case Kind::ENROLLED:
      return parseBare<EnrolledRequest>(head.number, untrusted);
    case Kind::OPEN_FILES:
      return parseOpenFiles(head.number, untrusted);
    case Kind::OPEN_SERVICE:
      return parseOpenService(head.number, untrusted);
    case Kind::CANCEL:
      return parseCancel(head.number, untrusted);
    default:
      return WireError{"a request's kind is unknown"_kj};
  }
}

kj::Array<kj::byte> requestBytes(const Request& request) {
  auto head = [&](Kind kind) { return WireHead{kind, 0, request.number}; };
  auto action = [&](Kind kind, PowerAction action) { return WireAction{head(kind), uint32_t(action), 0}; };
  KJ_SWITCH_ONEOF(request.what) {
    KJ_CASE_ONEOF(connect, ConnectRequest) {
      return bytesOf(head(Kind::CONNECT));
    }
    KJ_CASE_ONEOF(probe, ProbeRequest) {
      auto milliseconds = kj::max(uint64_t(1), uint64_t(probe.deadline / kj::MILLISECONDS));
      return bytesOf(
          WireProbe{head(Kind::PROBE), uint32_t(probe.which), uint32_t(kj::min(milliseconds, uint64_t(0xffffffff)))});
    }
    KJ_CASE_ONEOF(inhibitors, InhibitorsRequest) {
      return bytesOf(action(Kind::INHIBITORS, inhibitors.action));
    }
    KJ_CASE_ONEOF(hooks, HooksRequest) {
      return bytesOf(action(Kind::HOOKS, hooks.action));
    }
    KJ_CASE_ONEOF(hook, RunHookRequest) {
      WireRunHook wire{action(Kind::RUN_HOOK, hook.action), {}, {}};
      setText(wire.name, hook.name);
      setText(wire.caller, hook.caller);
      return bytesOf(wire);
    }
    KJ_CASE_ONEOF(tell, TellUsersRequest) {
      WireTell wire{head(Kind::TELL_USERS), {}};
      setText(wire.message, tell.message);
      return bytesOf(wire);
    }
    KJ_CASE_ONEOF(power, PowerRequest) {
      WirePower wire{action(Kind::POWER, power.action), {}};
      setText(wire.caller, power.caller);
      return bytesOf(wire);
    }
    KJ_CASE_ONEOF(enrolled, EnrolledRequest) {
      return bytesOf(head(Kind::ENROLLED));
    }
    KJ_CASE_ONEOF(files, OpenFilesRequest) {
      WireOpenFiles wire{
          head(Kind::OPEN_FILES), uint32_t(files.order.call), uint32_t(files.order.sparse), 0, 0, {}, {}};
      withOrderFlags(files.order, [&](bool flag, uint32_t bit) { wire.flags |= flag ? bit : 0; });
      setText(wire.path, files.order.path);
      setText(wire.caller, files.caller);
      return bytesOf(wire);
    }
    KJ_CASE_ONEOF(service, OpenServiceRequest) {
      WireOpenService wire{head(Kind::OPEN_SERVICE), {}, {}};
      setText(wire.service, service.service);
      setText(wire.caller, service.caller);
      return bytesOf(wire);
    }
    KJ_CASE_ONEOF(cancel, CancelRequest) {
      return bytesOf(WireCancel{head(Kind::CANCEL), cancel.of});
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace postern::guest
