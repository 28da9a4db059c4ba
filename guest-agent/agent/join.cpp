#include "guest-agent/agent/join.h"

#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "guest-agent/agent/lock-file.h"
#include "guest-agent/agent/settlement.h"
#include "guest-agent/identity/bounded-file.h"
#include "guest-agent/identity/machine.h"
#include "guest-agent/identity/stored-identity.h"
#include "transport/connection.h"

namespace postern::guest {

namespace {

constexpr size_t MAX_INPUT_BYTES = MAX_BUNDLE_BYTES + 1024;

int fail(kj::StringPtr text) {
  fprintf(stderr, "postern-agent: %s\n", text.cStr());
  return 1;
}

kj::OneOf<SecretText, kj::String> readInput(kj::Maybe<kj::StringPtr> file) {
  KJ_IF_MAYBE (path, file) {
    auto content = readBounded(*path, MAX_INPUT_BYTES);
    if (content.is<FileMissing>()) return kj::str(*path, ": there is no such file");
    if (content.is<FileTrouble>()) return kj::mv(content.get<FileTrouble>().text);
    auto& bytes = content.get<kj::Array<char>>();
    KJ_DEFER(sodium_memzero(bytes.begin(), bytes.size()));
    return SecretText(kj::heapString(bytes));
  }
  char buffer[MAX_INPUT_BYTES];
  KJ_DEFER(sodium_memzero(buffer, sizeof(buffer)));
  size_t size = 0;
  while (size < sizeof(buffer)) {
    ssize_t n = read(STDIN_FILENO, buffer + size, sizeof(buffer) - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return kj::str("standard input: ", errorWords(errno));
    if (n == 0) break;
    size += static_cast<size_t>(n);
  }
  return SecretText(kj::heapString(buffer, size));
}

enum class Present { NOTHING, SAME_VM, OTHER, UNREADABLE };

// What identity there is, seen from a bundle for `vm`.
Present identityHere(const Paths& paths, const VmId& vm, kj::String& about) {
  auto stored = readStoredIdentity(paths);
  if (stored.is<NoIdentity>()) return Present::NOTHING;
  KJ_IF_MAYBE (trouble, stored.tryGet<IdentityTrouble>()) {
    about = kj::mv(trouble->text);
    return trouble->why == IdentityTrouble::Why::UNREADABLE ? Present::UNREADABLE : Present::OTHER;
  }
  auto& state = *stored.get<kj::Own<GuestState>>();
  if (state.linkSecret == nullptr) return Present::NOTHING;  // a bundle that led nowhere so far
  about = kj::str("this guest is enrolled already, as VM ", toString(state.vm));
  return state.vm == vm && Machine::read(paths).made(state.machine) ? Present::SAME_VM : Present::OTHER;
}

}  // namespace

int runJoin(const Paths& paths, kj::Maybe<kj::StringPtr> file, Force force) {
  auto input = readInput(file);
  if (input.is<kj::String>()) return fail(input.get<kj::String>());
  auto& text = input.get<SecretText>();
  auto parsed = parseBundle(text.get());
  if (parsed.is<BundleError>()) return fail(kj::str("the bundle ", describe(parsed.get<BundleError>())));
  auto& bundle = *parsed.get<kj::Own<Bundle>>();

  kj::String about;
  auto present = identityHere(paths, bundle.vm, about);
  if (present == Present::UNREADABLE) return fail(about);
  if (present != Present::NOTHING && force == Force::NO) {
    return fail(kj::str(about, "; --force enrols it anew"));
  }
  if (present == Present::OTHER) {
    unlink(kj::str(paths.stateFile, ".next").cStr());
    if (unlink(paths.stateFile.cStr()) != 0) return fail(kj::str(paths.stateFile, ": ", errorWords(errno)));
  }
  KJ_IF_MAYBE (error, replaceFile(paths.bundle, text.get(), 0600)) return fail(*error);
  KJ_IF_MAYBE (pid, lockHolder(paths.lock)) {
    if (kill(*pid, SIGHUP) != 0) {
      return fail(kj::str("the bundle is in ", paths.bundle, "; telling the running agent failed (", errorWords(errno),
                          "): restart it"));
    }
    printf("the agent (pid %d) has the bundle for VM %s and enrols now\n", *pid, bundle.vmName.cStr());
    return 0;
  }
  printf("the bundle for VM %s is in %s; the agent enrols when it starts\n", bundle.vmName.cStr(), paths.bundle.cStr());
  return 0;
}

}  // namespace postern::guest
