"""The layering test is itself tested: each kind of breach, planted in a copy, is found."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def check(root):
    return subprocess.run([sys.executable, HERE / "check-layers.py", root], capture_output=True, text=True)


class CheckLayers(unittest.TestCase):
    def planted(self, path, text):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for layer in ("protocol", "transport"):
                shutil.copytree(ROOT / layer, root / layer)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            return check(root)

    def test_the_tree_is_clean(self):
        result = check(ROOT)
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_each_upward_arrow_is_found(self):
        for path, include in [
            ("protocol/x.h", "transport/endpoint.h"),
            ("protocol/x.h", "host/x.h"),
            ("transport/x.cpp", "guest-agent/x.h"),
            ("transport/x.cpp", "tests/support/fake-pipe.h"),
            ("host/x.cpp", "guest-agent/x.h"),
            ("guest-agent/x.cpp", "host/x.h"),
            ("protocol/x.h", "limits.h"),
        ]:
            result = self.planted(path, f'#include "{include}"\n')
            self.assertEqual(result.returncode, 1, (path, include))

    def test_each_forbidden_act_of_the_protocol_is_found(self):
        for code in [
            'int fd = open("/etc/passwd", 0);',
            "int fd = ::socket(1, 2, 3);",
            'auto home = getenv("HOME");',
            "clock_gettime(0, nullptr);",
            "randombytes_buf(p, 32);",
            'KJ_LOG(ERROR, "x");',
            'printf("x");',
        ]:
            result = self.planted("protocol/x.cpp", code + "\n")
            self.assertEqual(result.returncode, 1, code)

    def test_comments_and_strings_are_no_breach(self):
        result = self.planted("protocol/x.cpp", '// open("x")\nconst char* s = "getenv(x)";\n')
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_an_empty_tree_does_not_pass(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(check(folder).returncode, 1)


if __name__ == "__main__":
    unittest.main()
