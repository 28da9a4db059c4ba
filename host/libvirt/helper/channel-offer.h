#pragma once
// ChannelOffer: the way into one domain, as soon as it runs: a descriptor connected to its channel's socket, or the
// context id of its vsock. The answer to `channel DOMAIN` (door.h).

#include "host/libvirt/helper/follower.h"

namespace postern::libvirt {

class ChannelOffer final : public Follower {
 public:
  ChannelOffer(const Libvirt& libvirt, kj::StringPtr domain, int socket);

 private:
  bool offered = false;

  void lifecycle(int event, int detail) override;
  void received(kj::ArrayPtr<const char>) override { end(); }  // there is nothing more to say

  void offer();
  void pass(kj::StringPtr path);
};

}  // namespace postern::libvirt
