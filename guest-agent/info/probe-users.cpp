#include <errno.h>
#include <kj/debug.h>
#include <signal.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <utmpx.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/probes.h"

namespace postern::guest {

namespace {

struct Login {
  kj::String name;
  kj::String line;
  kj::String host;
  uint64_t secondsAgo;
};

template <size_t size>
kj::String field(const char (&untrusted)[size], size_t maxBytes) {
  return boundedText({untrusted, strnlen(untrusted, size)}, maxBytes);
}

// A record whose process has died without its terminal's keeper noticing is of nobody.
bool isPresent(const utmpx& record) {
  return record.ut_type == USER_PROCESS && record.ut_user[0] != 0 && record.ut_pid > 0 &&
         (kill(record.ut_pid, 0) == 0 || errno != ESRCH);
}

}  // namespace

void findUsersIn(kj::StringPtr utmpFile, schema::Info::Builder info) {
  utmpxname(utmpFile.cStr());
  setutxent();
  KJ_DEFER(endutxent());
  int64_t now = time(nullptr);
  kj::Vector<Login> found;
  while (auto* record = getutxent()) {
    if (found.size() == MAX_USERS) break;
    if (!isPresent(*record)) continue;
    int64_t age = now - int64_t(record->ut_tv.tv_sec);
    found.add(Login{field(record->ut_user, MAX_SHORT_TEXT), field(record->ut_line, MAX_SHORT_TEXT),
                    field(record->ut_host, MAX_INFO_TEXT), uint64_t(kj::max(age, int64_t(0)))});
  }
  auto out = info.initUsers().initValue(unsigned(found.size()));
  for (unsigned i = 0; i < found.size(); ++i) {
    out[i].setName(found[i].name);
    out[i].setLine(found[i].line);
    out[i].setHost(found[i].host);
    out[i].setLoggedInSecondsAgo(found[i].secondsAgo);
  }
}

void findUsers(schema::Info::Builder info) {
  findUsersIn(UTMPX_FILENAME, info);
}

}  // namespace postern::guest
