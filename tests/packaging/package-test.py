"""Debian's packages: what they hold, what lintian and the linker's notes say of them, and that the same commit gives the
same bytes.

usage: package-test.py SOURCES PACKAGES WORK [unittest arguments]

POSTERN_TEST_FULL=1 builds twice from nothing, in two folders, without a compiler's cache.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCES, PACKAGES, WORK = map(pathlib.Path, sys.argv[1:4])
FULL = os.environ.get("POSTERN_TEST_FULL") == "1"
NAMES = ("postern-host", "postern-libvirt", "postern-agent", "libpostern-dev")
PROGRAMS = {"postern-host": ("usr/sbin/posternd", "usr/libexec/postern/postern-session", "usr/bin/postern"),
            "postern-libvirt": ("usr/libexec/postern/postern-libvirt",),
            "postern-agent": ("usr/sbin/postern-agent",)}
HOST_FILES = """
etc/postern/postern.toml etc/postern/policy.d/local.toml
lib/systemd/system/posternd.service lib/systemd/system/posternd.socket
usr/lib/sysusers.d/postern-host.conf usr/lib/tmpfiles.d/postern-host.conf
usr/share/bash-completion/completions/postern usr/share/zsh/vendor-completions/_postern
usr/share/fish/vendor_completions.d/postern.fish usr/libexec/postern/postern-complete
usr/share/man/man8/posternd.8.gz usr/share/man/man8/postern-session.8.gz usr/share/man/man1/postern.1.gz
usr/share/man/man1/postern-cp.1.gz usr/share/man/man5/postern.toml.5.gz usr/share/man/man5/postern-policy.5.gz
usr/share/doc/postern-host/examples/prometheus/postern.rules.yml
usr/share/doc/postern-host/examples/prometheus/postern-dashboard.json
usr/share/doc/postern-host/examples/prometheus/prometheus.yml
"""
LIBVIRT_FILES = "lib/systemd/system/postern-libvirt.service usr/share/man/man8/postern-libvirt.8.gz"
AGENT_FILES = """
lib/systemd/system/postern-agent.service lib/udev/rules.d/60-postern-agent.rules
usr/lib/sysusers.d/postern-agent.conf usr/share/man/man8/postern-agent.8.gz usr/share/man/man5/agent.toml.5.gz
usr/share/doc/postern-agent/examples/agent.toml
"""
DEV_FILES = """
usr/lib/TRIPLET/libpostern.a usr/lib/TRIPLET/pkgconfig/postern.pc usr/lib/TRIPLET/cmake/Postern/PosternConfig.cmake
usr/include/postern/host/board/layout.h usr/include/postern/host/client/control-client.h
usr/include/postern/host/control/control.capnp usr/include/postern/host/control/control.capnp.h
usr/include/postern/protocol/guest.capnp
"""


def output(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=150 if not FULL else 7200, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def package(name, folder=PACKAGES):
    found = list(folder.glob(f"{name}_*.deb"))
    assert len(found) == 1, f"{name}: {found} in {folder}"
    return found[0]


def hashes(folder):
    return {name: hashlib.sha256(package(name, folder).read_bytes()).hexdigest() for name in NAMES}


class ContentsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="postern-packages-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.roots = {}
        for name in NAMES:
            cls.roots[name] = pathlib.Path(cls.folder, name)
            output("dpkg-deb", "-x", package(name), cls.roots[name])
        cls.triplet = output("dpkg-architecture", "-qDEB_HOST_MULTIARCH").strip()

    def test_each_package_holds_what_it_should(self):
        for name, files in zip(NAMES, (HOST_FILES, LIBVIRT_FILES, AGENT_FILES, DEV_FILES)):
            for file in files.replace("TRIPLET", self.triplet).split() + list(PROGRAMS.get(name, ())):
                self.assertTrue((self.roots[name] / file).is_file(), f"{name} has no {file}")

    def test_what_a_header_of_the_library_includes_is_there(self):
        folder = self.roots["libpostern-dev"] / "usr/include/postern"
        for header in folder.rglob("*.h"):
            for named in re.findall(r'#include [<"]((?:host|protocol|transport)/[^">]+)', header.read_text()):
                self.assertTrue((folder / named).is_file(), f"{header.relative_to(folder)} includes {named}")

    def test_an_installed_agent_has_no_policy_of_its_own(self):
        # It would turn off the grants that come with a bundle.
        self.assertFalse((self.roots["postern-agent"] / "etc/postern/agent.toml").exists())

    def test_settings_are_conffiles_and_nobody_else_writes_anything(self):
        listed = output("dpkg-deb", "-I", package("postern-host"), "conffiles").split()
        self.assertEqual(sorted(listed), ["/etc/postern/policy.d/local.toml", "/etc/postern/postern.toml"])
        for name in NAMES:
            for line in output("dpkg-deb", "-c", package(name)).splitlines():
                mode, owner = line.split()[:2]
                self.assertEqual(owner, "root/root", line)
                self.assertNotRegex(mode, r"^[^l](.{4}w|.{7}w|.*[sS])", line)

    def test_the_programs_are_stripped_and_hardened(self):
        for name, programs in PROGRAMS.items():
            for program in programs:
                file = self.roots[name] / program
                with self.subTest(program):
                    self.assertIn("DYN (Position-Independent Executable", output("readelf", "-h", file))
                    self.assertIn("GNU_RELRO", output("readelf", "-l", file))
                    dynamic = output("readelf", "-d", file)
                    self.assertRegex(dynamic, r"BIND_NOW|FLAGS.*NOW")
                    self.assertNotRegex(dynamic, "RPATH|RUNPATH")
                    symbols = output("readelf", "--dyn-syms", "-W", file)
                    self.assertIn("__stack_chk_fail", symbols)
                    self.assertRegex(symbols, r"__\w+_chk@GLIBC")
                    self.assertNotRegex(output("readelf", "-S", "-W", file), r"\.symtab|\.debug_info")
                    flags = re.search(r"GNU_STACK\s+.*?(\w+)\s+0x\w+$", output("readelf", "-l", "-W", file), re.MULTILINE)
                    self.assertEqual(flags[1], "RW")

    def test_no_path_of_the_machine_that_built_them_is_in_them(self):
        for name in NAMES:
            for file in self.roots[name].rglob("*"):
                if file.is_file() and not file.is_symlink():
                    content = file.read_bytes()
                    for path in (str(SOURCES), str(WORK.resolve())):
                        self.assertNotIn(path.encode() + b"/", content, f"{path} is in {file}")

    def test_lintian_has_nothing_to_say(self):
        done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", "--display-info",
                               *map(str, map(package, NAMES))], capture_output=True, text=True, timeout=170)
        print(done.stdout, end="")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotRegex(done.stdout, r"(?m)^[EWI]: ")


class ReproducibleTest(unittest.TestCase):
    def build(self, work, out, **environment):
        output(SOURCES / "packaging/build-packages", "--work", work, out, env={**os.environ, **environment})
        return hashes(pathlib.Path(out))

    @unittest.skipIf(FULL, "the long form builds from nothing")
    def test_packing_again_gives_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as out:
            again = self.build(WORK, out, TZ="Asia/Tokyo", LC_ALL="C", USER="somebody")
            self.assertEqual(again, hashes(PACKAGES))

    @unittest.skipUnless(FULL, "POSTERN_TEST_FULL=1 asks for it")
    def test_building_twice_from_nothing_in_two_places_gives_the_same_bytes(self):
        with tempfile.TemporaryDirectory(prefix="postern-one-") as one, tempfile.TemporaryDirectory() as two:
            first = self.build(one + "/work", one + "/out", CCACHE_DISABLE="1")
            second = self.build(two + "/another/work", two + "/out", CCACHE_DISABLE="1", TZ="Asia/Tokyo")
            self.assertEqual(first, second)
            # With a cache, too, which compiles with other paths.
            self.assertEqual(first, hashes(PACKAGES))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
