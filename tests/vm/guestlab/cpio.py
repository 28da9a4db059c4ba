"""Writes cpio archives in the "newc" form that the kernel unpacks as an initramfs (its buffer-format.rst).

The same entries give the same bytes: sorted, owned by root, without times or the numbers of the host's inodes.
"""

import stat

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


class Archive:
    """A tree of files held as path -> (mode, content). Paths are absolute; missing parent folders are added."""

    def __init__(self):
        self._entries = {}

    def copy(self):
        other = Archive()
        other._entries = dict(self._entries)
        return other

    def __contains__(self, path):
        return path.strip("/") in self._entries

    def add_folder(self, path, mode=0o755):
        self._add(path, stat.S_IFDIR | mode, b"")

    def add_file(self, path, content, mode=0o644):
        self._add(path, stat.S_IFREG | mode, content)

    def add_symlink(self, path, target):
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def write(self, stream):
        for inode, path in enumerate(sorted(self._entries), start=1):
            mode, content = self._entries[path]
            _write_entry(stream, path, inode, mode, content)
        _write_entry(stream, TRAILER, 0, 0, b"")

    def _add(self, path, mode, content):
        path = path.strip("/")
        if not path or ".." in path.split("/"):
            raise ValueError(f"not a path inside the archive: {path!r}")
        parent = path.rpartition("/")[0]
        if parent and parent not in self._entries:
            self.add_folder(parent)
        known = self._entries.get(path)
        if known and known != (mode, content):
            raise ValueError(f"two different entries for /{path}")
        self._entries[path] = (mode, content)


def _write_entry(stream, path, inode, mode, content):
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (2), node's device (2), length of the name, checksum (unused)
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    stream.write(_padded(header + name))
    stream.write(_padded(content))


def _padded(data):
    return data + b"\0" * (-len(data) % 4)
