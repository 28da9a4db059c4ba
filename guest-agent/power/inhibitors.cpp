#include "guest-agent/power/inhibitors.h"

#include <kj/common.h>
#include <kj/vector.h>
#include <stdio.h>
#include <systemd/sd-bus.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/systemd-library.h"

namespace postern::guest {

namespace {

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

template <typename Function>
using Found = Function* const;

// What is asked of libsystemd's bus. Nothing is released: the process ends with the answer.
struct Bus {
  Found<decltype(sd_bus_open_system)> openSystem = systemdFunction<decltype(sd_bus_open_system)>("sd_bus_open_system");
  Found<decltype(sd_bus_call_method)> callMethod = systemdFunction<decltype(sd_bus_call_method)>("sd_bus_call_method");
  Found<decltype(sd_bus_message_enter_container)> enter =
      systemdFunction<decltype(sd_bus_message_enter_container)>("sd_bus_message_enter_container");
  Found<decltype(sd_bus_message_read)> read = systemdFunction<decltype(sd_bus_message_read)>("sd_bus_message_read");

  bool isThere() const { return openSystem != nullptr && callMethod != nullptr && enter != nullptr && read != nullptr; }
};

// Each line of it is one lock: what it holds off ("shutdown:sleep"), who, why, how, by whom.
int printLocks(const Bus& bus, sd_bus_message* message) {
  if (bus.enter(message, 'a', "(ssssuu)") < 0) return 1;
  const char *what, *who, *why, *mode;
  uint32_t uid, pid;
  size_t count = 0;
  while (bus.read(message, "(ssssuu)", &what, &who, &why, &mode, &uid, &pid) > 0) {
    if (kj::StringPtr(mode) != "block" || ++count > 1024) continue;
    printf("%s\t%s\t%s\n", boundedText(kj::StringPtr(what), 128).cStr(), boundedText(kj::StringPtr(who), 128).cStr(),
           boundedText(kj::StringPtr(why), 256).cStr());
  }
  return fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace

int writeInhibitors() {
  Bus bus;
  sd_bus* connection = nullptr;
  sd_bus_message* reply = nullptr;
  if (!bus.isThere() || bus.openSystem(&connection) < 0) return 1;
  if (bus.callMethod(connection, "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager",
                     "ListInhibitors", nullptr, &reply, nullptr) < 0) {
    return 1;
  }
  return printLocks(bus, reply);
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
