#include "host/cli/libvirt-domain.h"

#include <stdlib.h>
#include <unistd.h>

#include "host/cli/failure-text.h"
#include "transport/children/children.h"

namespace postern::cli {

namespace {

// libvirtd attaches a device and rewrites XML in less than a second; QEMU may be slow to take the device.
constexpr auto DEADLINE = 60 * kj::SECONDS;
// What decides which libvirtd is meant, and whose.
constexpr const char* PASSED_ON[] = {"LIBVIRT_DEFAULT_URI", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"};

constexpr auto PACKAGED = "/usr/libexec/postern/postern-libvirt"_kj;

// Beside this program, or where packages put it.
kj::String findProgram() {
  char path[4096];
  auto size = readlink("/proc/self/exe", path, sizeof(path));
  auto self = kj::heapString(path, size > 0 ? static_cast<size_t>(size) : 0);
  auto slash = self.findLast('/').orDefault(0);
  auto beside = kj::str(self.slice(0, slash), "/postern-libvirt");
  if (access(beside.cStr(), X_OK) == 0) return beside;
  if (access(PACKAGED.cStr(), X_OK) == 0) return kj::str(PACKAGED);
  fail(client::FailureKind::FAILED, kj::str("--libvirt needs postern-libvirt, which is not installed; without it: "
                                            "--transport serial:PATH or vsock:CID, and --qmp"));
}

kj::Array<kj::String> environment() {
  kj::Vector<kj::String> out;
  out.add(kj::str(CHILD_PATH));
  for (auto* name : PASSED_ON) {
    auto* value = getenv(name);
    if (value != nullptr) out.add(kj::str(name, '=', value));
  }
  return out.releaseAsArray();
}

kj::String outputOf(ChildEnd& end, kj::StringPtr domain) {
  KJ_IF_MAYBE (exited, end.tryGet<ChildExited>()) return kj::heapString(exited->output.asChars());
  KJ_IF_MAYBE (problem, end.tryGet<ChildNotStarted>()) fail(client::FailureKind::FAILED, kj::mv(problem->text));
  if (end.is<ChildTimedOut>()) {
    fail(client::FailureKind::TIMED_OUT,
         kj::str(domain, ": libvirtd did not answer within ", DEADLINE / kj::SECONDS, " s"));
  }
  fail(client::FailureKind::FAILED, kj::str(domain, ": postern-libvirt was killed"));
}

// "KEY VALUE", each; a line of ERROR ends the command.
template <typename Line>
void readLines(kj::StringPtr rest, Line& line) {
  while (rest.size() > 0) {
    auto length = rest.findFirst('\n').orDefault(rest.size());
    auto text = kj::heapString(rest.slice(0, length));
    rest = rest.slice(kj::min(length + 1, rest.size()));
    auto space = text.findFirst(' ').orDefault(text.size());
    auto key = kj::heapString(text.slice(0, space));
    auto value = kj::str(text.slice(kj::min(space + 1, text.size())));
    if (key == "ERROR") fail(client::FailureKind::FAILED, kj::mv(value));
    line(key, value);
  }
}

}  // namespace

LibvirtDomain::LibvirtDomain(Invocation& run, kj::StringPtr name)
    : run(run), name(kj::str(name)), program(findProgram()) {}

void LibvirtDomain::call(kj::ArrayPtr<const kj::StringPtr> words, Line line) {
  Children children(run.world.eventPort(), [](kj::StringPtr) {});
  ChildDescription description;
  auto argv = kj::heapArrayBuilder<kj::String>(words.size() + 1);
  argv.add(kj::str(program));
  for (auto word : words) argv.add(kj::str(word));
  description.argv = argv.finish();
  description.environment = environment();
  description.limit = DEADLINE;
  auto end = run.await(children.run(kj::mv(description)), "postern-libvirt", DEADLINE + CHILD_GRACE);
  auto output = outputOf(end, name);
  readLines(output, line);
  auto status = end.get<ChildExited>().status;
  if (status == 0) return;
  fail(client::FailureKind::FAILED, kj::str(name, ": postern-libvirt ended with status ", status));
}

LibvirtDomain::Found LibvirtDomain::inspect() {
  Found found;
  call({"inspect"_kj, name}, [&](kj::StringPtr key, kj::StringPtr value) {
    if (key == "uuid") found.uuid = kj::str(value);
    if (key == "guest-transport") found.guestTransport = kj::str(value);
  });
  return found;
}

LibvirtDomain::Prepared LibvirtDomain::prepare(kj::StringPtr bundleFile) {
  Prepared prepared;
  call({"prepare"_kj, name, bundleFile}, [&](kj::StringPtr key, kj::StringPtr value) {
    if (key == "did") prepared.did.add(kj::str(value));
    if (key == "restart") prepared.restart = kj::str(value);
  });
  return prepared;
}

kj::String toText(const LibvirtDomain::Prepared& prepared) {
  kj::Vector<kj::String> lines;
  for (auto& line : prepared.did) lines.add(kj::str("libvirt           ", shown(line, 400), '\n'));
  if (prepared.restart.size() > 0) {
    lines.add(kj::str("restart needed    ", shown(prepared.restart, 400), '\n'));
  }
  return kj::strArray(lines, "");
}

void writeFields(JsonWriter& json, const LibvirtDomain::Prepared& prepared) {
  json.key("libvirt").beginObject().key("did").beginArray();
  for (auto& line : prepared.did) json.value(line);
  json.endArray().field("restartNeeded", prepared.restart.size() > 0).field("restartReason", prepared.restart);
  json.endObject();
}

}  // namespace postern::cli
