#include "transport/transfer/source-opener.h"

#include <kj/debug.h>

#include "transport/transfer/open-component.h"
#include "transport/transfer/quota.h"
#include "transport/transfer/source-count.h"
#include "transport/transfer/source-sender.h"

namespace postern::transfer {

namespace {

// The path that the caller knows of one that the destination tells: its first component is a top's name.
kj::String shownPath(kj::ArrayPtr<const SourceTop> tops, kj::StringPtr path) {
  kj::StringPtr first = path;
  kj::String cut;
  KJ_IF_MAYBE (slash, path.findFirst('/')) {
    cut = kj::str(path.slice(0, *slash));
    first = cut;
  }
  for (auto& top : tops) {
    if (top.as == first) return kj::str(top.shown, path.slice(first.size()));
  }
  return kj::str(path);
}

// What is too much is told of each top, and nothing else is sent.
bool sendRefusal(kj::ArrayPtr<const SourceTop> tops, const Problem& why, SourceConversation& conversation,
                 SourceListener& listener) {
  for (auto& top : tops) {
    listener.failed(top.shown, why);
    if (!conversation.put(Forward(EntryFailed{kj::str(top.as), copy(why)}))) return false;
  }
  return true;
}

}  // namespace

OpenerEnd runSourceOpener(kj::AutoCloseFd mover, kj::Vector<SourceTop> tops, const SourceOptions& options,
                          SourceListener& listener) {
  for (auto& top : tops) KJ_REQUIRE(isComponent(top.as.asBytes()), "a top's name is a component", top.as);
  allowManyDescriptors();
  OwnerNames own;
  auto& owners = options.owners == nullptr ? own : *options.owners;
  SourceConversation conversation(kj::mv(mover), listener, [&](kj::StringPtr path) { return shownPath(tops, path); });
  SourceTree tree(tops, options);
  SourceCount count(tree, options, [&]() { return conversation.goesOn(); });
  if (!tree.walk(count)) return conversation.end();

  auto totals = count.totals();
  totals.tops = static_cast<uint32_t>(tops.size());
  kj::Maybe<Problem> tooMuch;
  KJ_IF_MAYBE (scope, options.scope) tooMuch = overQuota(*scope, totals);
  if (tooMuch != nullptr) totals = {tops.size(), 0, 0, 0, totals.tops, false, 0};
  listener.counted(totals);
  KJ_IF_MAYBE (end, conversation.announce(totals)) return kj::mv(*end);

  KJ_IF_MAYBE (why, tooMuch) {
    return sendRefusal(tops, *why, conversation, listener) ? conversation.finish() : conversation.end();
  }
  tree.announced(totals.deepest);
  SourceSender sender(tree, options, totals, conversation, listener, owners);
  if (tree.walk(sender)) return conversation.finish();
  KJ_IF_MAYBE (problem, sender.gaveUp()) return kj::mv(*problem);
  return conversation.end();
}

}  // namespace postern::transfer
