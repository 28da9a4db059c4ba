#include "transport/children/process-group.h"

#include <dirent.h>
#include <fcntl.h>
#include <kj/io.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace postern {

namespace {

struct Stat {
  char state;
  pid_t group;
};

// From /proc/PID/stat: "pid (name) state ppid pgrp ..."; the name may hold anything, also parentheses.
bool readStat(int proc, const char* pid, Stat& stat) {
  char path[64];
  snprintf(path, sizeof(path), "%.20s/stat", pid);
  kj::AutoCloseFd fd(openat(proc, path, O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return false;
  char text[512];
  ssize_t got = read(fd, text, sizeof(text) - 1);
  if (got <= 0) return false;
  text[got] = 0;
  const char* behindName = strrchr(text, ')');
  int group = 0;
  // NOLINTNEXTLINE(cert-err34-c): the kernel wrote it
  if (behindName == nullptr || sscanf(behindName, ") %c %*d %d", &stat.state, &group) != 2) return false;
  stat.group = group;
  return true;
}

}  // namespace

bool groupRuns(pid_t group) {
  if (kill(-group, 0) < 0) return false;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return false;
  bool found = false;
  while (auto* entry = readdir(proc)) {
    Stat stat;
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !readStat(dirfd(proc), entry->d_name, stat)) continue;
    if (stat.group == group && stat.state != 'Z' && stat.state != 'X') found = true;
  }
  closedir(proc);
  return found;
}

}  // namespace postern
