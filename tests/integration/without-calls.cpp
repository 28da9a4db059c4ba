// Runs a program on a kernel that lacks system calls, as far as that program can tell:
//
//   without-calls CALL... -- PROGRAM ARGUMENT...
//
// Each CALL, by its name, is "not implemented" (ENOSYS) in PROGRAM and in all that it starts.

#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace {

int fail(const char* what) {
  fprintf(stderr, "without-calls: %s\n", what);
  return 125;
}

}  // namespace

int main(int argc, char** argv) {
  auto* filter = seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr) return fail("no memory");
  int next = 1;
  for (; next < argc && strcmp(argv[next], "--") != 0; ++next) {
    int call = seccomp_syscall_resolve_name(argv[next]);
    if (call == __NR_SCMP_ERROR) return fail(argv[next]);
    if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), call, 0) != 0) return fail("the filter takes no rule");
  }
  if (next + 1 >= argc) return fail("no program");
  if (seccomp_load(filter) != 0) return fail("the kernel takes no filter");
  seccomp_release(filter);
  execvp(argv[next + 1], argv + next + 1);
  return fail(strerror(errno));
}
