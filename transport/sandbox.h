#pragma once
// The parts that sandboxes are made of, for the processes that parse what another machine says (host/session/sandbox.h,
// guest-agent/agent/sandbox.h) or open files for it (guest-agent/files/opener-sandbox.h). Each of those says what its
// process may do; here is what they have in common. Entered with one thread; later threads inherit all of it, and
// nothing of it can be undone.

#include <kj/array.h>
#include <kj/common.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <initializer_list>

namespace postern {

// Conditions on a system call's argument number `index`, counted from 0.
inline scmp_arg_cmp argumentIs(unsigned index, scmp_datum_t value) {
  return {index, SCMP_CMP_EQ, value, 0};
}
inline scmp_arg_cmp argumentMasked(unsigned index, scmp_datum_t mask, scmp_datum_t value) {
  return {index, SCMP_CMP_MASKED_EQ, mask, value};
}

// System calls that are allowed; everything else ends the process (SIGSYS).
class SystemCallFilter {
 public:
  SystemCallFilter();
  ~SystemCallFilter();
  KJ_DISALLOW_COPY(SystemCallFilter);

  // With any arguments, or with arguments for which all conditions hold.
  void allow(int call, std::initializer_list<scmp_arg_cmp> conditions = {});
  void allowAll(kj::ArrayPtr<const int> calls);
  // Asked for in passing by libraries that do without: `error` in place of the end.
  void refuse(int call, int error);

  // From now on. Throws if the kernel takes no filter.
  void load();

 private:
  scmp_filter_ctx context;
};

// What a program of this project uses once everything is open: reads, writes and waits on descriptors that it has,
// passes them over sockets, reads clocks, makes randomness, handles signals, ends. None of them names a file, an
// address or another process. And memory, but none that can be executed; abort(), which ends this process and no other.
void allowBasics(SystemCallFilter& filter);

// pthread_create(), and nothing else of what clone(2) can do: a new thread shares memory, files and signal handlers
// with this process and is in the same namespaces. clone3(2), whose arguments a filter does not see, is "not
// implemented", upon which the C library takes clone(2).
void allowThreads(SystemCallFilter& filter);

// What the ends of relays (transport/relay/relay-end.h) use beside the basics and threads: a socket's close that
// resets, and refusing descriptors.
void allowRelays(SystemCallFilter& filter);

// Reading, writing, measuring, shortening, lengthening and syncing files by their descriptors.
void allowFileCalls(SystemCallFilter& filter);
// The same for who may have no path looked at, and uses files that somebody else opened (transport/transfer/mover.h). A
// filter cannot see that a path is empty: fstat(2) is allowed by its own number alone, and newfstatat(2), which is what
// the C library makes of it, answers EACCES. fileStatus() takes the first.
void allowFileMoving(SystemCallFilter& filter);
// fstat(2) for who may be in such a sandbox. 0, or -1 and errno.
int fileStatus(int fd, struct stat& status);

// What a process may have without asking, up to `wanted` where its hard limit allows so much.
void raiseLimit(__rlimit_resource resource, rlim_t wanted);
// Never above what it was.
void lowerLimit(__rlimit_resource resource, rlim_t most);
// No core dump; no ptrace and no look into memory by others of the same user.
void forbidInspection();
void forbidNewPrivileges();
// Of the capabilities that this process has, those whose bits are set here; no others can be had any more.
void keepCapabilities(uint64_t bits);

enum class LandlockState { ENFORCED, NOT_IN_KERNEL };
// Below 1: this kernel has none.
long landlockVersion();

// No file may be opened, made, changed or removed by name, whatever its permissions. Needs forbidNewPrivileges().
LandlockState forbidFiles();
// The same, but for what is beneath the directory: there everything but executing is allowed.
LandlockState forbidFilesOutside(int folder);

}  // namespace postern
