#pragma once
// Hooks: the administrator's programs that run before the guest is shut down, restarted or suspended. On the broker's
// side.
//
// A hook is a regular, executable file in the hooks folder whose name isHookName(), owned by root (or by the user as
// whom this process runs), and writable by nobody else; the same holds for the folder. Anything else there is not run,
// and a log line says why. Hooks run by order of name, one after the other, as root:
//
//   argv           {its path, "shutdown" | "restart" | "suspend"}, never through a shell
//   environment    PATH, POSTERN_ACTION, and POSTERN_CALLER: for whom, such as "user:alice" or "vm:web2"; nothing else
//   folder         /
//   exit status    0: go on. 75 (EX_TEMPFAIL): veto, the action is not carried out, with the first line of its output
//   as
//                  the reason. Anything else, and a hook that exceeds its time: logged, and the action goes on, since a
//                  broken hook must not keep a guest from being shut down
//   afterwards     what it left running is killed (children.h)

#include <kj/array.h>
#include <kj/async.h>
#include <kj/string.h>

#include "guest-agent/broker/broker-client.h"
#include "transport/children/children.h"

namespace postern::guest {

constexpr int HOOK_VETO_STATUS = 75;
constexpr size_t MAX_HOOKS = 64;

// In the order in which they run; none if there is no folder.
kj::Array<kj::String> listHooks(kj::StringPtr folder);

struct HookRun {
  kj::StringPtr folder;
  kj::StringPtr name;
  PowerAction action;
  kj::StringPtr caller;  // callerText()'s
  kj::Duration limit;
};
// Looks at the file again. Null: go on; otherwise why not, for a person. `run` may be gone when this returns.
kj::Promise<kj::Maybe<kj::String>> runHook(Children& children, const HookRun& run);

}  // namespace postern::guest
