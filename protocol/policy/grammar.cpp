#include "protocol/policy/grammar.h"

#include "protocol/policy/grammar-parts.h"
#include "protocol/policy/names.h"
#include "protocol/policy/table-reader.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

// The members of a list of tables may have lost their line to toml++ where they are inline; their first key has one.
Place placeOf(const TomlValue& value, Place file) {
  unsigned line = value.line;
  if (line == 0) {
    for (auto& entry : value.content.get<TomlTable>().entries)
      line = line == 0 ? entry.line : kj::min(line, entry.line);
  }
  return {file.file, line};
}

class FileReader {
 public:
  FileReader(Document& document, Place file, Side side, Problems& problems)
      : document(document), file(file), side(side), problems(problems) {}

  void read(const TomlTable& root, kj::ArrayPtr<const kj::StringPtr> otherKeys) {
    TableReader reader(root, file, side == Side::HOST ? "a policy file" : "agent.toml", problems);
    readVersion(reader);
    readGroups(reader);
    for (auto* rule : reader.tables("allow")) readRule(*rule, Rule::Kind::ALLOW);
    for (auto* rule : reader.tables("deny")) readRule(*rule, Rule::Kind::DENY);
    for (auto* test : reader.tables("test")) {
      TableReader inner(test->content.get<TomlTable>(), placeOf(*test, file), "a test", problems);
      document.tests.add(readExpectation(inner, side, problems));
    }
    if (side == Side::HOST) {
      readVmToVm(reader);
      for (auto* segment : reader.tables("segment")) readSegment(*segment);
      readPorts(reader);
    } else {
      reader.refuse("vm-to-vm", "is the host's to say, in its policy.d");
      reader.refuse("segment", "is the host's to say, in its policy.d");
      reader.refuse("port", "is the host's to say, in its policy.d");
    }
    for (auto key : otherKeys) reader.skip(key);
    reader.finish();
  }

 private:
  Document& document;
  Place file;
  Side side;
  Problems& problems;

  void readVersion(TableReader& reader) {
    if (!reader.has("policy")) {
      reader.skip("policy");
      problems.error({file.file, 1}, "no version; begin the file with 'policy = 1'");
      return;
    }
    auto place = reader.placeOf("policy");
    KJ_IF_MAYBE (version, reader.wholeNumber("policy")) {
      if (*version != 1) {
        problems.error(place, "policy = ", *version, " is of another Postern; this one reads 'policy = 1'");
      }
    }
  }

  void readVmToVm(TableReader& reader) {
    KJ_IF_MAYBE (word, reader.text("vm-to-vm")) {
      if (word->text != "enabled" && word->text != "disabled") {
        problems.error(word->place, "vm-to-vm = ", quote(word->text), "; write \"enabled\" or \"disabled\"");
        return;
      }
      KJ_IF_MAYBE (other, document.vmToVmPlace) {
        problems.error(word->place, "vm-to-vm is written twice; it stands at ", *other, " already");
        return;
      }
      document.vmToVm = word->text == "enabled";
      document.vmToVmPlace = word->place;
    }
  }

  void readGroups(TableReader& reader) {
    KJ_IF_MAYBE (groups, reader.subtable("groups")) {
      TableReader members(*groups, reader.placeOf("groups"), "groups", problems);
      for (auto& entry : groups->entries) {
        Place place{file.file, entry.line};
        if (!isPlainName(entry.key)) {
          problems.error(place, "bad group name ", quote(entry.key), "; write ", PLAIN_NAME_RULE);
        }
        Group group{kj::heapString(entry.key), place, {}};
        KJ_IF_MAYBE (texts, members.texts(entry)) group.members = readParties(*texts, PartyUse::MEMBER, problems);
        document.groups.add(kj::mv(group));
      }
    }
  }

  void readPorts(TableReader& reader) {
    KJ_IF_MAYBE (ports, reader.subtable("port")) {
      TableReader names(*ports, reader.placeOf("port"), "port", problems);
      for (auto& entry : ports->entries) {
        Place place{file.file, entry.line};
        if (!isVmName(entry.key)) {
          problems.error(place, "[port.NAME]: ", quote(entry.key), " is no VM's name; write ", VM_NAME_RULE);
        }
        KJ_IF_MAYBE (table, names.subtable(entry)) {
          TableReader port(*table, place, "[port.NAME]", problems);
          Port out{kj::heapString(entry.key), place, port.boolean("blocked").orDefault(false), {}};
          out.limits = readLimits(port, problems);
          port.finish();
          document.ports.add(kj::mv(out));
        }
      }
    }
  }

  // What all rules have.
  Rule readCommon(TableReader& reader, Rule::Kind kind) {
    Rule rule;
    rule.kind = kind;
    rule.place = reader.place();
    KJ_IF_MAYBE (id, reader.text("id")) {
      if (!isRuleId(id->text)) {
        problems.error(id->place, "bad id ", quote(id->text), "; write ", PLAIN_NAME_RULE);
      }
      rule.id = kj::heapString(id->text);
    } else if (!reader.has("id")) {
      problems.error(rule.place, "a rule without id; add one, such as id = \"ops-power\"");
    }
    KJ_IF_MAYBE (calls, reader.texts("call")) {
      rule.calls = readCalls(*calls, problems);
      requireSome(reader, "call", calls->size());
    } else if (!reader.has("call")) {
      problems.error(rule.place, "a rule without call; add one, such as call = \"power.*\", or \"*\" for every call");
    }
    rule.expires = reader.time("expires");
    // A frequent slip: in TOML everything behind a [[table]] belongs to it.
    for (auto key : {"policy"_kj, "vm-to-vm"_kj, "groups"_kj, "test"_kj}) {
      reader.refuse(key, "belongs to the file and not to this rule; put it before the first [[...]]");
    }
    return rule;
  }

  void requireSome(TableReader& reader, kj::StringPtr key, size_t count) {
    if (count == 0) problems.error(reader.placeOf(key), '\'', key, "' is an empty list, so the rule can never apply");
  }

  void readRule(const TomlValue& value, Rule::Kind kind) {
    auto what = kj::str("[[", kindName(kind), "]]");
    TableReader reader(value.content.get<TomlTable>(), placeOf(value, file), what, problems);
    auto rule = readCommon(reader, kind);
    KJ_IF_MAYBE (from, reader.texts("from")) {
      rule.from = readParties(*from, PartyUse::CALLER, problems);
      requireSome(reader, "from", from->size());
    } else if (side == Side::HOST && !reader.has("from")) {
      problems.error(rule.place, "a rule without from; add one, such as from = \"user:alice\"");
    }
    if (side == Side::HOST) {
      KJ_IF_MAYBE (to, reader.texts("to")) {
        rule.to = readParties(*to, PartyUse::TARGET, problems);
        requireSome(reader, "to", to->size());
      } else if (!reader.has("to")) {
        problems.error(rule.place, "a rule without to; add one, such as to = \"web1\"");
      }
    } else {
      reader.refuse("to", "has no place here: every rule of agent.toml is about this guest");
    }
    readArgs(reader, rule);
    if (kind == Rule::Kind::ALLOW) {
      readAllowance(reader, rule);
    } else {
      for (auto key : {"limit"_kj, "run-as"_kj, "mirror"_kj})
        reader.refuse(key, "has no meaning in a [[deny]]; remove it");
    }
    reader.finish();
    document.rules.add(kj::mv(rule));
  }

  void readArgs(TableReader& reader, Rule& rule) {
    KJ_IF_MAYBE (args, reader.subtable("args")) {
      auto place = reader.placeOf("args");
      TableReader inner(*args, place, "args", problems);
      KJ_IF_MAYBE (paths, inner.texts("path")) {
        rule.paths = readGlobs(*paths, problems);
        requireSome(inner, "path", paths->size());
      }
      if (rule.kind == Rule::Kind::ALLOW) {
        rule.quotas = readQuotas(inner, problems);
      } else {
        for (auto key : {"max-bytes"_kj, "max-files"_kj, "max-depth"_kj, "special"_kj})
          inner.refuse(key, "has no meaning in a [[deny]]; remove it");
      }
      inner.finish();
      if (args->entries.empty())
        problems.error(place, "'args' is empty; write { path = \"/srv/www/**\" } or leave it out");
      for (auto& call : rule.calls) {
        if (call.kind == CallPattern::Kind::EVERY || !hasPath(call.family)) {
          problems.error(place, "'args' is for file.* only, and this rule is about ", quote(call.text),
                         " as well; make two rules of it");
        }
      }
    }
  }

  void readAllowance(TableReader& reader, Rule& rule) {
    KJ_IF_MAYBE (limit, reader.subtable("limit")) {
      TableReader inner(*limit, reader.placeOf("limit"), "limit", problems);
      rule.limits = readLimits(inner, problems);
      inner.finish();
      if (side == Side::GUEST) {
        problems.warning(reader.placeOf("limit"), "'limit' has no effect here: the host keeps limits; write it there");
      }
    }
    KJ_IF_MAYBE (user, reader.text("run-as")) {
      if (!isAccountName(user->text)) {
        problems.error(user->place, "run-as = ", quote(user->text), " is no user's name");
      }
      rule.runAs = kj::heapString(user->text);
    }
    if (side == Side::HOST) {
      readMirror(reader, rule);
    } else {
      reader.refuse("mirror", "is the host's to say, in its policy.d");
    }
  }

  void readMirror(TableReader& reader, Rule& rule) {
    KJ_IF_MAYBE (table, reader.subtable("mirror")) {
      auto place = reader.placeOf("mirror");
      TableReader inner(*table, place, "mirror", problems);
      rule.mirror = readMirrorTable(inner, problems);
      inner.finish();
      for (auto& call : rule.calls) {
        if (call.kind == CallPattern::Kind::EVERY || call.family != CallFamily::SERVICE) {
          problems.error(place, "'mirror' is for service.* only, and this rule is about ", quote(call.text),
                         " as well");
        }
      }
    }
  }

  void readSegment(const TomlValue& value) {
    TableReader reader(value.content.get<TomlTable>(), placeOf(value, file), "[[segment]]", problems);
    auto rule = readCommon(reader, Rule::Kind::SEGMENT);
    for (auto& call : rule.calls) {
      if (call.kind == CallPattern::Kind::EVERY || call.family != CallFamily::SERVICE) {
        problems.error(reader.placeOf("call"), "a segment is for service.* only, and this one has ", quote(call.text));
      }
    }
    KJ_IF_MAYBE (texts, reader.texts("promiscuous"))
      rule.promiscuous = readParties(*texts, PartyUse::SEGMENT, problems);
    KJ_IF_MAYBE (texts, reader.texts("isolated")) rule.isolated = readParties(*texts, PartyUse::SEGMENT, problems);
    KJ_IF_MAYBE (communities, reader.subtable("community")) {
      TableReader inner(*communities, reader.placeOf("community"), "community", problems);
      for (auto& entry : communities->entries) {
        if (!isPlainName(entry.key)) {
          problems.error({file.file, entry.line}, "bad community name ", quote(entry.key), "; write ", PLAIN_NAME_RULE);
        }
        KJ_IF_MAYBE (texts, inner.texts(entry)) {
          rule.communities.add(Community{kj::heapString(entry.key), readParties(*texts, PartyUse::SEGMENT, problems)});
        }
      }
    }
    KJ_IF_MAYBE (limit, reader.subtable("limit")) {
      TableReader inner(*limit, reader.placeOf("limit"), "limit", problems);
      rule.limits = readLimits(inner, problems);
      inner.finish();
    }
    readMirror(reader, rule);
    for (auto key : {"from"_kj, "to"_kj}) {
      reader.refuse(key, "has no place in a [[segment]]; write promiscuous, community or isolated");
    }
    reader.finish();
    document.rules.add(kj::mv(rule));
  }
};

}  // namespace

void readInto(Document& document, const SourceText& source, const Grammar& grammar, Problems& problems) {
  kj::StringPtr name = document.files.add(kj::heapString(source.fileName));
  auto parsed = parseToml(source.text);
  KJ_IF_MAYBE (wrong, parsed.tryGet<TomlError>()) {
    problems.error({name, wrong->line}, wrong->text);
    return;
  }
  FileReader(document, {name, 0}, grammar.side, problems).read(parsed.get<TomlTable>(), grammar.otherKeys);
}

}  // namespace postern::policy
