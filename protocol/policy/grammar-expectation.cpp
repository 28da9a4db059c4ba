// readExpectation(): an entry of `test`.
#include "protocol/policy/grammar-parts.h"
#include "protocol/policy/names.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

void readWant(TableReader& reader, Expectation& test, Problems& problems) {
  KJ_IF_MAYBE (want, reader.text("want")) {
    kj::StringPtr verdict = want->text;
    KJ_IF_MAYBE (space, want->text.findFirst(' ')) {
      auto id = want->text.slice(*space + 1);
      test.ruleId = kj::heapString(id);
      test.wantsAllow = want->text.startsWith("allow ");
      if (isRuleId(id) && (test.wantsAllow || want->text.startsWith("deny "))) return;
    } else {
      test.wantsAllow = verdict == "allow";
      if (test.wantsAllow || verdict == "deny") return;
    }
    problems.error(want->place, "want = ", quote(want->text),
                   "; write \"allow\" or \"deny\", with or without the id of the rule that decides");
  } else if (!reader.has("want")) {
    problems.error(test.place, "a test without want; add want = \"allow\" or want = \"deny\"");
  }
}

}  // namespace

Expectation readExpectation(TableReader& reader, Side side, Problems& problems) {
  Expectation test;
  test.place = reader.place();
  readWant(reader, test, problems);
  KJ_IF_MAYBE (from, reader.texts("from")) {
    test.from = readParties(*from, PartyUse::TEST_CALLER, problems);
    checkOneParty(test.from, reader.placeOf("from"), "from", problems);
  } else if (!reader.has("from")) {
    problems.error(test.place, "a test without from; add one, such as from = \"user:alice\"");
  }
  if (side == Side::HOST) {
    KJ_IF_MAYBE (to, reader.texts("to")) {
      test.to = readParties(*to, PartyUse::TEST_TARGET, problems);
      checkOneParty(test.to, reader.placeOf("to"), "to", problems);
    } else if (!reader.has("to")) {
      problems.error(test.place, "a test without to; add one, such as to = \"web1\"");
    }
  } else {
    reader.refuse("to", "has no place here: every test of agent.toml is about this guest");
  }
  KJ_IF_MAYBE (call, reader.text("call")) {
    test.call = kj::heapString(call->text);
    auto pattern = parseCallPattern(call->text);
    KJ_IF_MAYBE (wrong, pattern.tryGet<kj::String>()) {
      problems.error(call->place, *wrong);
    } else if (familyOf(call->text) == nullptr) {
      problems.error(call->place, "a test asks for one call, and ", quote(call->text), " is a pattern");
    }
  } else if (!reader.has("call")) {
    problems.error(test.place, "a test without call; add one, such as call = \"ping\"");
  }
  KJ_IF_MAYBE (args, reader.subtable("args")) {
    TableReader inner(*args, reader.placeOf("args"), "args", problems);
    KJ_IF_MAYBE (path, inner.text("path")) test.path = kj::heapString(path->text);
    inner.finish();
  }
  test.at = reader.time("at");
  reader.finish();
  return test;
}

}  // namespace postern::policy
