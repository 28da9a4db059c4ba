// postern as a process of its own, on the real World: signals, sockets and outputs as they are.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "host/cli/unix-world.h"
#include "tests/unit/cli/cli-fixture.h"
#include "transport/unix-socket.h"

using namespace postern;
using namespace postern::test;

namespace {

// postern in a child process with these words; its outputs go to files of the folder.
class Program {
 public:
  explicit Program(std::initializer_list<kj::StringPtr> given, int out = -1, int in = -1) : out(out), in(in) {
    words.add(kj::str("--root=", folder.path("root")));
    for (auto word : given) words.add(kj::str(word));
    std::filesystem::create_directories(folder.path("root/run/postern").cStr());
  }
  ~Program() {
    if (pid > 0) kill(pid, SIGKILL), waitpid(pid, nullptr, 0);
  }

  void begin();
  // Its wait status.
  int end() {
    int status = 0;
    KJ_SYSCALL(waitpid(pid, &status, 0));
    pid = -1;
    return status;
  }
  int exitStatus() {
    begin();
    int status = end();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void signal(int number) { KJ_SYSCALL(kill(pid, number)); }
  kj::String errors() { return slurp("err"); }
  kj::String output() { return slurp("out"); }
  kj::String socketPath() { return folder.path("root/run/postern/control.sock"); }

  // Whoever connects is not answered.
  kj::AutoCloseFd listen() {
    auto socket = kj::AutoCloseFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    auto path = socketPath();
    auto address = unixAddress(path);
    KJ_SYSCALL(bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
    KJ_SYSCALL(::listen(socket, 4));
    return socket;
  }
  TemporaryFolder folder;

 private:
  kj::Vector<kj::String> words;
  const int out;
  const int in;
  pid_t pid = -1;

  kj::String slurp(kj::StringPtr name) {
    auto fd = kj::AutoCloseFd(open(folder.path(name).cStr(), O_RDONLY));
    char bytes[8192];
    auto size = read(fd, bytes, sizeof(bytes));
    return kj::heapString(bytes, static_cast<size_t>(kj::max(size, ssize_t(0))));
  }
};

void Program::begin() {
  auto outPath = folder.path("out"), errPath = folder.path("err");
  fflush(stdout);
  pid = fork();
  KJ_ASSERT(pid >= 0);
  if (pid > 0) return;
  if (in >= 0) dup2(in, STDIN_FILENO);
  dup2(out >= 0 ? out : open(outPath.cStr(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
  dup2(open(errPath.cStr(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
  // What is open in this process is no business of the program's.
  close_range(3, ~0u, 0);
  int status = 99;
  {
    cli::UnixWorld world;
    auto pointers = KJ_MAP(word, words) {
      return kj::StringPtr(word);
    };
    status = static_cast<int>(cli::runPostern(world, pointers));
  }
  _exit(status);
}

void waitForConnection(int listener) {
  int fd;
  KJ_SYSCALL(fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  // It stays open as long as this process lives; the test ends soon.
  static kj::Vector<kj::AutoCloseFd> kept;
  kept.add(kj::AutoCloseFd(fd));
}

struct Pipe {
  kj::AutoCloseFd out, in;
  Pipe() {
    int ends[2];
    KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
    out = kj::AutoCloseFd(ends[0]);
    in = kj::AutoCloseFd(ends[1]);
  }
  kj::String rest() {
    kj::Vector<char> all;
    char buffer[4096];
    for (ssize_t n; (n = ::read(out, buffer, sizeof(buffer))) > 0;) all.addAll(buffer, buffer + n);
    return kj::heapString(all);
  }
};

// A posternd for one program that connects, on a loop in a thread of its own, until this object is destroyed.
class Posternd {
 public:
  Posternd(kj::AutoCloseFd listener, std::function<kj::StringPtr(int)> service)
      : thread([this, listener = kj::mv(listener), service = kj::mv(service)]() mutable {
          auto asyncIo = kj::setupAsyncIo();
          auto stopped = kj::newPromiseAndCrossThreadFulfiller<void>();
          *stop.lockExclusive() = kj::mv(stopped.fulfiller);
          FakeControl::Script control;
          FakeSession::Script session;
          session.service = kj::mv(service);
          kj::AutoCloseFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
          auto rpc = kj::heap<host::LocalRpc>(*asyncIo.lowLevelProvider, kj::mv(fd),
                                              kj::heap<FakeControl>(control, session, *asyncIo.lowLevelProvider),
                                              host::CONTROL_MESSAGE_WORDS);
          stopped.promise.wait(asyncIo.waitScope);
          rpc = nullptr;
          control.sessions.clear();
        }) {}
  ~Posternd() noexcept(false) {
    stop.when([](auto& fulfiller) { return fulfiller != nullptr; },
              [](auto& fulfiller) { KJ_ASSERT_NONNULL(fulfiller)->fulfill(); });
  }

 private:
  kj::MutexGuarded<kj::Maybe<kj::Own<kj::CrossThreadPromiseFulfiller<void>>>> stop;
  kj::Thread thread;
};

}  // namespace

TEST_CASE("posternd is not running: no socket, or nobody behind it") {
  Program program({"ping", "web1"});
  CHECK(program.exitStatus() == 1);
  CHECK_TEXT(program.errors(),
             kj::str("postern: posternd is not running (no ", program.socketPath(), "); systemctl start posternd\n"));
  { auto listener = program.listen(); }  // it leaves its file behind
  CHECK(program.exitStatus() == 1);
  CHECK(contains(program.errors(), "nobody listens at"));
}

TEST_CASE("a user who may not use the socket is told whose group may") {
  if (geteuid() != 0) return;  // nobody else can become nobody
  Program program({"ping", "web1"});
  auto listener = program.listen();
  chmod(program.folder.path("").cStr(), 0755);
  chmod(program.socketPath().cStr(), 0600);
  std::filesystem::permissions(program.folder.path("").cStr(), std::filesystem::perms(0777));
  KJ_SYSCALL(seteuid(65534));
  int status = program.exitStatus();
  KJ_SYSCALL(seteuid(0));
  CHECK(status == 1);
  CHECK(contains(program.errors(), "no right to use "));
  CHECK(contains(program.errors(), "it is for root and for group 'root'; usermod -aG root USER"));
}

TEST_CASE("a root whose socket has too long a path is refused before anything else") {
  CliWorld world;
  world.notRunning = true;
  auto deep = kj::str("--root=/", kj::repeat('d', 120));
  kj::StringPtr words[] = {"vm"_kj, "list"_kj, deep};
  CHECK(cli::runPostern(world, words) == ExitStatus::USAGE);
  CHECK(contains(world.errors(), "choose a shorter --root"));
}

TEST_CASE("Ctrl-C ends the program at once with status 130 and no word, however long it would wait") {
  Program program({"ping", "web1", "--timeout", "1h"});
  auto listener = program.listen();
  program.begin();
  waitForConnection(listener);
  program.signal(SIGINT);
  int status = program.end();
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 130);
  CHECK_TEXT(program.errors(), "");
}

TEST_CASE("Ctrl-C also ends a program whose reader does not read") {
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  kj::AutoCloseFd readEnd(ends[0]), writeEnd(ends[1]);
  KJ_SYSCALL(fcntl(writeEnd, F_SETPIPE_SZ, 4096));
  char filler[4000] = {};
  KJ_SYSCALL(write(writeEnd, filler, sizeof(filler)));
  Program program({"--help"}, writeEnd);
  program.begin();
  // It is within write() when it has slept for a moment; a signal sooner ends it as well.
  usleep(100'000);
  int status = 0;
  REQUIRE(waitpid(-1, &status, WNOHANG) == 0);
  program.signal(SIGINT);
  status = program.end();
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 130);
}

TEST_CASE("an output that is full is said on stderr, a reader that has gone is not") {
  kj::AutoCloseFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  Program program({"--version"}, full);
  CHECK(program.exitStatus() == 1);
  CHECK_TEXT(program.errors(), "postern: cannot write the output: No space left on device\n");

  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  close(ends[0]);
  kj::AutoCloseFd writeEnd(ends[1]);
  Program piped({"--version"}, writeEnd);
  CHECK(piped.exitStatus() == 1);
  CHECK_TEXT(piped.errors(), "");
}

TEST_CASE("an output that is not a terminal gets no colours and no cursor") {
  Program program({"--help"});
  CHECK(program.exitStatus() == 0);
  CHECK(program.output().startsWith("Talks with virtual machines"));
  CHECK(!contains(program.output(), "\033"));
}

TEST_CASE("connect: whoever reads the output sees the service's end, and the input goes on") {
  Pipe input, output;
  Program program({"connect", "web1", "ssh"}, output.in, input.out);
  auto listener = program.listen();
  program.begin();
  input.out = nullptr;
  output.in = nullptr;
  Pipe heard;
  Posternd posternd(kj::mv(listener), [&](int fd) {
    KJ_SYSCALL(write(fd, "greeting", 8));
    shutdown(fd, SHUT_WR);
    char buffer[64];
    for (ssize_t n; (n = ::read(fd, buffer, sizeof(buffer))) > 0;) KJ_SYSCALL(write(heard.in, buffer, size_t(n)));
    heard.in = nullptr;
    return "finished"_kj;
  });
  CHECK_TEXT(output.rest(), "greeting");
  KJ_SYSCALL(write(input.in, "more", 4));
  input.in = nullptr;
  CHECK_TEXT(heard.rest(), "more");
  int status = program.end();
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK_TEXT(program.errors(), "");
}

TEST_CASE("connect: the flags of standard input and output stay what they are") {
  Pipe input, output;
  Program program({"connect", "web1", "ssh"}, output.in, input.out);
  auto listener = program.listen();
  program.begin();
  Posternd posternd(kj::mv(listener), [&](int fd) {
    char byte;
    KJ_SYSCALL(read(fd, &byte, 1));
    KJ_SYSCALL(write(fd, &byte, 1));
    while (read(fd, &byte, 1) > 0) {
    }
    shutdown(fd, SHUT_WR);
    return "finished"_kj;
  });
  KJ_SYSCALL(write(input.in, "x", 1));
  char byte;
  KJ_SYSCALL(read(output.out, &byte, 1));
  // They are shared with this process.
  CHECK((fcntl(input.out, F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(output.in, F_GETFL) & O_NONBLOCK) == 0);
  input.in = nullptr;
  CHECK(WEXITSTATUS(program.end()) == 0);
}
