#include "transport/service/service-target.h"

#include <string.h>

#include <algorithm>

#include "protocol/policy/names.h"
#include "protocol/policy/problem.h"
#include "protocol/policy/table-reader.h"
#include "protocol/policy/wording.h"

namespace postern {

namespace {

using policy::Place;
using policy::Problems;
using policy::TableReader;
using policy::TomlArray;
using policy::TomlEntry;
using policy::TomlTable;
using policy::TomlValue;

constexpr kj::StringPtr TARGET_FORMS =
    "\"tcp:127.0.0.1:80\", \"unix:/run/app.sock\" or a program, [\"/path\", \"argument\"]"_kj;

Place at(unsigned line) {
  return {""_kj, line};
}

bool hasNul(kj::StringPtr text) {
  return memchr(text.begin(), 0, text.size()) != nullptr;
}

// One service's table.
class ServiceReader {
 public:
  ServiceReader(const TomlEntry& entry, const TomlTable& table, Problems& problems)
      : problems(problems),
        table(table),
        what(kj::str("[service.", entry.key, "]")),
        reader(table, at(entry.line), what, problems) {
    target.name = kj::str(entry.key);
  }

  ServiceTarget read() {
    readTarget();
    readUser();
    readProxy();
    reader.finish();
    return kj::mv(target);
  }

 private:
  Problems& problems;
  const TomlTable& table;
  kj::String what;
  TableReader reader;
  ServiceTarget target;

  void readTarget() {
    // A text and a list of one text are not the same here.
    reader.skip("target");
    for (auto& entry : table.entries) {
      if (entry.key == "target") return takeTarget(*entry.value);
    }
    problems.error(reader.place(), what, " has no target; write target = ", TARGET_FORMS);
  }

  void takeTarget(const TomlValue& value) {
    KJ_IF_MAYBE (text, value.content.tryGet<kj::String>()) {
      takeAddress(*text, value.line);
    } else KJ_IF_MAYBE (list, value.content.tryGet<TomlArray>()) {
      takeProgram(*list, value.line);
    } else {
      problems.error(at(value.line), "'target' in ", what, " is ", policy::whatIs(value), "; write ", TARGET_FORMS);
    }
  }

  void takeAddress(kj::StringPtr text, unsigned line) {
    auto parsed = parseLocalAddress(text);
    KJ_IF_MAYBE (error, parsed.tryGet<LocalAddressError>()) {
      problems.error(at(line), "'target' in ", what, ": ", error->text);
      return;
    }
    auto& address = parsed.get<LocalAddress>();
    KJ_IF_MAYBE (tcp, address.tryGet<TcpAddress>()) {
      if (tcp->port == 0) problems.error(at(line), "'target' in ", what, " has port 0, where nobody listens");
    }
    target.leadsTo = kj::mv(address);
  }

  void takeProgram(const TomlArray& list, unsigned line) {
    kj::Vector<kj::String> argv;
    for (auto& value : list.values) {
      KJ_IF_MAYBE (text, value.content.tryGet<kj::String>()) {
        if (hasNul(*text)) return problems.error(at(value.line), "an argument in ", what, " has a NUL");
        argv.add(kj::str(*text));
      } else {
        return problems.error(at(value.line), "'target' in ", what, " has ", policy::whatIs(value),
                              " among its arguments; write each as a text in quotes");
      }
    }
    if (argv.empty() || !argv[0].startsWith("/")) {
      return problems.error(at(line), "'target' in ", what,
                            " wants the program's whole path first, as in [\"/usr/sbin/sshd\", \"-i\"]");
    }
    if (argv.size() > MAX_SERVICE_ARGUMENTS) {
      return problems.error(at(line), "'target' in ", what, " has ", argv.size(), " arguments; there is room for ",
                            MAX_SERVICE_ARGUMENTS);
    }
    target.leadsTo = ServiceProgram{argv.releaseAsArray()};
  }

  bool leadsToTcp() { return target.leadsTo.is<LocalAddress>() && target.leadsTo.get<LocalAddress>().is<TcpAddress>(); }

  // T100, T115
  void readUser() {
    KJ_IF_MAYBE (user, reader.text("user")) {
      if (!policy::isAccountName(user->text)) {
        problems.error(user->place, "'user' in ", what, " is ", policy::quote(user->text), ", which is no user's name");
      } else if (leadsToTcp()) {
        problems.error(user->place, "'user' in ", what,
                       " means nothing to a TCP target, which does not see it; remove it");
      } else {
        target.user = kj::str(user->text);
      }
    } else if (target.leadsTo.is<ServiceProgram>()) {
      problems.error(
          reader.place(), what,
          " does not say as whom its program runs; write user = \"nobody\", or who is right for it; \"root\" "
          "only if it has to be");
    }
  }

  void readProxy() {
    KJ_IF_MAYBE (version, reader.text("proxy")) {
      if (version->text != "v2") {
        problems.error(version->place, "'proxy' in ", what, " is ", policy::quote(version->text),
                       "; write \"v2\" or leave it out");
      } else if (target.leadsTo.is<ServiceProgram>()) {
        problems.error(version->place, "'proxy' in ", what,
                       " is for sockets; a program finds who connects in POSTERN_PEER");
      } else {
        target.proxy = true;
      }
    }
  }
};

void readTable(const TomlTable& services, kj::Vector<ServiceTarget>& targets, Problems& problems) {
  for (auto& entry : services.entries) {
    if (problems.isFull()) return;
    auto place = at(entry.line);
    if (targets.size() == MAX_SERVICES) {
      return problems.error(place, services.entries.size(), " services; there is room for ", MAX_SERVICES);
    }
    if (!policy::isServiceName(entry.key)) {
      problems.error(place, policy::quote(entry.key),
                     " is no service's name: 1 to 64 letters, digits, '-' and '_', beginning with a letter or digit");
    } else KJ_IF_MAYBE (table, entry.value->content.tryGet<TomlTable>()) {
      targets.add(ServiceReader(entry, *table, problems).read());
    } else {
      problems.error(place, "'service.", entry.key, "' is ", policy::whatIs(*entry.value), "; write it as [service.",
                     entry.key, "]");
    }
  }
}

void appendTlv(kj::Vector<kj::byte>& header, kj::byte type, kj::StringPtr value) {
  size_t size = kj::min(value.size(), size_t(0x4000));
  header.add(type);
  header.add(kj::byte(size >> 8));
  header.add(kj::byte(size));
  header.addAll(value.asBytes().slice(0, size));
}

}  // namespace

// T96
kj::Vector<ServiceTarget> readServices(const TomlEntry& entry, kj::Vector<kj::String>& problems) {
  kj::Vector<ServiceTarget> targets;
  Problems found;
  KJ_IF_MAYBE (table, entry.value->content.tryGet<TomlTable>()) {
    readTable(*table, targets, found);
  } else {
    found.error(at(entry.line), "'", entry.key, "' is ", policy::whatIs(*entry.value),
                "; write [service.NAME], a table for each");
  }
  for (auto& problem : found.takeErrors()) {
    problems.add(problem.line == 0 ? kj::mv(problem.text) : kj::str(problem.line, ": ", problem.text));
  }
  // As the file is not in any order, in one that does not change.
  std::sort(targets.begin(), targets.end(),
            [](const ServiceTarget& a, const ServiceTarget& b) { return a.name < b.name; });
  return targets;
}

kj::Array<kj::byte> proxyHeader(kj::StringPtr peer, kj::StringPtr service) {
  constexpr kj::byte SIGNATURE[] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};
  constexpr kj::byte VERSION_2_PROXY = 0x21;
  constexpr kj::byte UNSPECIFIED = 0x00;
  constexpr kj::byte TLV_PEER = 0xE0, TLV_SERVICE = 0xE1;
  kj::Vector<kj::byte> tlvs;
  appendTlv(tlvs, TLV_PEER, peer);
  appendTlv(tlvs, TLV_SERVICE, service);
  kj::Vector<kj::byte> header;
  header.addAll(kj::arrayPtr(SIGNATURE, sizeof(SIGNATURE)));
  header.add(VERSION_2_PROXY);
  header.add(UNSPECIFIED);
  header.add(kj::byte(tlvs.size() >> 8));
  header.add(kj::byte(tlvs.size()));
  header.addAll(tlvs);
  return header.releaseAsArray();
}

}  // namespace postern
