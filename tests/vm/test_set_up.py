"""The cache and the recipe, without booting anything and without network: apt and mmdebstrap are replaced by scripts."""

import os
import pathlib
import struct
import subprocess
import tempfile
import types
import unittest
from unittest import mock

from guestlab import DebianDisk, GuestKernel, Initramfs, SetUpError, copy_out
from guestlab.libraries import shared_libraries
from guestlab.modules import load_order
from guestlab.vmlinux import UnknownCompression, extract_vmlinux

HERE = pathlib.Path(__file__).parent
RELEASE = "9.9-cloud-amd64"
PACKAGE = f"linux-image-{RELEASE}"

APT_CACHE = f"""#!/bin/sh
echo linux-image-cloud-amd64
echo "  Depends: {PACKAGE}"
"""
APT_GET = f"""#!/bin/sh
echo download >>"$LOG"
sleep 0.3
exec dpkg-deb --build -Zgzip "$TREE" {PACKAGE}_1_amd64.deb >/dev/null
"""
MMDEBSTRAP = """#!/bin/sh
echo bootstrap >>"$LOG"
mkdir -p "$SCRATCH/etc/systemd/system" "$SCRATCH/usr/local/sbin"
for archive; do case "$archive" in *.tar) tar -C "$SCRATCH" -cf "$archive" . ;; esac; done
"""


def make_bzimage(payload):
    """The least that the boot protocol says about a kernel image: one set-up sector, then the payload."""
    header = bytearray(1024)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 0, len(payload))
    return bytes(header) + payload


def make_lz4(*blocks):
    framed = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    return struct.pack("<I", 0x184C2102) + framed + struct.pack("<I", 0)


class CacheTest(unittest.TestCase):
    """With an apt that has one small kernel, and notes in self.log what it was asked for."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.cache = self.folder / "cache"
        self.log = self.folder / "log"
        bin = self.folder / "bin"
        bin.mkdir()
        self.write_tool("apt-cache", APT_CACHE)
        self.write_tool("apt-get", APT_GET)
        tree = self.folder / "tree"
        for name, content in {
            "DEBIAN/control": f"Package: {PACKAGE}\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@y>\nDescription: x\n",
            f"boot/vmlinuz-{RELEASE}": "not compressed with LZ4",
            f"lib/modules/{RELEASE}/modules.order": "",
            f"lib/modules/{RELEASE}/modules.builtin": "kernel/fs/ext4.ko\n",
        }.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(content)
        self.enterContext(
            mock.patch.dict(
                os.environ,
                POSTERN_CACHE=str(self.cache),
                PATH=f"{bin}:{os.environ['PATH']}",
                LOG=str(self.log),
                TREE=str(tree),
            )
        )

    def write_tool(self, name, text):
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, script):
        return subprocess.Popen([str(HERE / script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class KernelCache(CacheTest):
    def fetch(self):
        return self.start("fetch-guest-kernel")

    def assert_only_remains(self, *names):
        remains = {path.name for path in (self.cache / "guest-kernel").iterdir()}
        self.assertEqual(remains, {".lock", *names})

    def test_a_missing_kernel_is_one_line_that_says_what_to_run_and_looking_leaves_no_trace(self):
        with self.assertRaisesRegex(SetUpError, r"^no guest kernel in .*: run tests/vm/fetch-guest-kernel once[^\n]*$"):
            GuestKernel.find()
        self.assertFalse(self.cache.exists())

    def test_a_fetched_kernel_is_found_again_and_downloaded_once(self):
        for _ in range(2):
            fetch = self.fetch()
            output, errors = fetch.communicate(timeout=60)
            self.assertEqual((fetch.returncode, errors), (0, ""))
            self.assertIn(RELEASE, output)
        self.assertEqual(GuestKernel.find().release, RELEASE)
        self.assertTrue((GuestKernel.find().modules_folder / "modules.dep").exists())
        self.assertEqual(self.log.read_text(), "download\n")
        self.assert_only_remains("current", f"{PACKAGE}_1_amd64")

    def test_four_concurrent_fetches_download_once_and_all_succeed(self):
        fetches = [self.fetch() for _ in range(4)]
        for fetch in fetches:
            _, errors = fetch.communicate(timeout=60)
            self.assertEqual((fetch.returncode, errors), (0, ""))
        self.assertEqual(self.log.read_text(), "download\n")
        self.assert_only_remains("current", f"{PACKAGE}_1_amd64")

    def test_a_download_that_fails_is_one_line_with_apts_reason_and_leaves_nothing(self):
        self.write_tool("apt-get", "#!/bin/sh\necho 'E: no such host' >&2\nexit 100\n")
        self.assert_fetch_fails("E: no such host")

    def test_a_meta_package_that_apt_does_not_know_is_one_line(self):
        self.write_tool("apt-cache", "#!/bin/sh\nexit 0\n")
        self.assert_fetch_fails("apt-get update")

    def test_a_package_without_a_kernel_is_refused_and_leaves_nothing(self):
        (self.folder / "tree/boot" / f"vmlinuz-{RELEASE}").unlink()
        self.assert_fetch_fails("exactly one kernel")

    def test_a_cache_that_cannot_be_written_is_one_line(self):
        self.cache.write_text("a file where the folder should be")
        fetch = self.fetch()
        _, errors = fetch.communicate(timeout=60)
        self.assertEqual(fetch.returncode, 1)
        self.assertRegex(errors, r"^fetch-guest-kernel: cannot write the cache: [^\n]*set POSTERN_CACHE[^\n]*\n$")

    def test_what_a_killed_fetch_left_is_not_taken_for_a_kernel_and_goes_with_the_next_fetch(self):
        leftover = self.cache / "guest-kernel" / ".unpacking-killed" / "unpacked" / "boot"
        leftover.mkdir(parents=True)
        (leftover / "vmlinuz-1").write_text("half of a kernel")
        with self.assertRaises(SetUpError):
            GuestKernel.find()
        self.assertEqual(GuestKernel.fetch().release, RELEASE)
        self.assert_only_remains("current", f"{PACKAGE}_1_amd64")

    def assert_fetch_fails(self, reason):
        fetch = self.fetch()
        _, errors = fetch.communicate(timeout=60)
        self.assertEqual(fetch.returncode, 1)
        self.assertRegex(errors, r"^fetch-guest-kernel: [^\n]*\n$")
        self.assertIn(reason, errors)
        self.assert_only_remains()


class DebianCache(CacheTest):
    def setUp(self):
        super().setUp()
        self.write_tool("mmdebstrap", MMDEBSTRAP)
        self.enterContext(mock.patch.dict(os.environ, SCRATCH=str(self.folder / "scratch")))

    def fetch(self):
        process = self.start("fetch-debian-guest")
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def remains(self):
        return {path.name for path in (self.cache / "debian-guest").iterdir()}

    def assert_fetch_fails(self, reason):
        status, _, errors = self.fetch()
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"^fetch-debian-guest: [^\n]*\n$")
        self.assertIn(reason, errors)

    def test_a_missing_disk_is_one_line_that_says_what_to_run(self):
        GuestKernel.fetch()
        with self.assertRaisesRegex(SetUpError, r"run tests/vm/fetch-debian-guest once$"):
            DebianDisk.find()

    def test_the_disk_is_made_once_for_a_kernel_and_replaces_the_one_before(self):
        GuestKernel.fetch()
        old = self.cache / "debian-guest/bookworm-1-cloud-amd64-0.ext4"
        old.parent.mkdir()
        old.touch()
        for _ in range(2):
            status, _, errors = self.fetch()
            self.assertEqual((status, errors), (0, ""))
        self.assertEqual(self.log.read_text(), "download\nbootstrap\n")
        disk = DebianDisk.find()
        self.assertIn(RELEASE, disk.path.name)
        self.assertEqual(self.remains(), {".lock", disk.path.name})

    def test_a_copy_has_the_kernels_modules_and_the_files_that_a_test_adds(self):
        GuestKernel.fetch()
        copy = DebianDisk.fetch().copy_to(self.folder / "copy", {self.log: "/usr/added"})
        copy_out(copy, "/usr", self.folder)
        self.assertEqual((self.folder / "usr/added").read_text(), self.log.read_text())
        self.assertTrue((self.folder / "usr/lib/modules" / RELEASE / "modules.dep").exists())

    def test_without_a_kernel_there_is_no_disk(self):
        self.assert_fetch_fails("run tests/vm/fetch-guest-kernel once")

    def test_an_mmdebstrap_that_cannot_run_is_one_line_with_its_reason_and_leaves_nothing(self):
        GuestKernel.fetch()
        self.write_tool("mmdebstrap", "#!/bin/sh\necho 'E: no user namespaces' >&2\nexit 1\n")
        self.assert_fetch_fails("E: no user namespaces")
        self.assertEqual(self.remains(), {".lock"})


class KernelImage(unittest.TestCase):
    def test_literals_copies_and_overlapping_copies_are_unpacked(self):
        # "\x7fELF" + 16 more literals (length 15 + 5), a copy of 4 from 4 back, then one of 4 + 15 + 1 from 1 back.
        literals = b"\x7fELF" + b"0123456789abcdef"
        block = b"\xf0\x05" + literals + b"\x04\x00" + b"\x0f\x01\x00\x01" + b"\x10!"
        expected = literals + b"cdef" + b"f" * 20 + b"!"
        self.assertEqual(extract_vmlinux(make_bzimage(make_lz4(block, b"\x20ab"))), expected + b"ab")

    def test_what_is_not_such_an_image_is_recognised(self):
        good = make_lz4(b"\x40\x7fELF")
        for bad in (
            b"",
            b"\x7fELF" * 500,
            make_bzimage(b"\x28\xb5\x2f\xfd some zstd"),
            make_bzimage(make_lz4(b"\x40nope")),
            make_bzimage(make_lz4(b"\x40\x7fELF\x00\x00")),  # a copy from distance 0
            make_bzimage(make_lz4(b"\x40\x7fELF\x05\x00")),  # a copy from before the start
            make_bzimage(make_lz4(b"\xf0")),  # ends within a length
        ):
            with self.subTest(bad[:8]), self.assertRaises(UnknownCompression):
                extract_vmlinux(bad)
        self.assertEqual(extract_vmlinux(make_bzimage(good)), b"\x7fELF")


class Recipe(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "modules.dep").write_text(
            "kernel/a.ko:\nkernel/b.ko: kernel/a.ko\nkernel/c-d.ko: kernel/b.ko kernel/a.ko\nkernel/e.ko: kernel/a.ko\n"
        )
        (self.folder / "modules.builtin").write_text("kernel/built-in.ko\n")
        for name in ("a", "b", "c-d", "e"):
            (self.folder / "kernel").mkdir(exist_ok=True)
            (self.folder / "kernel" / f"{name}.ko").write_text(f"module {name}")
        self.kernel = types.SimpleNamespace(release="test", modules_folder=self.folder)

    def test_modules_come_after_what_they_need_and_once(self):
        order = load_order(self.kernel, ["c_d", "e", "built_in"])
        self.assertEqual(order, ["kernel/a.ko", "kernel/b.ko", "kernel/c-d.ko", "kernel/e.ko"])

    def test_an_unknown_module_is_named(self):
        with self.assertRaisesRegex(SetUpError, "has no module nonsense"):
            Initramfs(self.kernel).add_modules("nonsense").to_bytes()

    def test_cpio_reads_what_was_written_and_the_same_recipe_gives_the_same_bytes(self):
        def recipe():
            return Initramfs(self.kernel).add_modules("b").add_text("/etc/deep/down", "text").add_script("true")

        archive = recipe().to_bytes()
        self.assertEqual(archive, recipe().to_bytes())
        listing = subprocess.run(["cpio", "-itv", "--quiet"], input=archive, capture_output=True, check=True).stdout.decode()
        for name in ("init", "etc/deep", "etc/deep/down", "lib/modules/a.ko", "lib/modules/b.ko", "bin/sh -> busybox"):
            self.assertRegex(listing, rf"(?m) {name}$")
        unpacked = self.folder / "unpacked"
        unpacked.mkdir()
        subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=unpacked, check=True)
        self.assertEqual((unpacked / "etc/deep/down").read_text(), "text")
        self.assertTrue(os.access(unpacked / "init", os.X_OK))

    def test_a_program_brings_its_libraries_and_its_loader(self):
        libraries = shared_libraries("/usr/bin/env")
        self.assertTrue(any("ld-linux" in path for path in libraries), libraries)
        self.assertTrue(any("libc.so" in path for path in libraries), libraries)
        archive = Initramfs(self.kernel).add_program("env", "/bin/real-env").to_bytes()
        for path in libraries:
            self.assertIn(path.strip("/").encode(), archive)

    def test_a_static_program_needs_no_library(self):
        source = self.folder / "x.c"
        source.write_text("int main(void) { return 0; }")
        subprocess.run(["gcc", "-static", "-o", self.folder / "x", source], check=True)
        self.assertEqual(shared_libraries(self.folder / "x"), [])

    def test_mistakes_in_a_recipe_are_named(self):
        with self.assertRaisesRegex(SetUpError, "cannot read /nonexistent for the guest"):
            Initramfs(self.kernel).add_file("/nonexistent", "/x")
        with self.assertRaisesRegex(ValueError, "two different entries for /x"):
            Initramfs(self.kernel).add_text("/x", "one").add_text("/x", "other")
        with self.assertRaisesRegex(ValueError, "not a path inside the archive"):
            Initramfs(self.kernel).add_text("/../x", "outside")


if __name__ == "__main__":
    unittest.main()
