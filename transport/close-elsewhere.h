#pragma once
// Closing without waiting. close(2) of a descriptor that somebody else has made, or could put one into (SCM_RIGHTS,
// unread), may take as long as he likes: a file of his FUSE server is flushed to it, a TCP socket lingers. So no loop
// closes one: threads do, up to MAX_CLOSERS at a time, which have all signals blocked and end when there was nothing to
// close for a while.
//
// A socket is told not to linger first: what it has still to send is sent all the same, by the kernel. A socket that
// resets when it is closed (SO_LINGER of 0 s) still does. Files and sockets have threads of their own: files that do
// not close hold up no socket. Behind MAX_CLOSERS closes of a kind that do not end, others of that kind wait, each with
// its descriptor, of which the process has so many.

#include <kj/io.h>

namespace postern {

// Of each kind.
constexpr unsigned MAX_CLOSERS = 16;

// From any thread. If there is no thread to be had the descriptor stays open until the next call.
void closeElsewhere(kj::AutoCloseFd fd);

bool isSocket(int fd);

// Owns such a descriptor, and closes it elsewhere.
class StrangersFd {
 public:
  StrangersFd() = default;
  StrangersFd(kj::AutoCloseFd fd) : fd(kj::mv(fd)) {}
  ~StrangersFd() noexcept(false) { closeElsewhere(kj::mv(fd)); }
  StrangersFd(StrangersFd&&) = default;
  StrangersFd& operator=(StrangersFd&& other) {
    closeElsewhere(kj::mv(fd));
    fd = kj::mv(other.fd);
    return *this;
  }
  KJ_DISALLOW_COPY(StrangersFd);

  operator int() const { return fd.get(); }
  int get() const { return fd.get(); }  // below 0: none
  // To who passes it on.
  kj::AutoCloseFd release() { return kj::mv(fd); }

 private:
  kj::AutoCloseFd fd;
};

}  // namespace postern
