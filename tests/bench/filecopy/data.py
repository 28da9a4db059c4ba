"""What is copied: random bytes in a folder in memory, which is gone at the end of a `with` block."""

import filecmp
import os
import pathlib
import shutil
import tempfile

from .setting import Missing

MEMORY = "/dev/shm"  # a tmpfs, on any Linux
MIB = 1 << 20
SPARE_BYTES = 256 * MIB
FOLDERS = 100  # of a tree of small files


class DataFolder:
    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="postern-copy-", dir=MEMORY))
        self.path.chmod(0o755)
        return self

    def __exit__(self, *error):
        shutil.rmtree(self.path, ignore_errors=True)

    def touch(self, byte_count):
        """Has the machine hand out so much memory once: the first use of a virtual machine's page costs more than others."""
        if available_bytes() < byte_count + SPARE_BYTES:
            raise Missing(f"{MEMORY} needs {byte_count // MIB} MiB of free memory, and {SPARE_BYTES // MIB} MiB to spare")
        self.fill("touched", byte_count, b"\1" * MIB).unlink()

    def fill(self, name, byte_count, block=None):
        path = self.path / name
        with open(path, "wb", buffering=0) as file:
            for begin in range(0, byte_count, MIB):
                file.write((block or os.urandom(MIB))[: min(MIB, byte_count - begin)])
        return path

    def tree(self, name, files, file_bytes):
        """`files` files in FOLDERS folders."""
        top = self.path / name
        for number in range(files):
            folder = top / f"{number % FOLDERS:02}"
            if number < FOLDERS:
                folder.mkdir(parents=True)
            (folder / f"{number:05}").write_bytes(os.urandom(file_bytes))
        return top

    def remove(self, name):
        """A destination, before something is copied there anew. Gives its path."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return path


def available_bytes():
    """What a file in MEMORY may still take."""
    with open("/proc/meminfo") as file:
        free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    status = os.statvfs(MEMORY)
    return min(free, status.f_bavail * status.f_frsize)


def check_file(source, copy):
    assert filecmp.cmp(source, copy, shallow=False), f"{copy} is not what was copied"


def check_tree(source, copy):
    """Names and content. `copy` holds what `source` holds, and nothing else."""
    names = sorted(path.relative_to(source) for path in source.rglob("*"))
    assert names == sorted(path.relative_to(copy) for path in copy.rglob("*")), f"{copy} holds other names"
    for name in names:
        if not (source / name).is_dir():
            check_file(source / name, copy / name)
