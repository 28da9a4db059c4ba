// postern shutdown, restart, suspend.

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/power-task.h"
#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

using Action = schema::PowerRequest::Action;

// Guests run hooks and stop services before they go.
constexpr auto POWER_TIMEOUT = 120 * kj::SECONDS;

kj::StringPtr nameOf(Action action) {
  switch (action) {
    case Action::SHUTDOWN:
      return "shutdown"_kj;
    case Action::RESTART:
      return "restart"_kj;
    case Action::SUSPEND:
      return "suspend"_kj;
  }
  KJ_UNREACHABLE;
}

kj::Duration limitOf(Invocation& run, const PowerArguments& arguments) {
  auto forceAfter = arguments.forceAfter.orDefault(0 * kj::SECONDS);
  KJ_IF_MAYBE (timeout, run.options.timeout) {
    if (*timeout <= kj::max(arguments.delay, forceAfter)) {
      fail(client::FailureKind::INVALID, kj::str("--timeout is over before --delay or --force-after; make it longer"));
    }
    return *timeout;
  }
  return POWER_TIMEOUT + kj::max(arguments.delay, forceAfter);
}

bool isNamedBefore(kj::ArrayPtr<const kj::String> names, size_t index) {
  for (size_t i = 0; i < index; ++i) {
    if (names[i] == names[index]) return true;
  }
  return false;
}

void writeTask(JsonWriter& json, const PowerTask& task) {
  json.beginObject().field("vm", task.name()).field("ok", task.failure() == nullptr).key("steps").beginArray();
  for (auto& step : task.steps()) {
    json.beginObject().field("step", step.word).field("text", step.text);
    json.field("afterSeconds", milliseconds(step.after) / 1000).endObject();
  }
  json.endArray();
  KJ_IF_MAYBE (failure, task.failure()) {
    json.key("error");
    writeError(json, *failure);
  }
  json.endObject();
}

}  // namespace

ExitStatus runPower(Invocation& run, const PowerArguments& arguments) {
  auto limit = limitOf(run, arguments);
  run.control();  // whatever stands in its way is the same for all
  kj::Vector<kj::Own<PowerTask>> tasks;
  kj::Vector<kj::Promise<void>> ends;
  for (size_t i = 0; i < arguments.vms.size(); ++i) {
    if (isNamedBefore(arguments.vms, i)) continue;
    ends.add(tasks.add(kj::heap<PowerTask>(run, arguments, arguments.vms[i], limit))->go());
  }
  run.awaitForever(kj::joinPromises(ends.releaseAsArray()), "posternd");

  auto status = ExitStatus::DONE;
  for (auto& task : tasks) {
    KJ_IF_MAYBE (failure, task->failure()) {
      status = worst(status, exitStatusOf(failure->kind));
    }
  }
  if (!run.options.json) return status;
  JsonWriter json;
  json.beginObject().field("ok", status == ExitStatus::DONE).field("action", nameOf(arguments.action));
  json.key("vms").beginArray();
  for (auto& task : tasks) writeTask(json, *task);
  json.endArray().field("exitStatus", static_cast<int>(status)).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return status;
}

}  // namespace postern::cli
