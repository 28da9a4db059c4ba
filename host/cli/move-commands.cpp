// postern vm host-key, export, import.

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/secret-file.h"
#include "host/files/files.h"
#include "host/move/vm-export.h"

namespace postern::cli {

namespace {

using client::FailureKind;

// White space around an export is let be.
constexpr size_t MAX_INPUT_BYTES = host::MAX_EXPORT_BYTES + 1024;

bool isStream(const kj::Maybe<kj::String>& file) {
  KJ_IF_MAYBE (name, file) return *name == "-";
  return true;
}

kj::String pathOf(Invocation& run, kj::StringPtr name) {
  return name.startsWith("/") ? kj::str(name) : kj::str(run.world.currentFolder(), '/', name);
}

void printDone(Invocation& run, kj::StringPtr vm, kj::StringPtr text) {
  if (!run.options.json) return run.world.out(kj::str(vm, ": ", text, '\n'));
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", vm).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
}

ExitStatus cancelExport(Invocation& run, kj::StringPtr vm) {
  auto request = run.control().control().cancelExportRequest();
  request.setName(vm);
  run.check(run.await(request.send(), "posternd"), vm);
  printDone(run, vm, "is here again");
  return ExitStatus::DONE;
}

// The VM is moved by then: says how to get at its export.
void keep(SecretFile& file, kj::StringPtr vm, kj::StringPtr sealed) {
  try {
    file.keep(sealed);
  } catch (CommandFailure& failed) {
    failed.failure.text = kj::str(failed.failure.text, " (", vm,
                                  " is moved; the same command with another --file gives its export again, --cancel "
                                  "takes it back)");
    throw;
  }
}

kj::String readInput(Invocation& run) {
  auto fd = run.world.inputStream();
  kj::Vector<char> text;
  char buffer[4096];
  while (text.size() <= MAX_INPUT_BYTES) {
    auto n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(FailureKind::FAILED, kj::str("cannot read standard input: ", strerror(errno)));
    if (n == 0) break;
    text.addAll(buffer, buffer + n);
  }
  if (text.size() > MAX_INPUT_BYTES) {
    fail(FailureKind::INVALID, kj::str("what was given is no export of a VM; it is too long for one"));
  }
  return kj::heapString(text.begin(), text.size());
}

kj::String readExport(Invocation& run, const kj::Maybe<kj::String>& file) {
  if (isStream(file)) return readInput(run);
  auto text = host::readFile(pathOf(run, KJ_ASSERT_NONNULL(file)), MAX_INPUT_BYTES);
  KJ_IF_MAYBE (error, text.tryGet<host::FileError>()) fail(FailureKind::FAILED, kj::mv(error->text));
  return kj::mv(text.get<kj::String>());
}

using ImportResponse = capnp::Response<host::schema::Control::ImportVmResults>;

void printImported(Invocation& run, const ImportResponse& response) {
  auto vm = response.getVm().getSettings().getName();
  bool taken = response.getGrantFile().size() > 0;
  if (run.options.json) {
    JsonWriter json;
    json.beginObject().field("ok", true).field("vm", vm).field("from", response.getFrom());
    json.field("offeredGrants", response.getOfferedGrants()).field("grantFile", response.getGrantFile()).endObject();
    return run.world.out(kj::str(json.finish(), '\n'));
  }
  auto tags = KJ_MAP(tag, response.getVm().getSettings().getTags()) {
    return shown(tag, 64);
  };
  run.world.out(kj::str(shown(vm, 64), ": is here; its agent gets new keys when it connects\nfrom host  ",
                        shown(response.getFrom(), 100), "\ntags       ",
                        tags.size() == 0 ? kj::str("none") : kj::strArray(tags, ","), '\n'));
  if (response.getOfferedGrants().size() == 0) return;
  auto head = taken ? kj::str("policy     written to ", shown(response.getGrantFile(), 300), ":\n")
                    : kj::str("policy     unchanged; --grants would have taken what it had there:\n");
  run.world.out(kj::str(head, shownLines(response.getOfferedGrants(), "  ")));
}

}  // namespace

ExitStatus runHostKey(Invocation& run) {
  auto response = run.await(run.control().control().hostKeyRequest().send(), "posternd");
  run.check(response, "");
  if (!run.options.json) {
    run.world.out(kj::str(shown(response.getKey(), 100), '\n'));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("hostKey", response.getKey()).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runVmExport(Invocation& run, const VmExportArguments& arguments) {
  auto& vm = arguments.vm;
  if (arguments.cancel) return cancelExport(run, vm);
  kj::Maybe<kj::Own<SecretFile>> file;
  if (!isStream(arguments.file)) {
    auto existing = arguments.force ? Existing::REPLACED : Existing::REFUSED;
    file = kj::heap<SecretFile>(pathOf(run, KJ_ASSERT_NONNULL(arguments.file)), existing,
                                SecretFile::Words{"the export", "--file"});
  }
  auto request = run.control().control().exportVmRequest();
  request.setName(vm);
  request.setTo(arguments.to);
  auto response = run.await(request.send(), "posternd");
  run.check(response, vm);
  KJ_IF_MAYBE (f, file) {
    keep(**f, vm, response.getSealed());
    printDone(run, vm, kj::str("is moved; its export is in ", shown((*f)->path(), 300)));
  } else if (run.options.json) {
    JsonWriter json;
    json.beginObject().field("ok", true).field("vm", vm).field("export", response.getSealed()).endObject();
    run.world.out(kj::str(json.finish(), '\n'));
  } else {
    run.world.out(kj::str(shown(response.getSealed(), host::MAX_EXPORT_BYTES), '\n'));
  }
  return ExitStatus::DONE;
}

ExitStatus runVmImport(Invocation& run, const VmImportArguments& arguments) {
  auto sealed = readExport(run, arguments.file);
  auto request = run.control().control().importVmRequest();
  request.setSealed(sealed);
  request.setName(arguments.vm);
  request.setFrom(arguments.from);
  request.setTransport(arguments.transport);
  request.setGrants(arguments.grants);
  auto response = run.await(request.send(), "posternd");
  run.check(response, arguments.vm);
  printImported(run, response);
  return ExitStatus::DONE;
}

}  // namespace postern::cli
