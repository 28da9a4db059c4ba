#include "guest-agent/power/hooks.h"

#include <dirent.h>
#include <errno.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "guest-agent/bounded-text.h"
#include "guest-agent/broker/broker-wire.h"
#include "guest-agent/power/power-way.h"
#include "transport/connection.h"

namespace postern::guest {

namespace {

enum class Wanted { FOLDER, PROGRAM };

// What keeps a file, or the folder, from being trusted; null if nothing does. With nobody else able to write either,
// what is checked here is still there when it is started.
kj::Maybe<kj::String> problemWith(kj::StringPtr path, Wanted wanted) {
  struct stat info;
  if (lstat(path.cStr(), &info) < 0) {
    int error = errno;
    return kj::str(errorWords(error));
  }
  if (wanted == Wanted::FOLDER && !S_ISDIR(info.st_mode)) return kj::str("it is no folder");
  if (wanted == Wanted::PROGRAM && !S_ISREG(info.st_mode)) return kj::str("it is no regular file");
  if (info.st_uid != 0 && info.st_uid != geteuid()) return kj::str("its owner is user ", info.st_uid, " and not root");
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) return kj::str("its group or others may write to it");
  if ((info.st_mode & S_IXUSR) == 0) return kj::str("it is not executable");
  return nullptr;
}

void tellIgnored(kj::StringPtr path, kj::StringPtr why) {
  spdlog::warn("hook-ignored path={}: {}", boundedText(path, 512).cStr(), why.cStr());
}

kj::String callerEnvironment(kj::StringPtr caller) {
  auto end = caller.findFirst('/').orDefault(caller.size());
  return kj::str("POSTERN_CALLER=", caller.slice(0, end));
}

kj::String firstLine(kj::ArrayPtr<const kj::byte> output) {
  auto text = output.asChars();
  size_t end = 0;
  while (end < text.size() && text[end] != '\n') ++end;
  return boundedText(text.slice(0, end), 256);
}

kj::Maybe<kj::String> vetoOf(kj::StringPtr name, const ChildEnd& end) {
  KJ_SWITCH_ONEOF(end) {
    KJ_CASE_ONEOF(exited, ChildExited) {
      if (exited.status == HOOK_VETO_STATUS) {
        auto reason = firstLine(exited.output);
        return reason.size() == 0 ? kj::str("hook ", name, " vetoes it")
                                  : kj::str("hook ", name, " vetoes it: ", reason);
      }
      if (exited.status != 0) spdlog::warn("hook-failed name={} status={}", name.cStr(), exited.status);
    }
    KJ_CASE_ONEOF(killed, ChildKilled) {
      spdlog::warn("hook-failed name={} signal={}", name.cStr(), killed.signal);
    }
    KJ_CASE_ONEOF(timedOut, ChildTimedOut) {
      spdlog::warn("hook-timed-out name={}", name.cStr());
    }
    KJ_CASE_ONEOF(notStarted, ChildNotStarted) {
      spdlog::warn("hook-failed name={}: {}", name.cStr(), notStarted.text.cStr());
    }
  }
  return nullptr;
}

}  // namespace

// T62
kj::Array<kj::String> listHooks(kj::StringPtr folder) {
  DIR* dir = opendir(folder.cStr());
  if (dir == nullptr) return nullptr;
  KJ_DEFER(closedir(dir));
  KJ_IF_MAYBE (problem, problemWith(folder, Wanted::FOLDER)) {
    tellIgnored(folder, *problem);
    return nullptr;
  }
  kj::Vector<kj::String> names;
  while (auto* entry = readdir(dir)) {
    kj::StringPtr name = entry->d_name;
    if (name == "." || name == "..") continue;
    auto path = kj::str(folder, "/", name);
    if (!isHookName(name)) {
      tellIgnored(path, "a hook's name is up to 64 letters, digits, '.', '_' and '-', and does not begin with a dot");
    } else KJ_IF_MAYBE (problem, problemWith(path, Wanted::PROGRAM)) {
      tellIgnored(path, *problem);
    } else {
      names.add(kj::str(name));
    }
  }
  std::sort(names.begin(), names.end(), [](const kj::String& a, const kj::String& b) { return a < b; });
  if (names.size() > MAX_HOOKS) {
    tellIgnored(kj::str(folder, "/", names[MAX_HOOKS]), "it and all after it: there are more than 64");
    names.truncate(MAX_HOOKS);
  }
  return names.releaseAsArray();
}

kj::Promise<kj::Maybe<kj::String>> runHook(Children& children, const HookRun& run) {
  auto path = kj::str(run.folder, "/", run.name);
  if (!isHookName(run.name)) return kj::Maybe<kj::String>(kj::str("no hook has such a name"));
  auto problem = problemWith(run.folder, Wanted::FOLDER);
  if (problem == nullptr) problem = problemWith(path, Wanted::PROGRAM);
  KJ_IF_MAYBE (why, problem) {
    tellIgnored(path, *why);
    return kj::Maybe<kj::String>(nullptr);
  }
  spdlog::info("hook name={} action={}", run.name.cStr(), actionName(run.action).cStr());
  ChildDescription description{
      kj::arr(kj::mv(path), kj::str(actionName(run.action))),
      kj::arr(kj::str(CHILD_PATH), kj::str("POSTERN_ACTION=", actionName(run.action)), callerEnvironment(run.caller)),
      nullptr, kj::String(), run.limit};
  return children.run(kj::mv(description)).then([name = kj::str(run.name)](ChildEnd end) { return vetoOf(name, end); });
}

}  // namespace postern::guest
