"""Man pages beside the programs: each command, each option and each key of the settings is in its page.

usage: man-test.py SOURCES POSTERND POSTERN-SESSION POSTERN POSTERN-AGENT POSTERN-LIBVIRT [unittest arguments]
"""
import pathlib
import re
import subprocess
import sys
import unittest

import settings_keys

SOURCES = pathlib.Path(sys.argv[1])
POSTERND, SESSION, POSTERN, AGENT, LIBVIRT = sys.argv[2:7]
PAGES = SOURCES / "packaging/man"


def section(text, name):
    """First words of the lines of a section of --help."""
    inside, words = False, []
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][a-z]+:", line):
            inside = line == name + ":"
        elif line and not line.startswith(" "):
            inside = False
        elif inside and re.match(r"  \S", line):
            words.append(line.split()[0])
    return words


def help_of(program, *command):
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done
    return done.stdout


def page(name):
    file = PAGES / (name + ".scd")
    assert file.exists(), f"{name} has no page: write packaging/man/{name}.scd"
    return file.read_text()


class ManTest(unittest.TestCase):
    def compare(self, text, page_name, *, inherited=()):
        """Every option and command of this --help is in the page."""
        written = page(page_name)
        for entry in section(text, "Options"):
            for option in entry.split(","):
                if option in inherited:
                    continue
                self.assertIn(f"*{option}*", written, f"{option} is not in {page_name}")
        for command in section(text, "Subcommands"):
            self.assertRegex(written, rf"\*(postern-)?{command}\b", f"{command} is not in {page_name}")

    def test_every_command_of_postern_has_a_page_with_every_option(self):
        top = help_of(POSTERN)
        self.compare(top, "postern.1")
        commands = section(top, "Subcommands")
        self.assertGreater(len(commands), 10)
        for command in commands:
            with self.subTest(command):
                self.assertIn(f"*postern-{command}*(1)", page("postern.1"))
                text = help_of(POSTERN, command)
                self.compare(text, f"postern-{command}.1", inherited=("-h", "--help"))
                for below in section(text, "Subcommands"):
                    self.compare(help_of(POSTERN, command, below), f"postern-{command}.1", inherited=("-h", "--help"))

    def test_every_option_of_the_services_is_in_their_pages(self):
        self.compare(help_of(POSTERND), "posternd.8")
        self.compare(help_of(SESSION), "postern-session.8")
        self.compare(help_of(AGENT), "postern-agent.8")
        self.compare(help_of(AGENT, "join"), "postern-agent.8")
        self.compare(help_of(LIBVIRT), "postern-libvirt.8")
        for command in section(help_of(LIBVIRT), "Subcommands"):
            self.compare(help_of(LIBVIRT, command), "postern-libvirt.8")

    def test_every_key_of_the_settings_is_in_its_page(self):
        for name in settings_keys.READERS:
            written = page(name + ".5")
            for key, source in settings_keys.known(SOURCES, name):
                self.assertRegex(written, rf"[*\[]{key}[*\].]", f"{key} of {source} is not in {name}")

    def test_a_page_refers_to_pages_that_exist(self):
        ours = {file.name.removesuffix(".scd") for file in PAGES.glob("*.scd")}
        for file in PAGES.glob("*.scd"):
            for name, number in re.findall(r"\*((?:postern|agent\.toml)[a-z.-]*)\*\((\d)\)", file.read_text()):
                self.assertIn(f"{name}.{number}", ours, f"{file.name} refers to it")

    def test_each_page_is_in_the_form_that_the_tool_reads(self):
        for file in PAGES.glob("*.scd"):
            done = subprocess.run(["scdoc"], input=file.read_bytes(), capture_output=True, timeout=20)
            self.assertEqual((done.returncode, done.stderr), (0, b""), file.name)
            name, number = file.name.removesuffix(".scd").rsplit(".", 1)
            self.assertTrue(file.read_text().startswith(f"{name}({number})\n"), file.name)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[7:]])
