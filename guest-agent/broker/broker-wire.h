#pragma once
// What agent and broker say to each other: one message of a SOCK_SEQPACKET socket each, never leaving the machine, so
// in the machine's own byte order.
//
// A request is one of the structs below, whole: its size and its kind must agree. Its number is above that of every
// request before it. Each request but Cancel has exactly one answer with its number, also when it was cancelled. No
// request carries a descriptor.
//
// parseRequest() and parseAnswer() are where bytes become checked types; nobody checks again after them.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/power/caller-text.h"

namespace postern::guest {

// Checked requests ----------------------------------------------------------------------------------------------

constexpr size_t MAX_HOOK_NAME_BYTES = 64;
constexpr size_t MAX_TELL_BYTES = 1024;

struct ConnectRequest {};
struct ProbeRequest {
  Probe which;
  kj::Duration deadline;
};
struct InhibitorsRequest {
  PowerAction action;
};
struct HooksRequest {
  PowerAction action;
};
struct RunHookRequest {
  PowerAction action;
  kj::String name;  // isHookName()
  kj::String caller;
};
struct TellUsersRequest {
  kj::String message;  // printable: no control characters but line ends
};
struct PowerRequest {
  PowerAction action;
  kj::String caller;  // parseCallerText() takes it
};
struct EnrolledRequest {};
struct OpenFilesRequest {
  transfer::FileOrder order;
  kj::String caller;  // parseCallerText() takes it
};
constexpr size_t MAX_SERVICE_NAME_BYTES = 64;
struct OpenServiceRequest {
  kj::String service;  // policy::isServiceName()
  kj::String caller;   // parseCallerText() takes it
};
struct CancelRequest {
  // A request's number; of an OpenFilesRequest or an OpenServiceRequest that was answered it ends the opener or the
  // program. One that has been answered otherwise, or never was, means nothing.
  uint64_t of;
};

struct Request {
  uint64_t number;
  kj::OneOf<ConnectRequest, ProbeRequest, InhibitorsRequest, HooksRequest, RunHookRequest, TellUsersRequest,
            PowerRequest, EnrolledRequest, OpenFilesRequest, OpenServiceRequest, CancelRequest>
      what;
};

struct WireError {
  kj::StringPtr rule;  // the one that was broken
};

// A name of letters, digits, '.', '_' and '-', that does not begin with a dot; at most MAX_HOOK_NAME_BYTES.
bool isHookName(kj::StringPtr name);

kj::OneOf<Request, WireError> parseRequest(kj::ArrayPtr<const kj::byte> untrusted);
// Text that does not fit is our own bug.
kj::Array<kj::byte> requestBytes(const Request& request);
constexpr size_t MAX_REQUEST_BYTES = 16 << 10;

// Answers -------------------------------------------------------------------------------------------------------

struct Answer {
  enum class Outcome : uint32_t {
    DONE,       // as asked. Probe: payload. Inhibitors, Hooks: texts, each ended by NUL. Enrolled: `flag`
    CONNECTED,  // Connect: one descriptor comes along, and `connection` describes it
    REFUSED,    // payload: a line for a person. Connect: why there is no connection. OpenFiles: filesRefusalPayload();
                // OpenService: serviceRefusalPayload()
    OPENED,     // OpenFiles, OpenService: one descriptor comes along. OpenService: `flag` if it is a program's
    TIMED_OUT,  // Probe
    CANCELLED,
  };
  struct ConnectionKind {
    uint32_t transport;
    uint32_t descriptorKind;
    uint32_t peerKind;  // 0 unknown, 1 Unix, 2 vsock
    uint32_t peerFirst;
    uint32_t peerSecond;
  };

  uint64_t number;
  Outcome outcome;
  bool flag = false;
  ConnectionKind connection{};
  kj::Array<kj::byte> payload;
};
constexpr size_t MAX_ANSWER_PAYLOAD = size_t(64) << 10;
constexpr size_t MAX_ANSWER_BYTES = MAX_ANSWER_PAYLOAD + 64;
constexpr size_t MAX_TEXTS = 64;        // in one answer
constexpr size_t MAX_TEXT_BYTES = 512;  // of each, and of a refusal

kj::OneOf<Answer, WireError> parseAnswer(kj::ArrayPtr<const kj::byte> bytes);
kj::Array<kj::byte> answerBytes(const Answer& answer);

// A list of texts as one payload; what is above the bounds is left out or cut.
kj::Array<kj::byte> textsPayload(kj::ArrayPtr<const kj::String> texts);
kj::Array<kj::String> textsOf(kj::ArrayPtr<const kj::byte> payload);

kj::Array<kj::byte> filesRefusalPayload(const FilesRefusal& refusal);
// FAILED if the payload is none.
FilesRefusal filesRefusalOf(kj::ArrayPtr<const kj::byte> payload);

kj::Array<kj::byte> serviceRefusalPayload(const ServiceRefusal& refusal);
// NOT_REACHED if the payload is none.
ServiceRefusal serviceRefusalOf(kj::ArrayPtr<const kj::byte> payload);

Answer::ConnectionKind describe(const Connection& connection);
// Null if the numbers mean nothing.
kj::Maybe<Connection> connectionOf(Answer::ConnectionKind kind, kj::AutoCloseFd fd);

}  // namespace postern::guest
