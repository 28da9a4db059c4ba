#include "host/daemon/service-terms.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/local-rpc/local-rpc.h"
#include "transport/connection.h"

namespace postern::host {

namespace {

// Connected, or errno. Does not wait.
kj::OneOf<kj::AutoCloseFd, int> connectNow(kj::StringPtr path) {
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return ENAMETOOLONG;
  memcpy(address.sun_path, path.begin(), path.size());
  kj::AutoCloseFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd == nullptr) return errno;
  if (connect(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof(address)) != 0) return errno;
  return kj::mv(fd);
}

}  // namespace

ServiceTerms::ServiceTerms(const policy::Decision& decision)
    : rule(kj::str(decision.ruleId())), limits(decision.limits()) {
  KJ_REQUIRE(decision.isAllowed(), "no terms without a permission");
  KJ_IF_MAYBE (r, decision.rule) {
    KJ_IF_MAYBE (m, r->mirror) mirror = MirrorTerms{kj::str(m->to), m->copy == policy::Mirror::Copy::FULL};
  }
}

bool ServiceTerms::operator==(const ServiceTerms& other) const {
  return rule == other.rule && limits == other.limits && mirrorText() == other.mirrorText();
}

kj::String ServiceTerms::mirrorText() const {
  KJ_IF_MAYBE (m, mirror) return m->text();
  return kj::String();
}

kj::String ServiceTerms::MirrorTerms::text() const {
  return kj::str("unix:", path, full ? " full" : " meta");
}

kj::Maybe<kj::AutoCloseFd> Mirrors::connect(const ServiceTerms::MirrorTerms& mirror, kj::StringPtr vm,
                                            kj::StringPtr rule) {
  auto connected = connectNow(mirror.path);
  KJ_IF_MAYBE (fd, connected.tryGet<kj::AutoCloseFd>()) return kj::mv(*fd);
  KJ_IF_MAYBE (leftOut, damper.take(mirror.path)) {
    records.tell(vm, "mirror-lost",
                 kj::str("rule '", rule, "': unix:", mirror.path, " cannot be reached (",
                         errorWords(connected.get<int>()), "), and the channel goes on without it", untold(*leftOut)));
  }
  return nullptr;
}

void Mirrors::fill(const ServiceTerms::MirrorTerms& mirror, kj::StringPtr vm, kj::StringPtr rule, kj::StringPtr who,
                   kj::StringPtr to, schema::Mirror::Builder out) {
  KJ_IF_MAYBE (socket, connect(mirror, vm, rule)) out.setSocket(newDescriptor(kj::mv(*socket)));
  out.setFull(mirror.full);
  out.setWho(who);
  out.setTo(to);
  out.setTerms(mirror.text());
}

}  // namespace postern::host
