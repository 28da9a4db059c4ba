"""judge-test.py NOISE-VECTORS: the judge is judged. A vector with one digit changed, anywhere, must fail; so must a file
without a vector that can be run; and a file that is no vectors at all is told apart from both."""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import independent
import independent_vectors

PROGRAM = sys.argv.pop(1)
GOOD = independent_vectors.vector("interactive", independent.pattern("interactive", "XX", [0]), "BLAKE2b")


def with_other_digit(text, place):
    return text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]


class Judge(unittest.TestCase):
    def run_on(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "vectors.json"
            path.write_text(text)
            return subprocess.run([PROGRAM, path], capture_output=True, text=True)

    def expect(self, vectors, status, last_line):
        run = self.run_on(json.dumps({"vectors": vectors}))
        self.assertEqual((run.returncode, run.stdout.splitlines()[-1]), (status, last_line), run.stderr)
        return run

    def expect_failure(self, vector):
        run = self.expect([GOOD, vector], 1, "1 passed, 1 failed, 0 skipped")
        self.assertIn(vector["protocol_name"], run.stderr)

    def test_the_unchanged_vector_passes(self):
        self.expect([GOOD], 0, "1 passed, 0 failed, 0 skipped")

    def test_a_bare_list_is_read_as_well(self):
        run = self.run_on(json.dumps([GOOD]))
        self.assertEqual((run.returncode, run.stdout), (0, "1 passed, 0 failed, 0 skipped\n"))

    def test_a_vector_without_handshake_hash_passes(self):
        vector = copy.deepcopy(GOOD)
        del vector["handshake_hash"]
        self.expect([vector], 0, "1 passed, 0 failed, 0 skipped")

    def test_one_digit_of_any_message_makes_it_fail(self):
        for number, message in enumerate(GOOD["messages"]):
            for field, text in message.items():
                for place in {0, len(text) // 2, len(text) - 1} if text else ():
                    with self.subTest(message=number, field=field, place=place):
                        vector = copy.deepcopy(GOOD)
                        vector["messages"][number][field] = with_other_digit(text, place)
                        self.expect_failure(vector)

    def test_one_digit_of_any_key_or_of_the_hash_makes_it_fail(self):
        for field in ("init_prologue", "resp_prologue", "init_ephemeral", "resp_static", "handshake_hash"):
            with self.subTest(field=field):
                vector = copy.deepcopy(GOOD)
                vector[field] = with_other_digit(GOOD[field], 9)
                self.expect_failure(vector)
        vector = copy.deepcopy(GOOD)
        vector["resp_psks"] = [with_other_digit(GOOD["resp_psks"][0], 0)]
        self.expect_failure(vector)

    def test_a_vector_that_ends_within_the_handshake_fails(self):
        vector = copy.deepcopy(GOOD)
        del vector["messages"][2:]
        self.expect_failure(vector)

    def test_a_vector_that_is_not_hexadecimal_fails(self):
        for field in ("init_static", "init_prologue", "handshake_hash"):
            for text in (GOOD[field][:-1], GOOD[field][:-1] + "g"):
                with self.subTest(field=field, text=text):
                    self.expect_failure(GOOD | {field: text})

    def test_a_vector_without_a_key_it_needs_fails(self):
        for field in ("init_ephemeral", "resp_static", "init_psks"):
            with self.subTest(field=field):
                vector = copy.deepcopy(GOOD)
                del vector[field]
                self.expect_failure(vector)

    def test_other_families_are_skipped_and_counted(self):
        names = (
            "NoisePSK_XX_25519_ChaChaPoly_BLAKE2b",
            "Noise_XX_448_ChaChaPoly_BLAKE2b",
            "Noise_XX_25519_AESGCM_BLAKE2b",
            "Noise_XX_25519_ChaChaPoly_BLAKE2s",
            "Noise_XXfallback_25519_ChaChaPoly_BLAKE2b",
        )
        others = [GOOD | {"protocol_name": name} for name in names]
        self.expect([GOOD] + others, 0, "1 passed, 0 failed, 5 skipped")
        self.expect(others, 1, "0 passed, 0 failed, 5 skipped")

    def test_a_file_without_vectors_does_not_pass(self):
        self.expect([], 1, "0 passed, 0 failed, 0 skipped")

    def test_what_is_no_file_of_vectors_is_one_line_and_status_2(self):
        for text in ("", "\n", "no json", "{", "{}", "17", '{"vectors": 3}', '"vectors"', json.dumps([GOOD])[:-9]):
            with self.subTest(text=text[:20]):
                run = self.run_on(text)
                self.assertEqual((run.returncode, run.stdout), (2, ""), run.stderr)
                self.assertEqual(len(run.stderr.splitlines()), 1, run.stderr)

    def test_a_file_that_is_not_there_is_one_line_and_status_2(self):
        run = subprocess.run([PROGRAM, "/nonexistent/vectors.json"], capture_output=True, text=True)
        self.assertEqual((run.returncode, len(run.stderr.splitlines())), (2, 1))


if __name__ == "__main__":
    unittest.main()
