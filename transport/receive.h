#pragma once
// Receiving from a socket whose other end may attach descriptors (SCM_RIGHTS), wanted or not. Every loop that reads a
// Unix socket does it by these.
//
// Where a message has more of them than its receiver has room for, the kernel closes the rest, in the thread that
// receives, and that may wait (transport/close-elsewhere.h). So there is room for as many as a message can have, and
// what is not wanted is closed elsewhere. What no room helps against: a process that has no descriptor left.

#include <kj/array.h>
#include <kj/vector.h>
#include <sys/uio.h>

#include "transport/close-elsewhere.h"

namespace postern {

// The kernel's SCM_MAX_FD.
constexpr size_t MAX_ATTACHED_DESCRIPTORS = 253;

struct Received {
  ssize_t bytes;                    // -1: errno says why, and there is nothing else
  bool isCut;                       // the packet was longer than the pieces
  bool broughtMore;                 // descriptors that were not wanted, or did not find room in this process
  kj::Vector<kj::AutoCloseFd> fds;  // as many as were wanted
};

// As recvmsg(2), without waiting and without being interrupted. With MSG_PEEK no descriptor is taken.
Received receive(int socket, kj::ArrayPtr<iovec> pieces, int flags = 0, size_t wantedDescriptors = 0);

// As recv(2), without waiting, without being interrupted, and without descriptors: -1, and errno, or so many bytes.
ssize_t receiveBytes(int socket, kj::ArrayPtr<kj::byte> space);

// SO_PASSRIGHTS of Linux 6.16, which is younger than the headers that we build with.
constexpr int PASS_RIGHTS = 83;

// Where the kernel knows how: who sends descriptors to this Unix socket gets EPERM from now on. What a
// listening socket accepts is like it.
void refuseDescriptors(int socket);

}  // namespace postern
