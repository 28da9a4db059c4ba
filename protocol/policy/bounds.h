#pragma once
// How much policy is taken. A text above a bound is refused with a line that names the bound.

#include <stddef.h>
#include <stdint.h>

namespace postern::policy {

// One file, and all files of one policy. 1,000 VMs with a written-out rule each are 200 KiB.
constexpr size_t MAX_FILE_BYTES = size_t(1) << 20;
constexpr size_t MAX_FILES = 4096;
constexpr size_t MAX_POLICY_BYTES = size_t(8) << 20;
// Nesting of brackets and dots: the grammar needs three levels, and each level costs the TOML reader a stack frame.
constexpr unsigned MAX_NESTING = 16;
// Rules; a segment counts as two and one for each community. Verdicts use bitmaps of this size on the stack.
constexpr size_t MAX_RULES = 16384;
constexpr size_t MAX_GROUPS = 1024;
constexpr size_t MAX_TESTS = 16384;
constexpr size_t MAX_PORTS = 16384;
// Calls of one rule; globs of one rule, and the bytes of one.
constexpr size_t MAX_CALLS = 64;
constexpr size_t MAX_GLOBS = 64;
constexpr size_t MAX_GLOB_BYTES = 512;
// A larger max-depth bounds nothing: transfers end there in any case (protocol/transfer/limits.h).
constexpr int64_t MAX_DEPTH_QUOTA = 256;
// A path that is asked for: the kernel's PATH_MAX and NAME_MAX.
constexpr size_t MAX_PATH_BYTES = 4095;
constexpr size_t MAX_COMPONENT_BYTES = 255;
// The path of a Unix socket: the kernel's sun_path without the NUL at its end.
constexpr size_t MAX_SOCKET_PATH_BYTES = 107;
constexpr size_t MAX_NAME_BYTES = 64;
// User and group names of the host come from directories of companies as well (user@example.com).
constexpr size_t MAX_HOST_NAME_BYTES = 128;
// Errors told of one policy; a person mends the first ones first.
constexpr size_t MAX_PROBLEMS = 100;

}  // namespace postern::policy
