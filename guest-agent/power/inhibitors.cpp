#include "guest-agent/power/inhibitors.h"

#include <kj/common.h>
#include <kj/vector.h>
#include <stdio.h>
#include <systemd/sd-bus.h>

#include "guest-agent/bounded-text.h"

namespace postern::guest {

namespace {

constexpr uint64_t BUS_TIMEOUT_MICROSECONDS = 1000000;

using Text = kj::ArrayPtr<const char>;

kj::Vector<Text> split(Text text, char separator) {
  kj::Vector<Text> parts;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] != separator) continue;
    parts.add(text.slice(begin, i));
    begin = i + 1;
  }
  return parts;
}

// Each line of it is one lock: what it holds off ("shutdown:sleep"), who, why, how, by whom.
int printLocks(sd_bus_message* message) {
  if (sd_bus_message_enter_container(message, 'a', "(ssssuu)") < 0) return 1;
  const char *what, *who, *why, *mode;
  uint32_t uid, pid;
  size_t count = 0;
  while (sd_bus_message_read(message, "(ssssuu)", &what, &who, &why, &mode, &uid, &pid) > 0) {
    if (kj::StringPtr(mode) != "block" || ++count > 1024) continue;
    printf("%s\t%s\t%s\n", boundedText(kj::StringPtr(what), 128).cStr(), boundedText(kj::StringPtr(who), 128).cStr(),
           boundedText(kj::StringPtr(why), 256).cStr());
  }
  return fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace

int writeInhibitors() {
  sd_bus* bus = nullptr;
  sd_bus_message* request = nullptr;
  sd_bus_message* reply = nullptr;
  KJ_DEFER({
    sd_bus_message_unref(reply);
    sd_bus_message_unref(request);
    sd_bus_flush_close_unref(bus);
  });
  if (sd_bus_open_system(&bus) < 0) return 1;
  if (sd_bus_message_new_method_call(bus, &request, "org.freedesktop.login1", "/org/freedesktop/login1",
                                     "org.freedesktop.login1.Manager", "ListInhibitors") < 0) {
    return 1;
  }
  if (sd_bus_call(bus, request, BUS_TIMEOUT_MICROSECONDS, nullptr, &reply) < 0) return 1;
  return printLocks(reply);
}

kj::Array<kj::String> parseInhibitors(kj::ArrayPtr<const kj::byte> untrusted, PowerAction action) {
  auto wanted = action == PowerAction::SUSPEND ? "sleep"_kj : "shutdown"_kj;
  kj::Vector<kj::String> names;
  for (auto line : split(untrusted.asChars(), '\n')) {
    auto parts = split(line, '\t');
    if (parts.size() != 3 || names.size() == MAX_INHIBITORS) continue;
    bool holds = false;
    for (auto what : split(parts[0], ':')) holds = holds || what == wanted.asArray();
    if (holds) names.add(kj::str(boundedText(parts[1], 128), " (", boundedText(parts[2], 256), ")"));
  }
  return names.releaseAsArray();
}

}  // namespace postern::guest
