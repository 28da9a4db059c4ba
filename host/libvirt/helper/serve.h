#pragma once
// The service: posternd's conversations (door.h), each in a process of its own, with a connection of its own to
// libvirtd. A call that hangs there, or a crash of the library, costs one VM's news; a libvirtd that stops ends the
// conversations, and the next ones find the new one.

#include <kj/string.h>
#include <sys/types.h>

namespace postern::libvirt {

struct Service {
  kj::String uri;
  kj::String socket;
  uid_t user;  // who may connect, beside root and this process's own user
};

// Until a signal ends the process. A number for exit() if it cannot begin.
int serve(const Service& service);

}  // namespace postern::libvirt
