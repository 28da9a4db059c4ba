// bare-copy: the least that a copy of a file between two processes costs; the reference of compare-file-copy
// (README.md).
//
//   bare-copy file SOURCE DESTINATION   one process reads 64 KiB, seals, writes to a Unix socket; the other reads,
//   opens and
//                                       writes DESTINATION, which must not exist. Prints each one's CPU seconds as
//                                       JSON.
//   bare-copy cipher BLOCK BLOCKS       no file and no socket: seconds that sealing, and opening, take as JSON.

#include <fcntl.h>
#include <kj/io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/bench/bare-cipher.h"
#include "tests/bench/clock.h"

namespace postern::bench {

namespace {

// Of the cipher alone: an emulated processor translates what it runs for the first time.
constexpr int WARM_UP_BLOCKS = 16;

kj::AutoCloseFd openFile(const char* path, int flags) {
  int fd;
  KJ_SYSCALL(fd = open(path, flags | O_CLOEXEC, 0644), path);
  return kj::AutoCloseFd(fd);
}

void sendFile(int source, int socket, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(source, cipher.plain());
    cipher.seal();
    writeAll(socket, cipher.sealed());
  }
}

void receiveFile(int socket, int destination, uint64_t blocks) {
  BareCipher cipher;
  for (uint64_t i = 0; i < blocks; ++i) {
    readAll(socket, cipher.sealed());
    cipher.open();
    writeAll(destination, cipher.plain());
  }
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

void copyFile(const char* source, const char* destination) {
  auto from = openFile(source, O_RDONLY);
  struct stat status;
  KJ_SYSCALL(fstat(from, &status));
  KJ_REQUIRE(status.st_size % BLOCK_BYTES == 0, "whole blocks of 64 KiB only", source);
  auto blocks = static_cast<uint64_t>(status.st_size) / BLOCK_BYTES;
  int sockets[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  kj::AutoCloseFd near(sockets[0]), far(sockets[1]);

  pid_t child;
  KJ_SYSCALL(child = fork());
  if (child == 0) {
    near = nullptr;
    receiveFile(far, openFile(destination, O_WRONLY | O_CREAT | O_EXCL), blocks);
    _exit(0);
  }
  far = nullptr;
  sendFile(from, near, blocks);
  int how;
  rusage receiver;
  KJ_SYSCALL(wait4(child, &how, 0, &receiver));
  KJ_REQUIRE(how == 0, "the receiving process failed");
  printf("{\"senderCpu\": %.6f, \"receiverCpu\": %.6f}\n", cpuSeconds(),
         seconds(receiver.ru_utime) + seconds(receiver.ru_stime));
}

// By turns, so that what else the machine does meets both.
void timeCipher(size_t blockBytes, uint64_t blocks) {
  BareCipher sealing(blockBytes), opening(blockBytes);
  for (int i = 0; i < WARM_UP_BLOCKS; ++i) {
    sealing.seal();
    memcpy(opening.sealed().begin(), sealing.sealed().begin(), sealing.sealed().size());
    opening.open();
  }
  double spent[2] = {0, 0};
  for (uint64_t i = 0; i < blocks; ++i) {
    double began = wallSeconds();
    sealing.seal();
    double sealed = wallSeconds();
    memcpy(opening.sealed().begin(), sealing.sealed().begin(), sealing.sealed().size());
    double copied = wallSeconds();
    opening.open();
    spent[0] += sealed - began;
    spent[1] += wallSeconds() - copied;
  }
  printf("{\"seal\": %.6f, \"open\": %.6f}\n", spent[0], spent[1]);
}

int run(int count, char** words) {
  KJ_REQUIRE(sodium_init() >= 0);
  kj::StringPtr what = count > 1 ? words[1] : "";
  if (what == "file" && count == 4) {
    copyFile(words[2], words[3]);
  } else if (what == "cipher" && count == 4) {
    timeCipher(strtoul(words[2], nullptr, 10), strtoull(words[3], nullptr, 10));
  } else {
    fputs("usage: bare-copy file SOURCE DESTINATION | bare-copy cipher BLOCK BLOCKS\n", stderr);
    return 2;
  }
  return 0;
}

}  // namespace

}  // namespace postern::bench

int main(int count, char** words) {
  int status = 1;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { status = postern::bench::run(count, words); })) {
    fprintf(stderr, "bare-copy: %s\n", exception->getDescription().cStr());
  }
  return status;
}
