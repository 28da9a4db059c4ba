#pragma once
// LibvirtDoor: posternd's way to postern-libvirt, the only program of Postern's that links libvirt. It runs apart, as a
// user whom libvirtd lets in, so that neither libvirt's blocking calls nor its rights are in posternd; where it does
// not run, every call says so and nothing else changes.
//
// A connection to its socket is one conversation. It begins with one line of at most MAX_DOOR_LINE_BYTES each way:
//
//   monitor DOMAIN      OK, and then QMP as far as QmpWatch speaks it (libvirt/monitor.h)
//   channel DOMAIN      OK with the descriptor of the domain's channel, connected; or CID N, until the other end closes
//                       because the domain has stopped. While the domain is off the answer waits for its start.
//   anything else       ERROR and a line for a person, as the answer to these two may be
//
// One loop. Promises are cancelled by dropping them; the door outlives them.

#include <kj/async-unix.h>

#include "transport/connection.h"

namespace postern::host {

constexpr size_t MAX_DOOR_LINE_BYTES = 512;
constexpr auto MONITOR_DEADLINE = 10 * kj::SECONDS;  // libvirtd may be starting

class LibvirtDoor {
 public:
  // `port` outlives this; `socket` is copied.
  LibvirtDoor(kj::UnixEventPort& port, kj::StringPtr socket) : port(port), socket(kj::str(socket)) {}
  KJ_DISALLOW_COPY(LibvirtDoor);

  kj::Promise<Connected> monitor(kj::StringPtr domain) const;

  struct GuestCid {
    uint32_t cid;
    kj::Promise<void> stopped;  // owns the conversation
  };
  // No deadline: a domain that is off may start next year.
  kj::Promise<kj::OneOf<Connection, GuestCid, TransportError>> channel(kj::StringPtr domain) const;

 private:
  kj::UnixEventPort& port;
  const kj::String socket;
};

}  // namespace postern::host
