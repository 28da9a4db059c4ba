#pragma once
// Children: the programs that a process starts. Never a shell: argv goes to execve(2) as it is. Each child has
//
//   - a process group of its own, which is killed as a whole, also when the child itself ended well: what a child
//   leaves
//     running in the background does not outlive it (a hook that starts a service asks the service manager)
//   - no open descriptor but 0, 1, 2, and 3 where one was given; its standard error is this process's
//   - exactly the environment, working directory and identity that its description says; signal dispositions and the
//     number of descriptors that it may have at default
//   - a time limit, if one was given: then SIGTERM, and SIGKILL one second later; dropping the promise does the same
//   - output of at most MAX_CHILD_OUTPUT bytes; what is above is read and thrown away
//   - an end with the thread's that started it, by the kernel (PR_SET_PDEATHSIG)
//
// A group that SIGKILL does not end (a process in uninterruptible sleep, on a dead disk or network file system) is left
// behind and counted until it is gone; while MAX_LEFT_BEHIND of them exist, nothing new is started.
//
// Ends are learnt by pidfd, so that SIGCHLD and its handlers stay free.

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/function.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <sys/types.h>

namespace postern {

constexpr size_t MAX_CHILD_OUTPUT = size_t(64) << 10;
constexpr size_t MAX_CHILDREN = 32;
constexpr size_t MAX_LEFT_BEHIND = 8;
constexpr auto CHILD_GRACE = 1 * kj::SECONDS;
// A program that does not run by then lies on a file system that does not answer, and counts as not started: it is
// ended as at its limit, detached or not.
constexpr auto CHILD_START_DEADLINE = 5 * kj::SECONDS;

// The environment's PATH of everything that is started.
constexpr kj::StringPtr CHILD_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"_kj;

struct Identity {
  uid_t uid;
  gid_t gid;
};

struct ChildDescription {
  kj::Array<kj::String> argv;         // [0] is an absolute path
  kj::Array<kj::String> environment;  // "NAME=value"
  // Given up to, when this process is root, with no groups but `groups`; never to be regained.
  kj::Maybe<Identity> identity;
  kj::String input;               // standard input, any bytes; then its end
  kj::Maybe<kj::Duration> limit;  // null: until it ends or nobody waits for it
  // It gets a session of its own, outlives this process and everything else, and only its start is waited for.
  bool detached = false;
  kj::Array<gid_t> groups = nullptr;
  kj::Maybe<kj::AutoCloseFd> socket = nullptr;  // its descriptor 3
  // Its descriptors 0 and 1, in place of `input` and of output that is kept. Made blocking, as programs expect.
  kj::Maybe<kj::AutoCloseFd> stdio = nullptr;
  // Once nobody waits for it, it may end by itself for so long before SIGTERM.
  kj::Duration grace = 0 * kj::SECONDS;
};

struct ChildExited {
  int status;  // as exit() was given it
  kj::Array<kj::byte> output;
};
struct ChildKilled {  // by a signal that was not ours
  int signal;
};
struct ChildTimedOut {};
struct ChildNotStarted {
  kj::String text;  // for a person
};
using ChildEnd = kj::OneOf<ChildExited, ChildKilled, ChildTimedOut, ChildNotStarted>;
using StartOutcome = kj::Maybe<ChildNotStarted>;  // null: its program runs, or has run

class Children final : private kj::TaskSet::ErrorHandler {
 public:
  // What nobody waits for and an administrator has to know: a line each, that begins with the event's name.
  using Tell = kj::Function<void(kj::StringPtr)>;
  // At most `most` run at once; who starts programs at others' wish has Children of its own for them.
  Children(kj::UnixEventPort& port, Tell tell, size_t most = MAX_CHILDREN);
  // Kills what runs, without waiting; detached ones live on.
  ~Children() noexcept(false);
  KJ_DISALLOW_COPY(Children);

  // Resolves at the child's end or at its time limit, whichever is first; it may be still dying then. Does not throw.
  kj::Promise<ChildEnd> run(ChildDescription description);

  // The same for who has to know when it runs.
  struct Starting {
    kj::Promise<StartOutcome> started;  // within CHILD_START_DEADLINE; does not throw
    kj::Promise<ChildEnd> end;          // as of run()
  };
  Starting start(ChildDescription description);

  size_t running() const { return alive; }
  size_t leftBehind();

 private:
  class Child;
  class Waiting;
  struct Stuck {
    pid_t group;
    bool leaderReaped;
  };

  kj::UnixEventPort& port;
  Tell tell;
  const size_t most;
  kj::Vector<Stuck> stuck;
  size_t alive = 0;
  kj::TaskSet tasks;  // a Child each

  kj::Maybe<kj::String> whyNoRoom();
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern
