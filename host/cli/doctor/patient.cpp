#include "host/cli/doctor/patient.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace postern::cli {

namespace {

kj::Maybe<uid_t> ownerOf(kj::StringPtr path) {
  struct stat about;
  if (stat(path.cStr(), &about) != 0) return nullptr;
  return about.st_uid;
}

}  // namespace

uid_t Patient::daemonUser() const {
  KJ_IF_MAYBE (info, daemon) {
    KJ_IF_MAYBE (uid, ownerOf(kj::str("/proc/", info->getPid()))) return *uid;
  }
  KJ_IF_MAYBE (uid, ownerOf(paths.lock)) return *uid;
  if (run.options.root.size() == 0) {
    if (auto* user = getpwnam("postern")) return user->pw_uid;
  }
  return geteuid();
}

kj::String Patient::rootOption() const {
  if (run.options.root.size() == 0) return kj::String();
  return kj::str("--root ", shellWord(run.options.root), ' ');
}

kj::String Patient::startPosternd() const {
  if (run.options.root.size() == 0) return kj::str("systemctl start posternd");
  return kj::str("posternd ", rootOption(), '&');
}

kj::String Patient::restartPosternd() const {
  if (run.options.root.size() == 0) return kj::str("systemctl restart posternd");
  KJ_IF_MAYBE (info, daemon) return kj::str("kill ", info->getPid(), "; ", startPosternd());
  return startPosternd();
}

kj::String Patient::reloadPosternd() const {
  if (run.options.root.size() == 0) return kj::str("systemctl reload posternd");
  KJ_IF_MAYBE (info, daemon) return kj::str("kill -HUP ", info->getPid());
  return startPosternd();
}

}  // namespace postern::cli
