// runListing() of destination-opener.h: entries without content are shown as they come.
#include "transport/transfer/destination-conversation.h"
#include "transport/transfer/destination-opener.h"

namespace postern::transfer {

OpenerEnd runListing(kj::AutoCloseFd mover, ListingListener& listener) {
  DestinationConversation conversation(kj::mv(mover), ForwardCheck::Form::LISTING);
  Summary summary;
  for (;;) {
    auto heard = conversation.next(nullptr);
    if (heard.is<Problem>()) return kj::mv(heard.get<Problem>());
    if (!heard.is<Forward>()) continue;
    KJ_SWITCH_ONEOF(heard.get<Forward>()) {
      KJ_CASE_ONEOF(totals, Totals) conversation.put(Backward(Ready{false}));
      KJ_CASE_ONEOF(entry, Entry) {
        ++(entry.kind == EntryKind::DIRECTORY ? summary.directories : summary.files);
        listener.entry(conversation.path(), entry);
      }
      KJ_CASE_ONEOF(failed, EntryFailed) {
        ++summary.failures;
        listener.failed(conversation.path(), failed.problem);
      }
      KJ_CASE_ONEOF(done, Done) {
        conversation.put(Backward(Summary(summary)));
        conversation.flush();
        return summary;
      }
      KJ_CASE_ONEOF_DEFAULT break;
    }
  }
}

}  // namespace postern::transfer
