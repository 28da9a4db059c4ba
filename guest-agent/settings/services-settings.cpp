#include "guest-agent/settings/services-settings.h"

#include <string.h>

#include "protocol/policy/names.h"
#include "protocol/policy/table-reader.h"
#include "protocol/policy/wording.h"

namespace postern::guest {

namespace {

using policy::Place;
using policy::PlacedText;
using policy::Problems;
using policy::TableReader;
using policy::TomlTable;

constexpr kj::StringPtr CONSUME = "[[consume]]"_kj;
constexpr kj::StringPtr THE_HOST = "host"_kj;

bool isSameAddress(const LocalAddress& one, const LocalAddress& other) {
  KJ_IF_MAYBE (tcp, one.tryGet<TcpAddress>()) {
    if (!other.is<TcpAddress>()) return false;
    auto& second = other.get<TcpAddress>();
    return tcp->isSix == second.isSix && tcp->port == second.port &&
           memcmp(tcp->address, second.address, tcp->isSix ? 16 : 4) == 0;
  }
  return other.is<UnixAddress>() && one.get<UnixAddress>().path == other.get<UnixAddress>().path;
}

bool hasFile(const LocalAddress& address) {
  KJ_IF_MAYBE (unix, address.tryGet<UnixAddress>()) return !unix->path.startsWith("@");
  return false;
}

// "0660" or "660".
kj::Maybe<mode_t> parseMode(kj::StringPtr text) {
  if (text.size() != 3 && (text.size() != 4 || text[0] != '0')) return nullptr;
  mode_t mode = 0;
  for (char c : text) {
    if (c < '0' || c > '7') return nullptr;
    mode = mode * 8 + mode_t(c - '0');
  }
  return mode;
}

// One [[consume]]. Each function reports what is wrong.
class ConsumerReader {
 public:
  ConsumerReader(const TomlTable& table, Place place, Problems& problems)
      : reader(table, place, CONSUME, problems), problems(problems) {}

  // Null if it is of no use.
  kj::Maybe<ConsumerSettings> read() {
    auto listen = readListen();
    auto from =
        readName("from", "a VM's name, or 'host' for the host's own services; a VM's name is "_kj, policy::VM_NAME_RULE,
                 [](kj::StringPtr text) { return text == THE_HOST || policy::isVmName(text); });
    auto service = readName("service", "the name of a service: "_kj,
                            "1 to 64 letters, digits, '-' and '_', beginning with a letter or digit"_kj,
                            [](kj::StringPtr text) { return policy::isServiceName(text); });
    auto mode = readMode(listen);
    reader.finish();
    KJ_IF_MAYBE (address, listen) {
      KJ_IF_MAYBE (f, from) {
        KJ_IF_MAYBE (s, service) return ConsumerSettings{kj::mv(*address), kj::mv(*f), kj::mv(*s), mode};
      }
    }
    return nullptr;
  }

  Place placeOfListen() const { return reader.placeOf("listen"); }

 private:
  TableReader reader;
  Problems& problems;

  kj::Maybe<PlacedText> required(kj::StringPtr key) {
    if (!reader.has(key)) problems.error(reader.place(), CONSUME, " has no '", key, "'");
    return reader.text(key);
  }

  kj::Maybe<LocalAddress> readListen() {
    KJ_IF_MAYBE (text, required("listen")) {
      auto parsed = parseLocalAddress(text->text);
      KJ_IF_MAYBE (error, parsed.tryGet<LocalAddressError>()) {
        problems.error(text->place, "'listen' is no address: ", error->text);
        return nullptr;
      }
      auto& address = parsed.get<LocalAddress>();
      if (address.is<TcpAddress>() && address.get<TcpAddress>().port == 0) {
        problems.error(text->place, "'listen' has port 0; write the port that programs connect to");
        return nullptr;
      }
      return kj::mv(address);
    }
    return nullptr;
  }

  template <typename IsName>
  kj::Maybe<kj::String> readName(kj::StringPtr key, kj::StringPtr wants, kj::StringPtr rule, IsName&& isName) {
    KJ_IF_MAYBE (text, required(key)) {
      if (isName(text->text)) return kj::str(text->text);
      problems.error(text->place, '\'', key, "' is ", policy::quote(text->text), "; it wants ", wants, rule);
    }
    return nullptr;
  }

  mode_t readMode(const kj::Maybe<LocalAddress>& listen) {
    KJ_IF_MAYBE (text, reader.text("mode")) {
      KJ_IF_MAYBE (address, listen) {
        if (!hasFile(*address)) {
          problems.error(text->place, "'mode' is of a Unix socket's file, and ", *address, " has none");
        }
      }
      KJ_IF_MAYBE (mode, parseMode(text->text)) return *mode;
      problems.error(text->place, "'mode' is ", policy::quote(text->text), "; it wants octal digits, such as \"0660\"");
    }
    return DEFAULT_CONSUMER_MODE;
  }
};

void readConsumers(const TomlTable& root, kj::StringPtr fileName, Problems& problems,
                   kj::Vector<ConsumerSettings>& consumers) {
  TableReader reader(root, {fileName, 0}, fileName, problems);
  auto tables = reader.tables("consume");
  if (tables.size() > MAX_CONSUMERS) {
    problems.error({fileName, tables[MAX_CONSUMERS]->line}, "more than ", MAX_CONSUMERS, " of ", CONSUME);
    return;
  }
  kj::Vector<Place> places;
  for (auto* value : tables) {
    ConsumerReader one(value->content.get<TomlTable>(), {fileName, value->line}, problems);
    KJ_IF_MAYBE (consumer, one.read()) {
      for (size_t i = 0; i < consumers.size(); ++i) {
        if (!isSameAddress(consumers[i].listen, consumer->listen)) continue;
        problems.error(one.placeOfListen(), "'listen' is ", consumer->listen, ", where the ", CONSUME, " of line ",
                       places[i].line, " listens already; give each an address of its own");
      }
      places.add(one.placeOfListen());
      consumers.add(kj::mv(*consumer));
    }
  }
}

ServicesErrors oneError(kj::StringPtr fileName, const policy::TomlError& error) {
  return {kj::arr(error.line == 0 ? kj::str(fileName, ": ", error.text)
                                  : kj::str(fileName, ':', error.line, ": ", error.text))};
}

}  // namespace

kj::Maybe<const ServiceTarget&> ServicesSettings::find(kj::StringPtr name) const {
  for (auto& service : services) {
    if (service.name == name) return service;
  }
  return nullptr;
}

kj::OneOf<ServicesSettings, ServicesErrors> parseServicesSettings(kj::StringPtr fileName,
                                                                  kj::ArrayPtr<const char> text) {
  auto parsed = policy::parseToml(text);
  KJ_IF_MAYBE (error, parsed.tryGet<policy::TomlError>()) return oneError(fileName, *error);
  auto& root = parsed.get<TomlTable>();
  ServicesSettings settings;
  kj::Vector<kj::String> ofServices;
  for (auto& entry : root.entries) {
    if (entry.key == "service") settings.services = readServices(entry, ofServices);
  }
  Problems problems;
  readConsumers(root, fileName, problems, settings.consumers);
  if (ofServices.empty() && !problems.hasErrors()) return kj::mv(settings);

  kj::Vector<kj::String> lines;
  for (auto& line : ofServices) lines.add(kj::str(fileName, ':', line));
  for (auto& problem : problems.takeErrors()) lines.add(problem.toString());
  return ServicesErrors{lines.releaseAsArray()};
}

}  // namespace postern::guest
