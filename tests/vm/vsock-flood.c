// An unprivileged program of a guest that floods a vsock port of the host: connects without end, holds what it gets,
// and sends garbage on it.
//   vsock-flood CID PORT SECONDS
// Becomes nobody first. Prints how many connections the host took and how many it ended. For guests only. It is linked
// statically and needs nothing in the guest but the kernel.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

enum { HELD = 200, NOBODY = 65534 };

static char garbage[16 << 10];
static unsigned long made, taken, ended, refused;

struct slot {
  int socket;  // -1: none
  int open;    // the host has taken it
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void drop(struct slot* slot, unsigned long* counter) {
  close(slot->socket);
  slot->socket = -1;
  ++*counter;
}

static void begin(struct slot* slot, const struct sockaddr_vm* peer) {
  slot->open = 0;
  slot->socket = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (slot->socket < 0) return;
  ++made;
  if (connect(slot->socket, (const struct sockaddr*)peer, sizeof(*peer)) < 0 && errno != EINPROGRESS) {
    drop(slot, &refused);
  }
}

static void go_on(struct slot* slot) {
  ssize_t sent = send(slot->socket, garbage, sizeof(garbage), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent > 0 && !slot->open) {
    slot->open = 1;
    ++taken;
  }
  if (sent >= 0 || errno == EAGAIN || errno == ENOTCONN || errno == EINPROGRESS || errno == EALREADY) return;
  drop(slot, slot->open ? &ended : &refused);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0) return perror("setuid"), 1;
  struct sockaddr_vm peer;
  memset(&peer, 0, sizeof(peer));
  peer.svm_family = AF_VSOCK;
  peer.svm_cid = (unsigned)atoi(argv[1]);
  peer.svm_port = (unsigned)atoi(argv[2]);
  for (size_t i = 0; i < sizeof(garbage); ++i) garbage[i] = (char)(i * 131 + (i >> 7));
  struct slot slots[HELD];
  for (int i = 0; i < HELD; ++i) slots[i].socket = -1;
  for (double end = now() + atof(argv[3]); now() < end;) {
    for (int i = 0; i < HELD; ++i) {
      if (slots[i].socket < 0) {
        begin(&slots[i], &peer);
      } else {
        go_on(&slots[i]);
      }
    }
  }
  printf("vsock-flood: uid %d made %lu connections, the host took %lu and ended %lu, refused %lu\n", (int)getuid(),
         made, taken, ended, refused);
  return 0;
}
