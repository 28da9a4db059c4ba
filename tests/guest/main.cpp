// Tests of transport/ that need a test guest's kernel. Runs nowhere else: on the machine that runs the suite, AF_VSOCK
// may belong to an outer hypervisor.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <stdio.h>
#include <string.h>

#include <fstream>
#include <string>

// Test guests boot from an initramfs, whose root is a file system that nothing else has as its root.
static bool inTestGuest() {
  std::ifstream mounts("/proc/self/mounts");
  std::string device, folder, kind;
  mounts >> device >> folder >> kind;
  return folder == "/" && kind == "rootfs";
}

int main(int argc, char** argv) {
  if (!inTestGuest()) {
    fprintf(stderr, "guest-transport: only for test guests (see tests/vm)\n");
    return 2;
  }
  return doctest::Context(argc, argv).run();
}
