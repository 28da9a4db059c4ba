#pragma once
// A board in a temporary folder, and what tests need to look at its bytes and to kill its writers.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/time.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include <boost/interprocess/file_mapping.hpp>

#include "host/board/board-file.h"
#include "host/board/board-reader.h"
#include "host/board/board-writer.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern::host::test {

inline kj::TimePoint monotonicNow() {
  return kj::systemPreciseMonotonicClock().now();
}

// A child process that runs `body` and ends; gives its wait status. It must not touch doctest.
template <typename Body>
int inChild(Body&& body) {
  fflush(stdout);  // or the child prints it again
  pid_t pid = fork();
  KJ_ASSERT(pid >= 0);
  if (pid == 0) {
    int status = 99;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { status = body(); })) {
      (void)exception;
      status = 98;
    }
    _exit(status);
  }
  int status;
  KJ_SYSCALL(waitpid(pid, &status, 0));
  return status;
}

// The board's file, mapped for writing beside its writer: the hand of a killed writer, or of a liar.
struct ScribbledBoard {
  explicit ScribbledBoard(kj::StringPtr path)
      : mapping(path.cStr(), boost::interprocess::read_write), region(mapping, boost::interprocess::read_write) {}
  boost::interprocess::file_mapping mapping;
  boost::interprocess::mapped_region region;

  kj::ArrayPtr<kj::byte> bytes() { return {static_cast<kj::byte*>(region.get_address()), region.get_size()}; }
  board::Header& header() { return *static_cast<board::Header*>(region.get_address()); }
  board::MappedSlot& slot(size_t index) {
    return *reinterpret_cast<board::MappedSlot*>(bytes().begin() + board::HEADER_BYTES + index * board::SLOT_BYTES);
  }
};

struct BoardFixture {
  postern::TempDir folder;
  kj::String path = folder.file("board");

  static BoardVm vm(kj::StringPtr name, Colour colour = Colour::GREEN, Reason reason = Reason::ON_TIME) {
    BoardVm vm;
    vm.name = kj::str(name);
    vm.verdict = {colour, reason, monotonicNow()};
    return vm;
  }
  kj::Own<BoardReader> reader() {
    auto opened = BoardReader::open(path);
    if (opened.is<kj::String>()) FAIL(std::string(opened.get<kj::String>().cStr()));
    return kj::mv(opened.get<kj::Own<BoardReader>>());
  }
  kj::String refusal() {
    auto opened = BoardReader::open(path);
    REQUIRE(opened.is<kj::String>());
    for (char c : opened.get<kj::String>()) CHECK((c >= ' ' && c <= '~'));
    return kj::mv(opened.get<kj::String>());
  }
  void putFile(kj::ArrayPtr<const kj::byte> content) {
    unlink(path.cStr());
    int fd;
    KJ_SYSCALL(fd = open(path.cStr(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
    kj::FdOutputStream(kj::AutoCloseFd(fd)).write(content.begin(), content.size());
  }
};

inline bool contains(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

}  // namespace postern::host::test
