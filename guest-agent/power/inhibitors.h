#pragma once
// Inhibitor locks, as logind keeps them: programs that hold off a shutdown or a suspend until they are done. Asked for
// by D-Bus in a process of its own (`--probe inhibitors`), so that neither a bus that hangs nor its library is the
// broker's.

#include <kj/array.h>
#include <kj/string.h>

#include "guest-agent/broker/broker-client.h"

namespace postern::guest {

constexpr size_t MAX_INHIBITORS = 32;

// The probe: a line for each lock that blocks, "what<TAB>who<TAB>why". Gives the process's exit status; not 0 when
// logind does not answer.
int writeInhibitors();

// Of the probe's output: who holds off `action`, as "who (why)". Checked anew: the probe is unprivileged.
kj::Array<kj::String> parseInhibitors(kj::ArrayPtr<const kj::byte> untrusted, PowerAction action);

}  // namespace postern::guest
