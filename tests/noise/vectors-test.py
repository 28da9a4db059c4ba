"""vectors-test.py NOISE-VECTORS: the engine agrees with the independent implementation on every pattern with every hash
and, with BLAKE2b, with every set of psk modifiers. The public vectors have neither XXpsk0 nor more than one psk."""

import json
import pathlib
import subprocess
import sys
import tempfile

import independent
import independent_vectors

vectors = [
    independent_vectors.vector(family, pattern, hash_name)
    for family, pattern in independent.all_patterns()
    for hash_name in (independent.HASHES if not pattern.modifiers else ["BLAKE2b"])
]
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "independent.json"
    path.write_text(json.dumps({"vectors": vectors}))
    run = subprocess.run([sys.argv[1], path], capture_output=True, text=True)
sys.stderr.write(run.stderr)
expected = f"{len(vectors)} passed, 0 failed, 0 skipped"
print(run.stdout, end="")
if run.returncode != 0 or run.stdout.splitlines() != [expected]:
    sys.exit(f"expected: {expected}")
