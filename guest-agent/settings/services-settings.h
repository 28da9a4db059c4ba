#pragma once
// ServicesSettings: the channels of agent.toml: what this guest exports, and what it has from others.
//
//   [service.http]                         # transport/service/service-target.h
//   target = "tcp:127.0.0.1:80"
//
//   [[consume]]
//   listen = "unix:/run/db1.sock"          # or "tcp:127.0.0.1:5432": where programs of this guest connect to
//   from = "db1"                           # a VM by the name that the host has for it, or "host"
//   service = "postgres"                   # by the name that it has there
//   mode = "0660"                          # of the Unix socket's file; without it 0600
//
// Opens nothing. An unknown key, a value of another type or one that makes no sense is an error that names file and
// line; so are two consumers that would listen at one address.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <sys/types.h>

#include "transport/service/service-target.h"

namespace postern::guest {

constexpr size_t MAX_CONSUMERS = 64;
constexpr mode_t DEFAULT_CONSUMER_MODE = 0600;

struct ConsumerSettings {
  LocalAddress listen;
  kj::String from;
  kj::String service;
  mode_t mode = DEFAULT_CONSUMER_MODE;  // of a Unix socket's file
};

struct ServicesSettings {
  kj::Vector<ServiceTarget> services;  // at most MAX_SERVICES
  kj::Vector<ConsumerSettings> consumers;

  kj::Maybe<const ServiceTarget&> find(kj::StringPtr name) const;
};

// Printable lines, at least one: "agent.toml:7: unknown key 'lisen' in [[consume]]; did you mean 'listen'?"
struct ServicesErrors {
  kj::Array<kj::String> lines;
};

// `text` is the whole agent.toml, of which the rest is somebody else's. For any bytes; does not throw.
kj::OneOf<ServicesSettings, ServicesErrors> parseServicesSettings(kj::StringPtr fileName,
                                                                  kj::ArrayPtr<const char> text);

}  // namespace postern::guest
