"""The packages installed, used, installed again, removed and purged, in a copy of this machine (machine.py). Needs root.

usage: install-test.py SOURCES PACKAGES [unittest arguments]
"""
import os
import pathlib
import sys
import time
import unittest

import machine as machines

SOURCES, PACKAGES = map(pathlib.Path, sys.argv[1:3])
HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 20
LIBVIRT = "/usr/libexec/postern/postern-libvirt"
# What dpkg itself and the user database keep.
NOT_OURS = ("/var/lib/dpkg", "/var/cache", "/var/log/dpkg.log", "/var/log/alternatives.log", "/var/log/apt", "/tmp", "/proc",
            "/sys", "/dev", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/.pwd.lock", "/etc/subuid",
            "/etc/subgid", "/etc/ld.so.cache", "/run/systemd")
POLICY = 'policy = 1\n[[allow]]\nid = "look"\nfrom = "user:nobody"\nto = "any"\ncall = ["status.read", "ping"]\n'


class InstallTest(unittest.TestCase):
    """One story: each test goes on from where the one before it ended."""

    @classmethod
    def setUpClass(cls):
        cls.machine = machines.Machine(PACKAGES, HERE)
        cls.addClassCleanup(cls.machine.close)
        cls.shell = cls.machine.shell
        cls.shell("dpkg --purge postern-libvirt postern-host postern-agent libpostern-dev >/dev/null 2>&1 || true; rm -rf /etc/postern")
        cls.before = cls.files()

    @classmethod
    def files(cls):
        return {file for file in cls.machine.new_files() if not file.startswith(NOT_OURS)}

    def start_posternd(self):
        """As posternd.service says, without systemd."""
        self.machine.start("posternd.log", "/usr/bin/python3", "/tmp/test/as-unit-says.py",
                           "/lib/systemd/system/posternd.service")
        self.machine.wait_for(lambda: self.machine.processes("/usr/sbin/posternd") and self.answers(),
                              lambda: self.machine.read("/tmp/posternd.log"), PATIENCE)

    def answers(self):
        return self.machine.run("postern", "--json", "vm", "list", status=None).returncode == 0

    def sessions(self):
        return self.machine.processes("/usr/libexec/postern/postern-session")

    def green(self):
        def look():
            self.last = self.machine.run("postern", "status", "web1", "--check", status=None)
            return self.last.returncode == 0

        self.machine.wait_for(look, lambda: f"{self.last}\n{self.machine.read('/tmp/posternd.log')[-3000:]}"
                              f"{self.machine.read('/tmp/agent.log')[-3000:]}", PATIENCE)

    def as_user(self, user, *words, groups="", status=0):
        listed = [f"--groups={groups}"] if groups else ["--clear-groups"]
        return self.machine.run("setpriv", f"--reuid={user}", "--regid=nogroup", *listed, *words, status=status)

    # The story ------------------------------------------------------------------------------------------------------

    def test_1_they_install_and_make_users_and_folders(self):
        self.shell("dpkg -i /tmp/packages/*.deb")
        self.assertEqual(self.shell("dpkg-query -W -f '${Status}\\n' postern-host postern-libvirt postern-agent libpostern-dev | sort -u"),
                         "install ok installed\n")
        self.assertEqual(self.shell("stat -c '%a %U:%G %n' /run/postern /var/lib/postern /var/log/postern").splitlines(),
                         ["755 postern:postern /run/postern", "755 postern:postern /var/lib/postern",
                          "2750 postern:adm /var/log/postern"])
        self.shell("id postern-agent; test ! -e /etc/postern/agent.toml")
        self.shell("setpriv --reuid=postern --regid=postern --clear-groups posternd --check-config")
        self.shell("systemd-analyze verify --man=no /lib/systemd/system/posternd.service /lib/systemd/system/posternd.socket "
                   "/lib/systemd/system/postern-libvirt.service /lib/systemd/system/postern-agent.service")
        self.shell("man -w postern-cp posternd agent.toml >/dev/null 2>&1 || test ! -x /usr/bin/man")

    def test_2_the_services_run_under_what_their_units_take_away(self):
        self.start_posternd()
        posternd = self.machine.processes("/usr/sbin/posternd")[0]
        bounds = dict(line.split(":\t", 1) for line in self.shell(f"cat /proc/{posternd}/status").splitlines())
        self.assertEqual([bounds[key] for key in ("Seccomp", "NoNewPrivs", "CapBnd", "CapEff")],
                         ["2", "1", "0" * 16, "0" * 16])
        self.assertEqual(self.shell("stat -c '%U:%G %a' /run/postern/control.sock /run/postern/board"),
                         "postern:postern 660\npostern:postern 640\n")
        self.shell("mkdir -p /srv/www /run/credentials && chown nobody /srv/www && "
                   "postern enroll web1 --transport unix:/run/postern/web1.sock --bundle-file /run/credentials/postern.bundle "
                   "--grant ping,info,file:/srv/www:run-as=nobody")
        self.machine.start("agent.log", "/usr/bin/python3", "/tmp/test/as-unit-says.py",
                           "/lib/systemd/system/postern-agent.service", "--connect", "unix:/run/postern/web1.sock",
                           env={"CREDENTIALS_DIRECTORY": "/run/credentials"})
        self.green()
        # What the unit's list of system calls lacks shows here: sandboxes, openers, probes.
        self.shell("head -c 3000000 /dev/urandom >/tmp/there; postern cp --verify /tmp/there web1:/srv/www/; "
                   "cmp /tmp/there /srv/www/there; postern cp web1:/srv/www/there /tmp/back; cmp /tmp/there /tmp/back")
        self.assertEqual(self.shell("stat -c %U /srv/www/there"), "nobody\n")
        self.shell("postern mkdir web1:/srv/www/d; postern ls -l web1:/srv/www; postern rm -r web1:/srv/www/d")
        self.assertIn("web1", self.shell("postern info web1 --json"))
        for log in ("posternd.log", "agent.log"):
            self.assertNotRegex(self.machine.read("/tmp/" + log), "no-landlock|not permitted|seccomp|internal")
        self.assertEqual(self.shell("stat -c %U:%G /var/log/postern/audit.log"), "postern:adm\n")

    def test_2_without_libvirtd_its_service_runs_as_the_unit_says_and_says_so(self):
        self.machine.start("libvirt.log", "/usr/bin/python3", "/tmp/test/as-unit-says.py",
                           "/lib/systemd/system/postern-libvirt.service")
        self.machine.wait_for(lambda: os.path.exists(self.machine.path("/run/postern/libvirt.sock")),
                              lambda: self.machine.read("/tmp/libvirt.log"), PATIENCE)
        refused = self.machine.run("postern", "enroll", "web2", "--libvirt", status=None)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("cannot connect to libvirt", refused.stderr)
        self.machine.run("postern", "enroll", "web3", "--transport", "libvirt:web3", "--bundle-file", "/tmp/web3.bundle")
        self.machine.wait_for(lambda: "cannot connect to libvirt" in self.machine.read("/tmp/posternd.log"),
                              lambda: self.machine.read("/tmp/posternd.log"), PATIENCE)
        self.machine.run("postern", "vm", "remove", "web3")
        for pid in self.machine.processes(LIBVIRT):
            self.shell(f"kill -TERM {pid}")
        self.machine.wait_for(lambda: not self.machine.processes(LIBVIRT), "postern-libvirt does not end")

    def test_3_who_is_not_in_the_group_is_refused_and_who_is_may_do_what_policy_says(self):
        refused = self.as_user("nobody", "postern", "vm", "list", status=1)
        self.assertIn("usermod -aG postern", refused.stderr)
        seen = self.as_user("nobody", "postern", "--json", "vm", "list", groups="postern")
        self.assertNotIn("web1", seen.stdout)
        self.as_user("nobody", "postern", "ping", "web1", groups="postern", status=2)
        self.as_user("nobody", "cat", "/var/log/postern/audit.log", groups="postern", status=1)
        self.shell(f"cat >/etc/postern/policy.d/ours.toml <<'EOF'\n{POLICY}EOF\nposternd --check-config; postern policy reload")
        self.as_user("nobody", "postern", "ping", "-c", "1", "web1", groups="postern")
        self.as_user("nobody", "postern", "info", "web1", groups="postern", status=3)

    def test_4_a_program_of_somebody_elses_is_built_against_the_library(self):
        self.shell("cd /tmp && cmake -S test/consumer -B consumer -DCMAKE_BUILD_TYPE=None >/dev/null && "
                   "cmake --build consumer >/dev/null")
        self.assertEqual(self.shell("/tmp/consumer/consumer"), "asked web1 green\nread web1\n")
        # Every header by itself would take minutes; all of them, the last first, miss as little.
        self.shell("cd /usr/include/postern && find . -name '*.h' | sort -r | sed 's/.*/#include \"&\"/' >/tmp/all.cpp && "
                   "g++ -std=c++20 -fsyntax-only $(pkg-config --cflags postern) /tmp/all.cpp")
        self.shell("cd /tmp && capnp compile -I/usr/include/postern -o- /usr/include/postern/host/control/control.capnp "
                   ">/dev/null")
        linked = self.shell("pkg-config --libs --static postern")
        self.assertIn("-lpostern", linked)

    def test_5_installed_again_and_restarted_they_keep_sessions_and_state(self):
        sessions = self.sessions()
        self.assertEqual(len(sessions), 1)
        before = self.shell("postern vm show web1 --json")
        self.shell("dpkg -i /tmp/packages/postern-host_*.deb")
        self.assertEqual(self.sessions(), sessions)
        self.shell(f"kill -TERM {self.machine.processes('/usr/sbin/posternd')[0]}")
        self.machine.wait_for(lambda: not self.machine.processes("/usr/sbin/posternd"), "posternd does not end")
        self.assertEqual(self.sessions(), sessions)
        self.start_posternd()
        self.assertEqual(self.sessions(), sessions)
        self.green()
        after = self.shell("postern vm show web1 --json")
        for field in ('"uuid":', '"hostFingerprint":', '"sessions":'):
            self.assertEqual(after.split(field, 1)[1].split(",", 1)[0], before.split(field, 1)[1].split(",", 1)[0])
        self.assertIn("ours.toml", os.listdir(self.machine.path("/etc/postern/policy.d")))

    def test_6_a_stop_ends_the_sessions(self):
        self.shell(f"kill -INT {self.machine.processes('/usr/sbin/posternd')[0]}")
        self.machine.wait_for(lambda: not self.machine.processes("/usr/sbin/posternd") and not self.sessions(),
                              "a session is still there")

    def test_7_removing_them_leaves_no_process_even_after_a_crash(self):
        self.start_posternd()
        self.green()
        self.assertEqual(len(self.sessions()), 1)
        self.shell(f"kill -KILL {self.machine.processes('/usr/sbin/posternd')[0]}")
        # A number in a file proves nothing: this is another program's.
        stranger = self.machine.start("stranger.log", "sleep", "1000")
        number = self.shell("pgrep -x sleep | tail -n 1").strip()
        self.shell(f"echo {number} >/run/postern/sessions/other.pid")
        self.shell("kill -TERM $(pgrep -o postern-agent)")
        self.machine.wait_for(lambda: not self.machine.processes("/usr/sbin/postern-agent"), "the agent does not end")
        self.shell("dpkg --remove postern-libvirt postern-host postern-agent libpostern-dev")
        self.assertEqual(self.sessions(), [])
        self.assertEqual(self.shell("pgrep -f [p]ostern | while read p; do readlink /proc/$p/exe; done | grep postern || true"), "")
        self.assertIsNone(stranger.poll())
        stranger.kill()
        # What was written by hand and the state stay until a purge.
        self.shell("test -e /var/lib/postern/vms/web1.toml; test -e /etc/postern/policy.d/ours.toml; test -e /etc/postern/postern.toml")

    def test_8_a_purge_leaves_no_file(self):
        self.shell("mkdir -p /etc/postern; echo 'policy = 1' >/etc/postern/agent.toml")
        self.shell("dpkg --purge postern-libvirt postern-host")
        # What is the agent's stays.
        self.shell("test -e /etc/postern/agent.toml; test -e /var/lib/postern-agent")
        self.shell("dpkg --purge postern-agent libpostern-dev")
        self.shell("rm -rf /srv/www /run/credentials")
        self.assertEqual(sorted(self.files() - self.before), [])

    def test_9_they_install_again_after_a_purge(self):
        self.shell("dpkg -i /tmp/packages/*.deb && dpkg -i /tmp/packages/*.deb && dpkg --purge postern-libvirt postern-host postern-agent libpostern-dev")
        self.assertEqual(sorted(self.files() - self.before), [])


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root: it installs packages in a root of its own")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], failfast=True)
