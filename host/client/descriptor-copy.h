#pragma once
// DescriptorCopy: moves bytes one way between two descriptors that may be anything (a terminal, a file, a pipe that
// others share), in a thread of its own, since their flags are not ours to change. A piece goes on as it has come.
//
// It ends with its input; when its output is gone, also while nothing comes; and when this object is destroyed, which
// does not wait for the thread. A socket as output is told of the input's end by a shutdown of that direction. Both
// descriptors are closed before whenOver() resolves.

#include <kj/async.h>
#include <kj/io.h>
#include <kj/refcount.h>
#include <kj/thread.h>

namespace postern::client {

struct CopyEnd {
  enum class Kind : uint8_t {
    FINISHED,       // all of the input has been written
    INPUT_FAILED,   // a socket: reset
    OUTPUT_GONE,    // nobody reads it any more
    OUTPUT_FAILED,  // a full disk
  } kind = Kind::FINISHED;
  int error = 0;  // of the two that failed: errno
};

class DescriptorCopy {
 public:
  DescriptorCopy(kj::AutoCloseFd from, kj::AutoCloseFd to);
  ~DescriptorCopy() noexcept(false);
  KJ_DISALLOW_COPY(DescriptorCopy);

  // Once.
  kj::Promise<CopyEnd> whenOver() { return kj::mv(over); }

 private:
  // An event that the thread waits for, too; of both threads.
  struct Stop final : public kj::AtomicRefcounted {
    Stop();
    const kj::AutoCloseFd event;
  };
  kj::Own<const Stop> stop;
  kj::Promise<CopyEnd> over;
  kj::Own<kj::Thread> thread;
};

}  // namespace postern::client
