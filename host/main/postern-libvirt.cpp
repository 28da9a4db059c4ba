// postern-libvirt: Postern's only program that knows libvirt. A service for posternd, and two steps of
// `postern enroll DOMAIN --libvirt`.

#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "host/libvirt/helper/preparation.h"
#include "host/libvirt/helper/serve.h"
#include "host/log/log.h"
#include "host/paths.h"

namespace postern::libvirt {
namespace {

struct Options {
  std::string uri;
  std::string socket;
  std::string user;
  std::string domain;
  std::string bundle;
};

std::string defaultUri() {
  auto* uri = getenv("LIBVIRT_DEFAULT_URI");
  return uri != nullptr && *uri != '\0' ? uri : "qemu:///system";
}

uid_t uidOf(const std::string& user) {
  if (user.empty()) return geteuid();
  auto* entry = getpwnam(user.c_str());
  if (entry == nullptr) throw LibvirtFailure{kj::str("there is no user ", user.c_str())};
  return entry->pw_uid;
}

int startService(const Options& options) {
  host::setUpLog("postern-libvirt");
  try {
    return serve({kj::str(options.uri.c_str()), kj::str(options.socket.c_str()), uidOf(options.user)});
  } catch (LibvirtFailure& failure) {
    host::logEvent(host::LogLevel::ERROR, "start-failed", failure.text);
    return 1;
  }
}

// What postern reads: the lines, or one that begins with ERROR.
template <typename Do>
int answer(Do&& what) {
  try {
    fputs(what().cStr(), stdout);
    return 0;
  } catch (LibvirtFailure& failure) {
    printf("ERROR %s\n", failure.text.cStr());
    return 1;
  }
}

}  // namespace
}  // namespace postern::libvirt

int main(int argc, char** argv) {
  using namespace postern::libvirt;
  signal(SIGPIPE, SIG_IGN);
  Options options;
  options.uri = defaultUri();
  options.socket = postern::host::Paths("").libvirtSocket.cStr();
  CLI::App app("Tells posternd of libvirt's domains, and prepares them for `postern enroll DOMAIN --libvirt`.",
               "postern-libvirt");
  app.set_version_flag("--version", POSTERN_VERSION);
  app.add_option("--connect", options.uri, "Which libvirtd (default: $LIBVIRT_DEFAULT_URI, or qemu:///system)");
  app.require_subcommand(1);
  auto& service = *app.add_subcommand("serve", "Serves posternd, in the foreground");
  service.add_option("--socket", options.socket, "Where posternd looks for it")->capture_default_str();
  service.add_option("--user", options.user, "posternd's user (default: this one; root may always ask)");
  auto& inspection = *app.add_subcommand("inspect", "Says what the domain has; changes nothing");
  inspection.add_option("DOMAIN", options.domain)->required();
  auto& preparation = *app.add_subcommand("prepare", "Gives the domain its channel and its bundle");
  preparation.add_option("DOMAIN", options.domain)->required();
  preparation.add_option("BUNDLE", options.bundle)->required();
  CLI11_PARSE(app, argc, argv);
  if (service.parsed()) return startService(options);
  return answer([&] {
    Libvirt libvirt(options.uri.c_str());
    return inspection.parsed() ? inspect(libvirt, options.domain.c_str())
                               : prepare(libvirt, options.domain.c_str(), options.bundle.c_str());
  });
}
