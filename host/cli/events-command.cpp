#include "host/cli/commands.h"
#include "host/cli/failure-text.h"

namespace postern::cli {

namespace {

// Prints each event as a line when it comes. The stream's flow control keeps a slow reader of ours from piling them up.
class Printer final : public host::schema::EventSink::Server {
 public:
  Printer(World& world, bool asJson) : world(world), asJson(asJson) {}

  kj::Promise<void> event(EventContext context) override {
    auto event = context.getParams().getEvent();
    world.out(asJson ? jsonOf(event) : textOf(event));
    return kj::READY_NOW;
  }

 private:
  World& world;
  const bool asJson;

  static kj::String textOf(host::schema::Event::Reader event) {
    auto about = event.getVm().size() == 0 ? kj::str("host") : shown(event.getVm(), 64);
    return kj::str(shown(event.getTime(), 40), "  ", about, "  ", shown(event.getKind(), 40), "  ",
                   shown(event.getText(), 500), '\n');
  }
  static kj::String jsonOf(host::schema::Event::Reader event) {
    JsonWriter json;
    json.beginObject().field("sequence", event.getSequence()).field("time", event.getTime());
    json.field("vm", event.getVm()).field("kind", event.getKind()).field("text", event.getText()).endObject();
    return kj::str(json.finish(), '\n');
  }
};

}  // namespace

ExitStatus runEvents(Invocation& run, const EventsArguments& arguments) {
  auto request = run.control().control().eventsRequest();
  request.setVm(arguments.vm);
  request.setFollow(arguments.follow);
  request.setBacklog(arguments.backlog);
  request.setSink(kj::heap<Printer>(run.world, run.options.json));
  if (arguments.follow) {
    run.awaitForever(request.send().ignoreResult(), "posternd");
  } else {
    run.await(request.send(), "posternd");
  }
  return ExitStatus::DONE;
}

}  // namespace postern::cli
