#pragma once
// postern against a posternd and a session of the test's own, on one loop over real socket pairs.

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

#include <functional>
#include <string>

#include "host/cli/postern.h"
#include "host/local-rpc/local-rpc.h"
#include "tests/support/temporary-folder.h"
#include "tests/support/test-random.h"
#include "tests/unit/cli/guest-fixture.h"

namespace postern::test {

using cli::ExitStatus;
namespace hs = host::schema;

// Shows both when they differ.
#define CHECK_TEXT(actual, expected) CHECK(std::string(kj::str(actual).cStr()) == std::string(kj::str(expected).cStr()))

inline bool contains(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

// What the fakes do with every call that a test does not define.
struct Behaviour {
  enum class Mode { ANSWER, FAIL, SILENT, VANISH } mode = Mode::ANSWER;
  hs::Failure::Kind kind = hs::Failure::Kind::FAILED;
  hs::Failure::Lock lock = hs::Failure::Lock::HOST;
  kj::StringPtr text = "it does not work"_kj;
  kj::StringPtr rule = ""_kj;
  kj::StringPtr suggestion = ""_kj;
  std::function<void()> vanish = []() {};  // closes the connection

  // Null: the call is to be answered. `failure` gives the place for one.
  template <typename Place>
  kj::Maybe<kj::Promise<void>> instead(Place failure) {
    switch (mode) {
      case Mode::ANSWER:
        return nullptr;
      case Mode::FAIL: {
        hs::Failure::Builder into = failure();
        into.setKind(kind);
        into.setLock(lock);
        into.setText(text);
        into.setRule(rule);
        into.setSuggestion(suggestion);
        return kj::Promise<void>(kj::READY_NOW);
      }
      case Mode::VANISH:
        vanish();
        return kj::Promise<void>(kj::NEVER_DONE);
      case Mode::SILENT:
        return kj::Promise<void>(kj::NEVER_DONE);
    }
    KJ_UNREACHABLE;
  }
};

// A VM's session. Tests set what they want answered.
class FakeSession final : public hs::VmCalls::Server {
 public:
  struct Script {
    Behaviour behaviour;
    uint64_t linkNanoseconds = 80'000;
    unsigned pings = 0;
    std::function<void(schema::Info::Builder)> info = [](schema::Info::Builder) {};
    // The guest's part of a power request: steps to the observer, and when it is gone.
    std::function<kj::Promise<void>(schema::PowerObserver::Client)> power;
    kj::Maybe<kj::Promise<void>> gone;  // null: never
    kj::StringPtr goneFailure = ""_kj;  // not empty: it fails with this text
    kj::String bundle;
    // What was asked:
    kj::Maybe<bool> askedReset;
    uint64_t deadlineMilliseconds = 0;
    uint32_t delaySeconds = 0;
    kj::String message;
    uint32_t lifetimeSeconds = 0;
    kj::String bundleTransport;
    kj::String bundleGrants;
    FakeGuest guest;
    // Services: what one does with its end of a channel, in a thread; then it is closed, and the caller told why
    // (empty: nothing is told).
    std::function<kj::StringPtr(int)> service = [](int) { return "finished"_kj; };
    kj::Vector<kj::String> exported;
    kj::Vector<kj::String> connected;  // "http"
    unsigned lapses = 0;               // the next so many find that their grant has lapsed
  };
  explicit FakeSession(Script& script) : script(script), tasks(errors) {}

  kj::Promise<void> ping(PingContext context) override;
  kj::Promise<void> info(InfoContext context) override;
  kj::Promise<void> power(PowerContext context) override;
  kj::Promise<void> whenGone(WhenGoneContext context) override;
  kj::Promise<void> issueBundle(IssueBundleContext context) override;
  kj::Promise<void> file(FileContext context) override;
  kj::Promise<void> connect(ConnectContext context) override;
  kj::Promise<void> services(ServicesContext context) override;

 private:
  // What a guest does after it has accepted may fail because the caller went; that is no test's business.
  struct Ignore final : kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&&) override {}
  };
  Script& script;
  Ignore errors;
  kj::TaskSet tasks;
};

class FakeControl final : public hs::Control::Server {
 public:
  struct Served {
    kj::AutoCloseFd handle;
    kj::Own<host::LocalRpc> rpc;
  };
  struct Script {
    Behaviour behaviour;
    // Not the server's own: a call that is being cancelled may keep that beyond the end of the loop.
    kj::Vector<Served> sessions;
    bool giveNoSocket = false;
    kj::Vector<kj::String> unknown;  // VMs that open() does not know
    kj::Vector<kj::String> offline;  // VMs that it finds not connected
    kj::Vector<kj::String> denied;   // paths and calls that it denies
    std::function<void(hs::Control::StatusResults::Builder)> status = [](auto) {};
    std::function<void(hs::Control::ListVmsResults::Builder)> list = [](auto) {};
    std::function<void(hs::Vm::Builder)> vm = [](auto) {};
    kj::StringPtr guestPolicy = ""_kj;  // with it
    std::function<kj::Promise<void>(hs::EventSink::Client)> events = [](auto) { return kj::READY_NOW; };
    std::function<void(hs::Control::AddVmResults::Builder)> added = [](auto) {};
    std::function<void(hs::Control::AuditResults::Builder)> audit = [](auto) {};
    kj::String explanation;
    bool allowed = false;
    kj::String removedGrants;
    // What was asked:
    unsigned calls = 0;
    kj::Vector<kj::String> opened;  // "web1 file.put /srv"
    kj::Vector<kj::String> addedGrants;
    kj::Vector<kj::String> tags;
    kj::Maybe<bool> forcedReset;
    kj::Maybe<kj::Promise<void>> qemuOff;  // null: no QMP socket
    std::function<void(hs::Control::ChannelsResults::Builder)> channels = [](auto) {};
    std::function<void(hs::Control::PortsResults::Builder)> ports = [](auto) {};
    uint32_t cut = 0;
    kj::String askedVm;  // by channels, ports, blockPort
    kj::Maybe<bool> blocked;
    kj::Maybe<uint64_t> closed;
  };
  FakeControl(Script& script, FakeSession::Script& session, kj::LowLevelAsyncIoProvider& io)
      : script(script), session(session), io(io) {}

  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> listVms(ListVmsContext context) override;
  kj::Promise<void> showVm(ShowVmContext context) override;
  kj::Promise<void> addVm(AddVmContext context) override;
  kj::Promise<void> setVm(SetVmContext context) override;
  kj::Promise<void> removeVm(RemoveVmContext context) override;
  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> events(EventsContext context) override;
  kj::Promise<void> forcePower(ForcePowerContext context) override;
  kj::Promise<void> whenOff(WhenOffContext context) override;
  kj::Promise<void> explainPolicy(ExplainPolicyContext context) override;
  kj::Promise<void> reloadPolicy(ReloadPolicyContext context) override;
  kj::Promise<void> audit(AuditContext context) override;
  kj::Promise<void> channels(ChannelsContext context) override;
  kj::Promise<void> ports(PortsContext context) override;
  kj::Promise<void> blockPort(BlockPortContext context) override;
  kj::Promise<void> closeChannel(CloseChannelContext context) override;

 private:
  Script& script;
  FakeSession::Script& session;
  kj::LowLevelAsyncIoProvider& io;
};

// The program's surroundings; `run` is postern with these words.
class CliWorld final : public cli::World {
 public:
  CliWorld();
  ~CliWorld() noexcept(false);

  ExitStatus run(std::initializer_list<kj::StringPtr> words);
  // Fields for run(): what came out since its beginning.
  kj::String output();
  kj::String errors();

  FakeControl::Script control;
  FakeSession::Script session;
  bool notRunning = false;
  bool terminal = false;  // both outputs
  bool colours = false;
  bool utf8 = false;
  TemporaryFolder folder;
  // Of folder: "here" is where the user is, "guest" the guest's root, "tmp" for temporary files.
  kj::String here(kj::StringPtr name) { return kj::str(folder.path("here"), "/", name); }
  kj::String guest(kj::StringPtr name) { return kj::str(folder.path("guest"), "/", name); }
  kj::AutoCloseFd input, outputFile;  // standard input and output as streams; tests set them
  kj::AsyncIoContext asyncIo;

  // As if Ctrl-C was pressed after that time, or when text has come out.
  void interruptAfter(kj::Duration time);
  void interruptAtOutput(kj::StringPtr text);
  void interruptNow() { interrupt.fulfiller->fulfill(); }
  // From another thread, by its fulfiller.
  void interruptWhen(kj::Promise<void> promise);

  void out(kj::StringPtr text) override;
  void error(kj::StringPtr text) override { said.addAll(text); }
  bool outIsTerminal() override { return terminal; }
  bool wantsColours() override { return colours; }
  bool errorIsTerminal() override { return terminal; }
  size_t errorColumns() override { return 80; }
  bool takesUtf8() override { return utf8; }
  kj::AutoCloseFd inputStream() override { return kj::mv(input); }
  kj::AutoCloseFd outputStream() override { return kj::mv(outputFile); }
  void endOutput() override {}
  kj::WaitScope& waitScope() override { return asyncIo.waitScope; }
  kj::LowLevelAsyncIoProvider& io() override { return *asyncIo.lowLevelProvider; }
  kj::UnixEventPort& eventPort() override { return asyncIo.unixEventPort; }
  kj::Timer& timer() override { return asyncIo.provider->getTimer(); }
  kj::Promise<void> whenInterrupted() override { return interrupted.addBranch(); }
  kj::Promise<client::Outcome<kj::Own<client::ControlClient>>> connectControl(kj::StringPtr path) override;
  kj::TimePoint now() override { return kj::systemPreciseMonotonicClock().now(); }
  Random& random() override { return testRandom; }
  kj::String currentFolder() override { return folder.path("here"); }
  int currentFolderHandle() override { return hereHandle; }
  kj::String temporaryFolder() override { return folder.path("tmp"); }

 private:
  kj::Vector<char> printed;
  kj::Vector<char> said;
  kj::String interruptText;
  TestRandom testRandom;
  kj::PromiseFulfillerPair<void> interrupt;
  kj::ForkedPromise<void> interrupted;
  kj::Promise<void> interruptTimer = nullptr;
  kj::AutoCloseFd controlHandle;
  kj::AutoCloseFd hereHandle;
  kj::Vector<kj::Own<host::LocalRpc>> served;
};

}  // namespace postern::test
