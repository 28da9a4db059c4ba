// The two ends of a vsock connection, as small as possible: proves that a guest's AF_VSOCK works and who the peer is.
//   vsock-echo listen PORT               echoes every connection, one after another, for ever
//   vsock-echo connect CID PORT TEXT     sends TEXT, expects it back; exit status 0 if it came
// For guests only. It is linked statically and needs nothing in the guest but the kernel.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int fail(const char* what) {
  perror(what);
  return 1;
}

static struct sockaddr_vm address(unsigned cid, unsigned port) {
  struct sockaddr_vm result;
  memset(&result, 0, sizeof(result));
  result.svm_family = AF_VSOCK;
  result.svm_cid = cid;
  result.svm_port = port;
  return result;
}

static int echo(int connection) {
  char buffer[4096];
  ssize_t count;
  while ((count = read(connection, buffer, sizeof(buffer))) > 0) {
    if (write(connection, buffer, (size_t)count) != count) return fail("write");
  }
  return count == 0 ? 0 : fail("read");
}

static int serve(unsigned port) {
  int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  struct sockaddr_vm own = address(VMADDR_CID_ANY, port);
  if (listener < 0 || bind(listener, (struct sockaddr*)&own, sizeof(own)) < 0) return fail("bind");
  if (listen(listener, 16) < 0) return fail("listen");
  printf("vsock-echo: listening on port %u\n", port);
  for (;;) {
    struct sockaddr_vm peer;
    socklen_t length = sizeof(peer);
    int connection = accept(listener, (struct sockaddr*)&peer, &length);
    if (connection < 0) return fail("accept");
    printf("vsock-echo: peer CID %u\n", peer.svm_cid);
    if (echo(connection) == 0) printf("vsock-echo: done with CID %u\n", peer.svm_cid);
    close(connection);
  }
}

static int call(unsigned cid, unsigned port, const char* text) {
  int connection = socket(AF_VSOCK, SOCK_STREAM, 0);
  struct sockaddr_vm peer = address(cid, port);
  if (connection < 0 || connect(connection, (struct sockaddr*)&peer, sizeof(peer)) < 0) return fail("connect");
  size_t size = strlen(text);
  if (write(connection, text, size) != (ssize_t)size || shutdown(connection, SHUT_WR) < 0) return fail("write");
  char answer[4096];
  size_t got = 0;
  ssize_t count;
  while (got < sizeof(answer) && (count = read(connection, answer + got, sizeof(answer) - got)) > 0) {
    got += (size_t)count;
  }
  printf("vsock-echo: CID %u port %u answered '%.*s'\n", cid, port, (int)got, answer);
  return got == size && memcmp(answer, text, size) == 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc == 3 && strcmp(argv[1], "listen") == 0) return serve((unsigned)atoi(argv[2]));
  if (argc == 5 && strcmp(argv[1], "connect") == 0) {
    return call((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]), argv[4]);
  }
  fprintf(stderr, "usage: vsock-echo listen PORT | connect CID PORT TEXT\n");
  return 2;
}
