#include "host/daemon/open-call.h"

#include "host/control/failure.h"
#include "host/daemon/caller-rights.h"
#include "host/daemon/patience.h"
#include "protocol/policy/path-glob.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;

// What a caller may ask a VM's session for, at most, in one open().
constexpr unsigned MAX_CALLS_PER_OPEN = 16;
// "service." and a name.
constexpr size_t MAX_CALL_BYTES = 80;
// For a session process to take a caller's socket.
constexpr auto INTRODUCTION_DEADLINE = 5 * kj::SECONDS;
// For a session process that is being started.
constexpr auto SESSION_PATIENCE = 5 * kj::SECONDS;

// It goes into logs and onto terminals, denied or not. Whether there is such a call is for policy to say.
bool isCallText(kj::StringPtr untrusted) {
  if (untrusted == ANY_SERVICE) return true;
  for (char c : untrusted) {
    bool good =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    if (!good) return false;
  }
  return untrusted.size() > 0 && untrusted.size() <= MAX_CALL_BYTES;
}

// One call of open(), checked.
struct Asked {
  kj::Vector<kj::String> calls;  // each once
  kj::Maybe<kj::String> path;    // of the file calls among them

  kj::Maybe<kj::StringPtr> pathFor(kj::StringPtr call) const {
    if (!isFileCall(call)) return nullptr;
    return path.map([](const kj::String& p) { return kj::StringPtr(p); });
  }
};

// Or what is wrong with it.
kj::OneOf<Asked, kj::String> parse(schema::Control::OpenParams::Reader untrusted) {
  Asked asked;
  auto calls = untrusted.getCalls();
  if (calls.size() == 0 || calls.size() > MAX_CALLS_PER_OPEN) {
    return kj::str("ask for 1 to ", MAX_CALLS_PER_OPEN, " calls");
  }
  bool hasFileCall = false;
  for (auto call : calls) {
    if (!isCallText(call)) return kj::str("there is no call '", printable(call), "'");
    bool isNew = true;
    for (auto& known : asked.calls) isNew &= known != call;
    if (isNew) asked.calls.add(kj::str(call));
    hasFileCall |= isFileCall(call);
  }
  auto path = untrusted.getPath().asChars();
  if (!hasFileCall) {
    if (path.size() > 0) return kj::str("only file calls have a path");
    return kj::mv(asked);
  }
  if (!policy::isCanonicalPath(path)) {
    return kj::str("'", printable(path, 200),
                   "' is no path of a file in a VM: write it in full, from '/', without '//', '.', '..' and a slash at "
                   "the end, with at most 4095 bytes");
  }
  asked.path = kj::heapString(path);
  return kj::mv(asked);
}

// What was granted, on its way to the session.
kj::Promise<void> introduce(Daemon& daemon, kj::StringPtr vmName, kj::Own<const LocalCaller> who, Grantable grantable,
                            OpenContext context) {
  KJ_IF_MAYBE (vm, daemon.findVm(vmName)) {
    if (vm->session().isAttached()) {
      auto introduced = daemon.introduce(*vm, kj::mv(who), kj::mv(grantable));
      return answeredWithin(daemon.timer(), INTRODUCTION_DEADLINE, kj::mv(introduced))
          .then([context](StrangersFd socket) mutable {
            context.getResults().setSocket(newDescriptor(socket.release()));
          });
    }
  }
  return KJ_EXCEPTION(DISCONNECTED, "no session process");
}

// Those of the calls that policy allows; the failure says why others are not.
Grantable grantableOf(Daemon& daemon, const LocalCaller& who, Vm& vm, const Asked& asked,
                      schema::Failure::Builder failure) {
  Grantable grantable;
  for (auto& call : asked.calls) {
    if (isAllowed(daemon, who, vm, call, asked.pathFor(call), failure)) grantable.calls.add(kj::str(call));
  }
  if (grantable.calls.empty()) return grantable;
  auto& first = grantable.calls[0];
  auto decision = decide(daemon, who, vm, first, asked.pathFor(first)).decision;
  if (decision.isAllowed()) grantable.rule = kj::str(decision.ruleId());
  KJ_IF_MAYBE (path, asked.path) {
    grantable.files = daemon.decisions().fileGrantsFor(who, vm.record(), grantable.calls, *path);
    if (grantable.files.size() > 0) grantable.path = kj::str(*path);
  }
  return grantable;
}

// Why what policy allows is not to be had now.
bool isHindered(Daemon& daemon, const LocalCaller& who, Vm& vm, const Grantable& grantable,
                schema::Failure::Builder failure) {
  if (vm.record().isMoved()) {
    setFailure(failure, Kind::NOT_CONNECTED, kj::str("moved to another host, ", vm.record().movedTo));
  } else if (vm.isQuarantined() && !grantable.calls[0].startsWith("admin.")) {
    setFailure(
        failure, Kind::DENIED,
        "denied: the guest was put back to an earlier state and is quarantined; `postern vm rekey` enrols it anew");
  } else if (!daemon.hasRoomFor(who.uid)) {
    setFailure(failure, Kind::FAILED, kj::str("you have ", MAX_GRANTS_PER_USER, " connections to VMs already"));
  } else if (grantable.files.size() > MAX_FILE_GRANT_WORDS) {
    setFailure(failure, Kind::FAILED, "the policy has too many rules about files of this VM for one connection");
  } else {
    return false;
  }
  return true;
}

}  // namespace

kj::Promise<void> openVm(Daemon& daemon, kj::Own<const LocalCaller> who, OpenContext context) {
  auto params = context.getParams();
  auto results = context.getResults();
  auto parsed = parse(params);
  KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) {
    setFailure(results.initFailure(), Kind::INVALID, *wrong);
    return kj::READY_NOW;
  }
  auto& asked = parsed.get<Asked>();
  KJ_IF_MAYBE (vm, daemon.findVm(params.getVm())) {
    auto failure = results.initFailure();
    bool visible = daemon.decisions().isVisible(*who, vm->record());
    auto grantable = grantableOf(daemon, *who, *vm, asked, failure);
    if (grantable.calls.empty()) {
      // What was denied says that the VM is there: only to those who may know.
      if (!visible) findVisible(daemon, *who, params.getVm(), results.initFailure());
      return kj::READY_NOW;
    }
    if (isHindered(daemon, *who, *vm, grantable, failure)) return kj::READY_NOW;
    auto list = results.initGranted(static_cast<unsigned>(grantable.calls.size()));
    for (unsigned i = 0; i < list.size(); ++i) list.set(i, grantable.calls[i]);
    results.disownFailure();
    results.setSpecial(allowsSpecial(grantable.files, "file.get"));
    auto name = kj::str(params.getVm());
    return vm->session()
        .whenAttached(SESSION_PATIENCE)
        .then([&daemon, context, name = kj::mv(name), who = kj::mv(who), grantable = kj::mv(grantable)]() mutable {
          return introduce(daemon, name, kj::mv(who), kj::mv(grantable), context);
        })
        .catch_([context](kj::Exception&&) mutable {
          setFailure(context.getResults().initFailure(), Kind::NOT_CONNECTED,
                     "its session process does not run, or does not answer; posternd's log says why");
        });
  }
  findVisible(daemon, *who, params.getVm(), results.initFailure());
  return kj::READY_NOW;
}

}  // namespace postern::host
