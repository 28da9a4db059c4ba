#pragma once
// The rules of `enroll --grant` that came with a VM from another host: taken only if they can mean nothing but that VM.

#include <kj/string.h>

namespace postern::host {

// Whether `text`, a file of the host's policy, holds rules that allow something to users and groups of the host with
// this one VM, and nothing else. What it names besides cannot be wider than that.
bool areGrantsOf(kj::StringPtr vm, kj::StringPtr text);

}  // namespace postern::host
