#include "transport/connection.h"

#include <string.h>

namespace postern {

kj::String toString(const PeerAddress& peer) {
  KJ_SWITCH_ONEOF(peer) {
    KJ_CASE_ONEOF(p, UnixPeer) return kj::str("uid ", p.uid, " pid ", p.pid);
    KJ_CASE_ONEOF(p, VsockPeer) return kj::str("cid ", p.cid, " port ", p.port);
    KJ_CASE_ONEOF(p, UnknownPeer) return kj::str("unknown");
  }
  KJ_UNREACHABLE;
}

kj::Own<BytePipe> newPipe(kj::UnixEventPort& port, Connection connection) {
  return kj::heap<FdPipe>(port, connection.descriptorKind, connection.fd.release());
}

kj::StringPtr errorWords(int error) {
  const char* words = strerrordesc_np(error);
  return words == nullptr ? kj::StringPtr("unknown error") : kj::StringPtr(words);
}

}  // namespace postern
