#include "protocol/policy/grammar-parts.h"

#include "protocol/policy/bounds.h"
#include "protocol/policy/names.h"
#include "protocol/policy/units.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

using Kind = Party::Kind;

bool isAllowed(Kind kind, PartyUse use) {
  switch (use) {
    case PartyUse::CALLER:
      return true;
    case PartyUse::TARGET:
      return kind != Kind::USER && kind != Kind::HOST_GROUP;
    case PartyUse::MEMBER:
      return kind != Kind::HOST && kind != Kind::ANY;
    case PartyUse::SEGMENT:
      return kind == Kind::VM || kind == Kind::TAG || kind == Kind::GROUP;
    case PartyUse::TEST_CALLER:
      return kind != Kind::GROUP;
    case PartyUse::TEST_TARGET:
      return kind != Kind::GROUP && kind != Kind::USER && kind != Kind::HOST_GROUP;
  }
  KJ_UNREACHABLE;
}

kj::StringPtr allowedForms(PartyUse use) {
  switch (use) {
    case PartyUse::CALLER:
      return "user:NAME, group:NAME, host, a VM's name, tag:NAME, @GROUP or any"_kj;
    case PartyUse::TARGET:
      return "a VM's name, tag:NAME, @GROUP, any (VM) or host"_kj;
    case PartyUse::MEMBER:
      return "user:NAME, group:NAME, a VM's name, tag:NAME or @GROUP"_kj;
    case PartyUse::SEGMENT:
      return "a VM's name, tag:NAME or @GROUP"_kj;
    case PartyUse::TEST_CALLER:
      return "user:NAME, group:NAME, host, a VM's name, tag:NAME or any"_kj;
    case PartyUse::TEST_TARGET:
      return "a VM's name, tag:NAME, any (VM) or host"_kj;
  }
  KJ_UNREACHABLE;
}

constexpr kj::StringPtr PREFIXES[] = {"user"_kj, "group"_kj, "tag"_kj};

kj::OneOf<Party, kj::String> parseParty(PlacedText from) {
  auto text = from.text;
  auto party = [&](Kind kind, kj::StringPtr name) { return Party{kind, kj::heapString(name), from.place}; };
  if (text == "host") return party(Kind::HOST, "");
  if (text == "any") return party(Kind::ANY, "");
  if (text.startsWith("@")) {
    auto name = text.slice(1);
    if (isPlainName(name)) return party(Kind::GROUP, name);
    return kj::str("bad group name ", quote(text), "; write '@' and the name of one of the policy's groups");
  }
  KJ_IF_MAYBE (colon, text.findFirst(':')) {
    auto prefix = kj::heapString(text.slice(0, *colon));
    auto name = text.slice(*colon + 1);
    if (prefix == "user" || prefix == "group") {
      if (isAccountName(name)) return party(prefix == "user" ? Kind::USER : Kind::HOST_GROUP, name);
      return kj::str("bad name in ", quote(text), "; behind '", prefix,
                     ":' stands a name of the host, without spaces around it");
    }
    if (prefix == "tag") {
      if (isPlainName(name)) return party(Kind::TAG, name);
      return kj::str("bad tag in ", quote(text), "; a tag has ", PLAIN_NAME_RULE);
    }
    return kj::str("unknown prefix in ", quote(text), didYouMean(prefix, PREFIXES));
  }
  if (isVmName(text)) return party(Kind::VM, text);
  return kj::str("bad VM name ", quote(text), "; a name has ", VM_NAME_RULE);
}

constexpr auto someBytes = [](kj::StringPtr text) { return parseSize(text); };
constexpr auto bytesOrNone = [](kj::StringPtr text) { return parseSize(text, Zero::ALLOWED); };
constexpr auto someRate = [](kj::StringPtr text) { return parseRate(text); };
constexpr auto rateOrNone = [](kj::StringPtr text) { return parseRate(text, Zero::ALLOWED); };

template <typename Parse>
void readUnit(TableReader& table, kj::StringPtr key, Parse&& parse, kj::Maybe<uint64_t>& out, Problems& problems) {
  KJ_IF_MAYBE (text, table.text(key)) {
    auto parsed = parse(text->text);
    KJ_IF_MAYBE (wrong, parsed.template tryGet<UnitError>()) {
      problems.error(text->place, key, " = ", *wrong);
    } else {
      out = parsed.template get<uint64_t>();
    }
  }
}

void warnOfZero(TableReader& table, kj::StringPtr key, const kj::Maybe<uint64_t>& limit, Problems& problems) {
  KJ_IF_MAYBE (number, limit) {
    if (*number == 0) {
      problems.warning(table.placeOf(key), '\'', key,
                       "' is 0: what the rules allow is refused here all the same; a "
                       "[[deny]] says so to whoever asks");
    }
  }
}

// Null, with an error, if it is no Unix socket's.
kj::Maybe<kj::String> readMirrorTarget(PlacedText text, Problems& problems) {
  auto wrong = [&](kj::StringPtr why) -> kj::Maybe<kj::String> {
    problems.error(text.place, "mirror.to = ", quote(text.text), why,
                   "; write the Unix socket of a program of the host, such as \"unix:/run/ids/postern.sock\"");
    return nullptr;
  };
  if (!text.text.startsWith("unix:")) return wrong(" does not begin with 'unix:'");
  auto path = text.text.slice(5);
  if (!path.startsWith("/")) return wrong(" has no path from the root '/'");
  for (char c : path) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') return wrong(" has a control character");
  }
  if (path == "/" || !isCanonicalPath(path)) return wrong(" has '.', '..', '//' or a slash at its end");
  if (path.size() > MAX_SOCKET_PATH_BYTES) return wrong(kj::str(" has over ", MAX_SOCKET_PATH_BYTES, " bytes of path"));
  return kj::heapString(path);
}

}  // namespace

kj::Vector<Party> readParties(kj::ArrayPtr<const PlacedText> texts, PartyUse use, Problems& problems) {
  kj::Vector<Party> out;
  for (auto& text : texts) {
    if (problems.isFull()) break;
    auto parsed = parseParty(text);
    KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) {
      problems.error(text.place, *wrong);
      continue;
    }
    auto& party = parsed.get<Party>();
    if (!isAllowed(party.kind, use)) {
      problems.error(text.place, quote(text.text), " cannot stand here; write ", allowedForms(use));
      continue;
    }
    out.add(kj::mv(party));
  }
  return out;
}

kj::Vector<CallPattern> readCalls(kj::ArrayPtr<const PlacedText> texts, Problems& problems) {
  kj::Vector<CallPattern> out;
  for (auto& text : texts) {
    if (&text - texts.begin() == MAX_CALLS) {
      problems.error(text.place, "over ", MAX_CALLS,
                     " calls in one rule; write '*', a family's 'power.*', or two rules");
      break;
    }
    auto parsed = parseCallPattern(text.text);
    KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) {
      problems.error(text.place, *wrong);
    } else {
      out.add(kj::mv(parsed.get<CallPattern>()));
    }
  }
  return out;
}

kj::Vector<PathGlob> readGlobs(kj::ArrayPtr<const PlacedText> texts, Problems& problems) {
  kj::Vector<PathGlob> out;
  for (auto& text : texts) {
    if (problems.isFull()) break;
    auto parsed = PathGlob::parse(text.text);
    KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) {
      problems.error(text.place, *wrong);
    } else if (out.size() == MAX_GLOBS) {
      problems.error(text.place, "over ", MAX_GLOBS, " paths in one rule; make two rules of it");
      break;
    } else {
      out.add(kj::mv(parsed.get<PathGlob>()));
    }
  }
  return out;
}

Limits readLimits(TableReader& table, Problems& problems) {
  Limits limits;
  readUnit(table, "rate", rateOrNone, limits.rate, problems);
  readUnit(table, "burst", someBytes, limits.burst, problems);
  readUnit(table, "peak", someRate, limits.peak, problems);
  KJ_IF_MAYBE (open, table.wholeNumber("open", 0)) limits.open = uint64_t(*open);
  readUnit(table, "calls", parseCallRate, limits.callsPerHour, problems);
  readUnit(table, "bytes", bytesOrNone, limits.bytes, problems);
  warnOfZero(table, "rate", limits.rate, problems);
  warnOfZero(table, "open", limits.open, problems);
  warnOfZero(table, "calls", limits.callsPerHour, problems);
  warnOfZero(table, "bytes", limits.bytes, problems);
  for (auto key : {"burst"_kj, "peak"_kj}) {
    if (table.has(key) && !table.has("rate")) {
      problems.error(table.placeOf(key), '\'', key, "' means nothing without 'rate'; add rate = \"200 MiB/s\"");
    }
  }
  KJ_IF_MAYBE (peak, limits.peak) {
    KJ_IF_MAYBE (rate, limits.rate) {
      if (*peak < *rate) problems.error(table.placeOf("peak"), "'peak' is below 'rate'; it is the speed of a burst");
    }
  }
  return limits;
}

Quotas readQuotas(TableReader& table, Problems& problems) {
  Quotas quotas;
  readUnit(table, "max-bytes", someBytes, quotas.bytes, problems);
  KJ_IF_MAYBE (files, table.wholeNumber("max-files")) quotas.files = uint64_t(*files);
  KJ_IF_MAYBE (depth, table.wholeNumber("max-depth")) {
    if (*depth > MAX_DEPTH_QUOTA) {
      problems.error(table.placeOf("max-depth"), "'max-depth' is ", *depth, "; nothing is copied that is deeper than ",
                     MAX_DEPTH_QUOTA, " folders, so leave it out");
    }
    quotas.depth = uint64_t(*depth);
  }
  quotas.special = table.boolean("special").orDefault(false);
  return quotas;
}

kj::Maybe<Mirror> readMirrorTable(TableReader& table, Problems& problems) {
  auto to = table.text("to");
  auto copy = table.text("copy");
  KJ_IF_MAYBE (target, to) {
    KJ_IF_MAYBE (word, copy) {
      if (word->text != "meta" && word->text != "full") {
        problems.error(word->place, "mirror.copy = ", quote(word->text), "; write \"meta\" or \"full\"");
        return nullptr;
      }
      auto which = word->text == "full" ? Mirror::Copy::FULL : Mirror::Copy::META;
      KJ_IF_MAYBE (path, readMirrorTarget(*target, problems)) return Mirror{kj::mv(*path), which};
      return nullptr;
    }
  }
  if (!table.has("to") || !table.has("copy")) {
    problems.error(table.place(),
                   "'mirror' needs both: mirror = { to = \"unix:/run/ids.sock\", copy = \"meta\" or \"full\" }");
  }
  return nullptr;
}

void checkOneParty(kj::ArrayPtr<const Party> parties, Place place, kj::StringPtr key, Problems& problems) {
  unsigned users = 0, groups = 0, vms = 0, tags = 0, alone = 0;
  for (auto& party : parties) {
    users += party.kind == Kind::USER;
    groups += party.kind == Kind::HOST_GROUP;
    vms += party.kind == Kind::VM;
    tags += party.kind == Kind::TAG;
    alone += party.kind == Kind::HOST || party.kind == Kind::ANY;
  }
  if (parties.size() == 0) problems.error(place, "a test's '", key, "' names nobody");
  bool onHost = users + groups > 0, isVm = vms + tags > 0;
  if (users > 1 || vms > 1 || unsigned(onHost) + unsigned(isVm) + alone > 1) {
    problems.error(place, "a test's '", key,
                   "' is one party: a user with his groups, a VM with its tags, host, or any");
  }
}

}  // namespace postern::policy
