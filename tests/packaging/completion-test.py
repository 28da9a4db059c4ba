"""The completions of bash, zsh and fish, in those shells, with a posternd and a guest that are real.

usage: completion-test.py SOURCES HOST-PROGRAMS-FOLDER AGENT [unittest arguments]
"""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import unittest

SOURCES = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(SOURCES / "tests/integration"))
import copying  # noqa: E402
import lab as labs  # noqa: E402

PROGRAMS = labs.Programs(sys.argv[2], sys.argv[3], None, None)
SCRIPTS = SOURCES / "packaging/completions"
BASH_LIBRARY = "/usr/share/bash-completion/bash_completion"
# A guest may call a file what it likes; it is never run here.
HOSTILE = "$(touch pwned);`touch pwned`"


class CompletionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = copying.CopyLab(PROGRAMS)
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start_posternd()
        cls.lab.copy_pair("web1")
        cls.lab.enroll("web2")
        cls.lab.enroll("db1")
        cls.files = cls.lab.guest_root("web1")
        for name in ("report.txt", "release notes", HOSTILE):
            pathlib.Path(cls.files, name).write_text("x")
        os.mkdir(os.path.join(cls.files, "releases"))
        cls.environment = {**os.environ, "POSTERN": PROGRAMS.postern,
                           "POSTERN_COMPLETE": str(SCRIPTS / "postern-complete")}

    def run_shell(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment,
                              cwd=self.lab.folder)
        self.assertEqual(done.stderr, "", command)
        self.assertFalse(os.path.exists(os.path.join(self.lab.folder, "pwned")), "a guest's name was run")
        return done.stdout.splitlines()

    def helper(self, *words):
        lines = self.run_shell(str(SCRIPTS / "postern-complete"), "--root", self.lab.root, *words)
        return [line.split("\t")[0] for line in lines]

    def test_commands_and_options_are_those_of_the_program(self):
        self.assertLessEqual({"status", "cp", "vm", "policy", "shutdown"}, set(self.helper("")))
        self.assertEqual(self.helper("sus"), ["suspend"])
        self.assertEqual(self.helper("vm", "re"), ["remove", "rekey"])
        self.assertEqual(self.helper("cp", "--res"), ["--resume"])
        self.assertEqual(self.helper("vm", "set", "--ta"), ["--tag"])
        self.assertEqual(self.helper("ping", "--json", "-c", "4", "--int"), ["--interval"])
        self.assertEqual(self.helper("cp", "--sparse", "a"), ["auto", "always"])

    def test_vms_and_remote_paths_are_found_by_asking(self):
        self.assertEqual(self.helper("info", ""), ["db1", "web1", "web2"])
        self.assertEqual(self.helper("info", "web"), ["web1", "web2"])
        self.assertEqual(self.helper("info", "web1", ""), [])
        self.assertEqual(self.helper("ls", "we"), ["web1:", "web2:"])
        self.assertEqual(self.helper("cp", "db1:"), ["db1:/"])
        self.assertEqual(self.helper("cp", f"web1:{self.files}/re"),
                         [f"web1:{self.files}/{name}" for name in ("release notes", "releases/", "report.txt")])
        self.assertEqual(self.helper("ls", "db1:/s"), [], "a VM that is not connected")
        self.assertEqual(self.helper("ls", "web1:/etc/pas"), [], "what policy denies")
        self.assertIn(":files", self.helper("cp", ""))
        self.assertIn(":files", self.helper("cp", "./x"))

    def test_without_a_posternd_there_is_nothing_and_no_noise(self):
        empty = os.path.join(self.lab.folder, "empty")
        os.makedirs(empty, exist_ok=True)
        self.assertEqual(self.run_shell(str(SCRIPTS / "postern-complete"), "--root", empty, "info", ""), [])

    @unittest.skipUnless(os.path.exists(BASH_LIBRARY), "bash-completion is not installed")
    def test_bash(self):
        def complete(*words):
            line = shlex.join(["postern", "--root", self.lab.root]) + " " + " ".join(words)
            # As bash splits it: a colon ends a word and is one.
            split = ["postern", "--root", self.lab.root]
            for word in words:
                parts = word.split(":", 1)
                split += [parts[0], ":", parts[1]] if len(parts) == 2 else [word]
            if split[-1] == "" and split[-2] == ":":
                split.pop()
            script = f"""
                source {BASH_LIBRARY}; source {SCRIPTS}/postern.bash; compopt() {{ :; }}
                COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_KEY=9
                COMP_WORDS=({shlex.join(split)}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
                _postern; printf '%s\\n' "${{COMPREPLY[@]}}" """
            return self.run_shell("bash", "--norc", "-c", script)

        self.assertEqual(complete("info", "web"), ["web1", "web2"])
        self.assertEqual(complete("vm", "re"), ["remove", "rekey"])
        # What is before the colon is there already.
        found = complete("ls", f"web1:{self.files}/")
        self.assertIn(f"{self.files}/releases/", found)
        self.assertIn(f"{self.files}/release\\ notes", found)
        hostile = [word for word in found if "touch" in word]
        self.assertEqual([shlex.split(word) for word in hostile], [[f"{self.files}/{HOSTILE}"]])

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_fish(self):
        def complete(line):
            script = f"source {SCRIPTS}/postern.fish; complete -C {shlex.quote(line)}"
            return [found.split("\t")[0] for found in self.run_shell("fish", "--no-config", "-c", script)]

        begin = f"postern --root {self.lab.root} "
        self.assertEqual(complete(begin + "info web"), ["web1", "web2"])
        self.assertIn(f"web1:{self.files}/releases/", complete(begin + f"ls web1:{self.files}/re"))
        self.assertIn("status", complete(begin))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh(self):
        def complete(*words):
            script = f"""
                compadd() {{ while [[ $1 != -- ]]; do shift; done; shift; print -rl -- "$@" }}
                _describe() {{ print -rl -- "${{(P@)3}}" }}; _files() {{ print :files }}
                words=(postern --root {shlex.quote(self.lab.root)} {shlex.join(words)}); CURRENT=${{#words}}
                source {SCRIPTS}/_postern"""
            return self.run_shell("zsh", "-f", "-c", script)

        self.assertEqual(complete("info", "web"), ["web1", "web2"])
        self.assertIn(f"web1:{self.files}/release notes", complete("ls", f"web1:{self.files}/re"))
        self.assertTrue([line for line in complete("") if line.startswith("status:")])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
