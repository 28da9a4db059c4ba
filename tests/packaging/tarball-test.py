"""The agent's tarball, in a root without the libraries that it brings: installed, refused where glibc is too old, and in a
session with a posternd outside. Needs root.

usage: tarball-test.py SOURCES BUILD-TREE [unittest arguments]

POSTERN_TEST_FULL=1 does it in the root of another Debian release as well (fetch-other-release).
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import machine as machines

SOURCES, BUILD = map(pathlib.Path, sys.argv[1:3])
sys.path.insert(0, str(SOURCES / "tests/integration"))
import lab as labs  # noqa: E402

FULL = os.environ.get("POSTERN_TEST_FULL") == "1"
OTHER_RELEASE = SOURCES / "build/other-release.tar"
PROGRAMS = labs.Programs(str(BUILD / "host"), None, None, None)
AGENT = "/opt/postern-agent/bin/postern-agent"
OURS = "libsodium libcapnp libkj libspdlog libfmt libseccomp".split()


class Tarball:
    """One story, in a machine that a class below makes: each test goes on from where the one before it ended."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="postern-tarball-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.packed = os.path.join(cls.folder, "packed")
        cls.pack(cls.packed)
        cls.machine = machines.Machine(cls.packed, SOURCES / "tests/packaging/consumer", lower=cls.make_root())
        cls.addClassCleanup(cls.machine.close)
        cls.shell = cls.machine.shell
        cls.shell("".join(f"rm -f /usr/lib/*/{name}[.-]*; " for name in OURS) + "cd /tmp; tar xf packages/*.tar.gz")

    @classmethod
    def pack(cls, folder):
        subprocess.run([SOURCES / "packaging/build-agent-tarball", "--build", BUILD, folder], check=True, timeout=600,
                       capture_output=True)

    def test_1_packing_again_gives_the_same_bytes(self):
        again = os.path.join(self.folder, "again")
        self.pack(again)
        (first,), (second,) = os.listdir(self.packed), os.listdir(again)
        self.assertEqual(first, second)
        self.assertEqual(pathlib.Path(self.packed, first).read_bytes(), pathlib.Path(again, second).read_bytes())

    def test_2_an_older_glibc_is_refused_by_its_number(self):
        oldest = re.search(r"(?m)^oldest=2\.(\d+)$", self.shell("cat /tmp/postern-agent-*/install"))
        self.assertIsNotNone(oldest)
        older = f"2.{int(oldest[1]) - 1}"
        self.shell(f"mkdir -p /tmp/older; printf '#!/bin/sh\\necho glibc {older}\\n' >/tmp/older/getconf; "
                   "chmod +x /tmp/older/getconf")
        done = self.machine.run("sh", "-c", "PATH=/tmp/older:$PATH /tmp/postern-agent-*/install", status=1)
        self.assertIn(f"install: needs glibc 2.{oldest[1]} or newer, and here is {older}\n", done.stderr)
        self.shell("test ! -e /opt/postern-agent")
        # A number, not a text: 2.100 is newer than 2.36.
        self.shell("sed -i 's/2[.].*/2.100/' /tmp/older/getconf; PATH=/tmp/older:$PATH /tmp/postern-agent-*/install")
        self.shell("rm -r /opt/postern-agent")

    def test_3_it_installs_twice_and_every_library_but_glibcs_is_beside_it(self):
        for _ in range(2):
            self.shell("/tmp/postern-agent-*/install")
        self.shell("id postern-agent; test ! -e /opt/postern-agent.old; test ! -e /opt/postern-agent.new")
        loaded = self.shell(f"LD_TRACE_LOADED_OBJECTS=1 {AGENT}")
        for name, file in re.findall(r"(\S+) => (\S+)", loaded):
            if not re.match(r"lib[cm]\.so", name):
                self.assertTrue(file.startswith("/opt/postern-agent/"), loaded)
        self.assertNotIn("not found", loaded)
        # Wherever it is put.
        self.shell("/tmp/postern-agent-*/install --prefix '/srv/some where'; '/srv/some where/bin/postern-agent' --version")

    def test_4_it_has_a_session_and_receives_a_file_as_somebody(self):
        lab = labs.Lab(PROGRAMS)
        self.addCleanup(lab.close)
        lab.start_posternd()
        guest = lab.enroll("web1", "unix:" + self.machine.path("/tmp/web1.sock"), "ping,info,file:/srv/www:run-as=nobody")
        shutil.copy(guest.bundle, self.machine.path("/tmp/bundle"))
        self.shell("mkdir -p /srv/www; chown nobody /srv/www")
        self.machine.start("agent.log", AGENT, "--connect", "unix:/tmp/web1.sock", "--bundle-file", "/tmp/bundle")
        labs.wait_until(lambda: lab.run("status", "web1", "--check").status == 0,
                        lambda: self.machine.read("/tmp/agent.log") + lab.posternd.said())
        with open("/etc/os-release") as file:
            here = re.search(r'(?m)^VERSION_ID="?([^"\n]*)', file.read())[1]
        version = lab.good("info", "web1")
        self.assertEqual(here in str(version), self.is_this_release, version)
        lab.good("cp", "--verify", lab.write("there", "content\n"), "web1:/srv/www/")
        self.assertEqual(self.shell("stat -c %U /srv/www/there; cat /srv/www/there"), "nobody\ncontent\n")


class ThisReleaseTest(Tarball, unittest.TestCase):
    is_this_release = True

    @classmethod
    def make_root(cls):
        return "/"


@unittest.skipUnless(FULL, "POSTERN_TEST_FULL=1 asks for it")
class OtherReleaseTest(Tarball, unittest.TestCase):
    is_this_release = False

    @classmethod
    def make_root(cls):
        root = os.path.join(cls.folder, "root")
        os.mkdir(root)
        subprocess.run(["tar", "-C", root, "-xf", OTHER_RELEASE], check=True, timeout=120)
        return root


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root: it installs in a root of its own")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], failfast=True)
