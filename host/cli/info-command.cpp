#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/info-text.h"

namespace postern::cli {

namespace {

constexpr kj::StringPtr CALLS[] = {"info.os"_kj, "info.network"_kj, "info.filesystems"_kj, "info.users"_kj};
constexpr uint32_t EVERYTHING = 15;

}  // namespace

ExitStatus runInfo(Invocation& run, const InfoArguments& arguments) {
  auto vm = run.openVm(arguments.vm, CALLS);
  auto request = vm->calls().infoRequest();
  request.setWhat(EVERYTHING);
  auto response = run.await(request.send(), arguments.vm);
  run.check(response, arguments.vm);
  if (!run.options.json) {
    run.world.out(infoText(arguments.vm, response.getInfo()));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm);
  writeInfo(json, response.getInfo());
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
