"""The units, as far as systemd's own tools judge them without a running systemd, and the default files.

usage: units-test.py SOURCES BUILD-TREE [unittest arguments]
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import settings_keys

SOURCES, BUILD = map(pathlib.Path, sys.argv[1:3])
UNITS = BUILD / "packaging"
# Of ten. The agent becomes the users of policy's rules and writes where they may.
MOST = {"posternd.service": 2.0, "postern-libvirt.service": 2.6, "postern-agent.service": 3.9}


def tool(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C.UTF-8"})


class UnitsTest(unittest.TestCase):
    def test_the_services_are_no_more_exposed_than_they_say(self):
        for unit, most in MOST.items():
            done = tool("systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit))
            figure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
            self.assertIsNotNone(figure, done)
            print(f"{unit}: {figure[1]}")
            self.assertLessEqual(float(figure[1]), most, done.stdout)

    def test_systemd_finds_nothing_wrong_with_the_units(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            units = root / "units"
            units.mkdir()
            programs = {"posternd": BUILD / "host/posternd", "postern-libvirt": BUILD / "host/postern-libvirt",
                        "postern-agent": BUILD / "guest-agent/postern-agent"}
            for unit in MOST:
                text = (UNITS / unit).read_text()
                # The programs are not installed yet.
                for name, path in programs.items():
                    text = re.sub(rf"(?<=[=])\S*/{name}(?=\s)", str(path), text)
                (units / unit).write_text(text)
            (units / "posternd.socket").write_text((SOURCES / "packaging/systemd/posternd.socket").read_text())
            done = tool("systemd-analyze", "verify", "--man=no", *map(str, sorted(units.iterdir())))
            ours = [line for line in done.stderr.splitlines() if "postern" in line]
            self.assertEqual((done.returncode, ours), (0, []), done.stderr)

    def test_a_stop_ends_the_sessions_and_a_restart_does_not(self):
        text = (UNITS / "posternd.service").read_text()
        for line in ("KillMode=process", "KillSignal=SIGINT", "RestartKillSignal=SIGTERM"):
            self.assertIn("\n" + line + "\n", text)

    def test_the_agent_is_stopped_after_what_waits_for_the_basic_system(self):
        text = (UNITS / "postern-agent.service").read_text()
        self.assertIn("DefaultDependencies=no", text)
        self.assertRegex(text, r"\nBefore=basic\.target shutdown\.target\n")
        self.assertRegex(text, r"\nConflicts=shutdown\.target\n")

    def test_udev_starts_the_agent_when_the_port_appears(self):
        # Debian 12's udev has no command that judges rules.
        rules = (SOURCES / "packaging/systemd/60-postern-agent.rules").read_text()
        lines = [line for line in rules.splitlines() if line and not line.startswith("#")]
        self.assertEqual(len(lines), 1)
        for part in lines[0].split(", "):
            self.assertRegex(part, r'^[A-Z]+(\{[A-Za-z_]+\})?(==|\+=)"[^"]+"$')
        self.assertIn('ATTR{name}=="org.postern.agent.0"', lines[0])
        self.assertIn('TAG+="systemd"', lines[0])
        self.assertIn('ENV{SYSTEMD_WANTS}+="postern-agent.service"', lines[0])

    def test_users_and_folders_are_made_as_they_are_written(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "etc").mkdir()
            (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
            (root / "etc/group").write_text("root:x:0:\nadm:x:4:\n")
            for name in ("postern-host", "postern-agent"):
                done = tool("systemd-sysusers", f"--root={root}", str(SOURCES / f"packaging/systemd/{name}.sysusers"))
                self.assertEqual(done.returncode, 0, done)
            users = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
            shells = {user[0]: user[6] for user in users}
            self.assertEqual({name: shells[name] for name in ("postern", "postern-agent")},
                             dict.fromkeys(("postern", "postern-agent"), "/usr/sbin/nologin"))


class DefaultsTest(unittest.TestCase):
    """The files that are installed, and what they say when their comments are taken away."""

    def check(self, files):
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                file = pathlib.Path(root) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            return tool(BUILD / "host/posternd", "--root", root, "--check-config")

    def check_guest(self, text):
        with tempfile.TemporaryDirectory() as root:
            file = pathlib.Path(root) / "etc/postern/agent.toml"
            file.parent.mkdir(parents=True)
            file.write_text(text)
            return tool(BUILD / "guest-agent/postern-agent", "--root", root, "--check-config")

    @staticmethod
    def default(name):
        return (SOURCES / "packaging/etc" / name).read_text()

    @staticmethod
    def without_comments(text):
        """The lines that are commented out; those with a space behind the # are prose."""
        return re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE)

    def test_they_are_good_as_they_are_and_uncommented(self):
        settings, policy = self.default("postern.toml"), self.default("local.toml")
        for change in (lambda text: text, self.without_comments):
            done = self.check({"etc/postern/postern.toml": change(settings).replace('"postern"', '"root"'),
                               "etc/postern/policy.d/local.toml": change(policy)})
            self.assertEqual(done.returncode, 0, done)

    def test_each_key_of_the_settings_is_in_them(self):
        for name in ("postern.toml", "agent.toml"):
            uncommented = self.without_comments(self.default(name))
            for key, source in settings_keys.known(SOURCES, name):
                self.assertRegex(uncommented, rf"(?m)^(\[+{key}[].]|{key} = )", f"{key} of {source} is not in {name}")

    def test_the_policy_that_is_installed_has_no_rule(self):
        self.assertNotRegex(self.default("local.toml"), r"(?m)^\s*\[")
        self.assertNotRegex(self.default("local.toml"), r"(?m)^\s*(allow|deny|groups)")

    def test_the_guests_example_is_good_and_an_error_in_it_is_seen(self):
        example = self.default("agent.toml")
        for text in (example, self.without_comments(example)):
            done = self.check_guest(text)
            self.assertEqual(done.returncode, 0, done)
        done = self.check_guest(self.without_comments(example).replace("heartbeat", "heartbeet"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("heartbeat", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
