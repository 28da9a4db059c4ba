#include "protocol/policy/grants.h"

#include <kj/debug.h>

#include <algorithm>

#include "protocol/policy/load.h"
#include "protocol/policy/names.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

// Calls that share a path and a user, or have neither.
struct Part {
  kj::String path;   // empty: calls without one
  kj::String runAs;  // empty: the grant does not say
  kj::Vector<kj::String> calls;

  void add(kj::StringPtr call) {
    for (auto& known : calls) {
      if (known == call) return;
    }
    calls.add(kj::heapString(call));
  }
};

constexpr kj::StringPtr RUN_AS = ":run-as="_kj;

struct PathAndUser {
  kj::String path;
  kj::Maybe<kj::String> runAs;
};
// "/srv/www:run-as=www-data".
PathAndUser splitRunAs(kj::StringPtr text) {
  for (size_t at = 0; at + RUN_AS.size() <= text.size(); ++at) {
    if (!text.slice(at).startsWith(RUN_AS)) continue;
    return {kj::heapString(text.slice(0, at)), kj::heapString(text.slice(at + RUN_AS.size()))};
  }
  return {kj::heapString(text), nullptr};
}

bool isPattern(kj::StringPtr path) {
  return path.findFirst('*') != nullptr || path.findFirst('?') != nullptr;
}

// As a rule has it: a path without a pattern stands for itself and what lies below it.
kj::String pathArgument(kj::StringPtr path) {
  if (isPattern(path)) return tomlString(path);
  auto below = path == "/" ? kj::str("/**") : kj::str(path, "/**");
  return kj::str("[", tomlString(path), ", ", tomlString(below), "]");
}

class GrantList {
 public:
  GrantList() { parts.add(); }

  kj::Maybe<kj::String> add(kj::StringPtr grant) {
    size_t end = grant.findFirst(':').orDefault(grant.size());
    bool hasPathPart = end < grant.size();
    kj::StringPtr path = hasPathPart ? grant.slice(end + 1) : ""_kj;
    auto word = kj::heapString(grant.slice(0, end));
    for (auto family : {"info"_kj, "power"_kj, "file"_kj}) {
      if (word == family) word = kj::str(family, ".*");
    }
    if (word == "status") word = kj::str("status.read");
    auto parsed = parseCallPattern(word);
    KJ_IF_MAYBE (wrong, parsed.tryGet<kj::String>()) return kj::str("grant ", quote(grant), ": ", *wrong);
    auto& call = parsed.get<CallPattern>();
    if (call.kind == CallPattern::Kind::EVERY) {
      return kj::str("grant '*' is everything at once; name what you grant, such as ping,info,power");
    }
    if (!isCallable(call.family, PartyKind::HOST, PartyKind::VM)) {
      return kj::str("grant ", quote(grant), " is no call of a VM; write a rule in policy.d for it");
    }
    if (!hasPath(call.family)) {
      if (hasPathPart) {
        return kj::str("grant ", quote(grant), ": only file calls have a path; write ", quote(word));
      }
      parts[0].add(word);
      return nullptr;
    }
    if (path.size() == 0) {
      return kj::str("grant ", quote(grant), " lacks a path; write ", quote(kj::str(word, ":/srv/**")), " or such");
    }
    return addFileCall(grant, word, path);
  }

  kj::Vector<Part>& all() { return parts; }

 private:
  kj::Vector<Part> parts;  // the first is without a path

  kj::Maybe<kj::String> addFileCall(kj::StringPtr grant, kj::StringPtr word, kj::StringPtr pathPart) {
    auto [path, runAs] = splitRunAs(pathPart);
    auto glob = PathGlob::parse(path);
    KJ_IF_MAYBE (wrong, glob.tryGet<kj::String>()) return kj::str("grant ", quote(grant), ": ", *wrong);
    KJ_IF_MAYBE (user, runAs) {
      if (!isAccountName(*user)) return kj::str("grant ", quote(grant), ": ", quote(*user), " is not a user's name");
    }
    partFor(path, runAs.orDefault(nullptr)).add(word);
    return nullptr;
  }

  Part& partFor(kj::StringPtr path, kj::StringPtr runAs) {
    for (auto& part : parts) {
      if (part.path == path && part.runAs == runAs) return part;
    }
    return parts.add(Part{kj::heapString(path), kj::heapString(runAs), {}});
  }
};

// Rules of one side; `head` holds the lines that each has beside its id, calls and path. Whom the guest runs as is the
// guest's to say.
kj::String rulesOf(kj::ArrayPtr<const Part> parts, kj::StringPtr id, kj::StringPtr head, Side side) {
  kj::Vector<kj::String> rules;
  for (auto& part : parts) {
    if (part.calls.empty()) continue;
    auto number = rules.empty() ? kj::String() : kj::str(':', rules.size() + 1);
    auto args = part.path.size() == 0 ? kj::String() : kj::str("args = { path = ", pathArgument(part.path), " }\n");
    bool hasUser = side == Side::GUEST && part.runAs.size() > 0;
    auto runAs = hasUser ? kj::str("run-as = ", tomlString(part.runAs), "\n") : kj::String();
    rules.add(kj::str("\n[[allow]]\nid = ", tomlString(kj::str(id, number)), "\n", head,
                      "call = ", tomlStrings(part.calls), "\n", args, runAs));
  }
  return kj::strArray(rules, "");
}

kj::Maybe<kj::String> check(kj::StringPtr text, Side side) {
  SourceText source{"grants"_kj, text};
  auto result = load(kj::arrayPtr(&source, 1), {side, kj::UNIX_EPOCH});
  KJ_IF_MAYBE (errors, result.tryGet<kj::Array<Problem>>()) return kj::heapString((*errors)[0].text);
  return nullptr;
}

kj::Maybe<kj::String> checkPrincipal(kj::StringPtr principal) {
  bool good = principal == "host" || (principal.startsWith("user:") && isAccountName(principal.slice(5))) ||
              (principal.startsWith("group:") && isAccountName(principal.slice(6)));
  if (good) return nullptr;
  return kj::str(quote(principal),
                 " cannot be granted anything; write user:NAME, group:NAME or host (everybody on it)");
}

}  // namespace

kj::OneOf<Grants, kj::String> writeGrants(const GrantRequest& request) {
  if (!isVmName(request.vm)) return kj::str("bad VM name ", quote(request.vm), "; a name has ", VM_NAME_RULE);
  if (request.principals.size() == 0) return kj::str("nobody to grant to; write --to user:NAME");
  kj::Vector<kj::String> principals;
  for (auto principal : request.principals) {
    KJ_IF_MAYBE (wrong, checkPrincipal(principal)) return kj::mv(*wrong);
    principals.add(kj::heapString(principal));
  }

  GrantList guest;
  for (auto list : request.grants) {
    for (kj::StringPtr rest = list;;) {
      auto comma = rest.findFirst(',');
      size_t end = comma.orDefault(rest.size());
      auto word = kj::heapString(rest.slice(0, end));
      KJ_IF_MAYBE (wrong, guest.add(word)) return kj::mv(*wrong);
      if (comma == nullptr) break;
      rest = rest.slice(end + 1);
    }
  }
  bool grantsAny = false;
  for (auto& part : guest.all()) grantsAny |= !part.calls.empty();
  if (!grantsAny) return kj::str("nothing to grant; write --grant ping,info,power or such");

  auto guestRules = rulesOf(guest.all(), "grant", "", Side::GUEST);
  guest.all()[0].add("status.read");
  auto head = kj::str("from = ", tomlStrings(principals), "\nto = ", tomlString(request.vm), "\n");
  auto hostRules = rulesOf(guest.all(), kj::str("grant-", request.vm), head, Side::HOST);
  Grants grants{kj::str("# Written when ", request.vm,
                        " was enrolled with these grants; removed with it.\npolicy = 1\n", hostRules),
                kj::str("# What the host was granted in this guest when it was enrolled.\npolicy = 1\n", guestRules)};
  KJ_IF_MAYBE (wrong, check(grants.hostPolicy, Side::HOST)) return kj::mv(*wrong);
  KJ_IF_MAYBE (wrong, check(grants.guestPolicy, Side::GUEST)) return kj::mv(*wrong);
  return kj::mv(grants);
}

}  // namespace postern::policy
