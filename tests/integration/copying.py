"""A VM into which files may be copied, and what two trees are compared by; for the tests of file copy.

The guest's agent runs on this machine, so what it calls /… is this machine's file system: a guest's files lie in a folder
of the lab, and both policies allow what is below it.
"""
import hashlib
import os
import pwd
import random
import stat
import string

import lab as labs

AGENT_POLICY = """policy = 1
[[allow]]
id = "all"
call = ["ping", "info.*", "power.*"]
[[allow]]
id = "files"
call = "file.*"
args = {{ path = ["{root}", "{root}/**"]{more} }}
run-as = "{run_as}"
"""
HOST_POLICY = """policy = 1
[[allow]]
id = "ping"
from = "host"
to = "any"
call = ["ping", "info.*"]
[[allow]]
id = "files"
from = "host"
to = "any"
call = "file.*"
args = {{ path = ["{root}", "{root}/**"]{more} }}
{rest}
"""


class CopyLab(labs.Lab):
    """A lab with VMs that have a folder of their own; `here` is the caller's."""

    def __init__(self, programs):
        super().__init__(programs)
        self.here = os.path.join(self.folder, "here")
        os.mkdir(self.here)
        self.roots = {}

    def guest_root(self, name):
        return self.roots[name]

    def host_policy(self, more="", rest="", limit=""):
        """Everything below the VMs' folders is allowed; `more` goes into args, `rest` behind the rules."""
        rest = (f"limit = {limit}\n" if limit else "") + rest
        root = os.path.join(self.folder, "files-*")
        self.write("etc/postern/policy.d/10-copy.toml",
                   HOST_POLICY.format(root=root, more=more, rest=rest).replace(f'"{root}", ', ""))

    def copy_pair(self, name="web1", more="", host=True, run_as=pwd.getpwuid(os.geteuid()).pw_name):
        """A green VM; gives its guest. Its files are below guest_root(name)."""
        root = os.path.join(self.folder, "files-" + name)
        os.makedirs(root, exist_ok=True)
        self.roots[name] = root
        if host:
            self.host_policy()
            if self.posternd is not None:
                self.good("policy", "reload")
        guest = self.enroll(name, grants=None)
        guest.write("etc/postern/agent.toml", AGENT_POLICY.format(root=root, more=more, run_as=run_as))
        guest.start()
        self.green(name)
        return guest

    def at(self, *parts):
        return os.path.join(self.here, *parts)

    def there(self, name, *parts):
        return os.path.join(self.roots[name], *parts)

    def remote(self, name, *parts):
        return f"{name}:{self.there(name, *parts)}"


def write_file(path, content, mode=0o644, mtime_ns=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def random_bytes(size, seed=0):
    return random.Random(seed).randbytes(size)


def hash_of(path):
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe(path, xattrs=True):
    """What has to be the same of one entry after a copy with -a."""
    about = os.lstat(path)
    kind = stat.S_IFMT(about.st_mode)
    seen = {"kind": kind, "mtime": about.st_mtime_ns}
    if kind != stat.S_IFLNK:
        seen["mode"] = stat.S_IMODE(about.st_mode)
    if kind == stat.S_IFREG:
        seen["size"], seen["hash"] = about.st_size, hash_of(path)
    if kind == stat.S_IFLNK:
        seen["target"] = os.readlink(path)
    if os.geteuid() == 0:
        seen["owner"] = (about.st_uid, about.st_gid)
    if xattrs and kind != stat.S_IFLNK:
        seen["xattrs"] = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
    return seen


def tree_of(top):
    """Every entry below `top`, by its name as bytes; hard links as the set of names of one file."""
    top = os.fsencode(top)
    entries, links = {}, {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            short = os.path.relpath(path, top)
            entries[short] = describe(path)
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode) and about.st_nlink > 1:
                links.setdefault(about.st_ino, set()).add(short)
    return entries, sorted(sorted(names) for names in links.values() if len(names) > 1)


def leftovers(folder):
    """What a transfer leaves that is no file of anybody's: its temporary and partial files."""
    found = []
    for where, _, files in os.walk(folder):
        found += [os.path.join(where, name) for name in files if name.startswith(".") and ".postern-" in name]
    return found


def random_tree(top, entries, seed):
    """Directories, files of all sizes, holes, links of both kinds, odd names, modes and times."""
    dice = random.Random(seed)
    os.makedirs(top)
    folders, files = [os.fsencode(top)], []
    for number in range(entries):
        path = os.path.join(dice.choice(folders), random_name(dice, number))
        kind = dice.random()
        if kind < 0.15 and path.count(b"/") < 24:
            os.mkdir(path)
            folders.append(path)
            continue
        if kind < 0.25:
            os.symlink(dice.choice([b"nowhere", b"../x", b"/etc/hostname", os.path.basename(path) + b"?"]), path)
        elif kind < 0.32 and files:
            os.link(dice.choice(files), path)
            continue
        else:
            with open(path, "wb") as file:
                size = dice.choice([0, 1, 100, 4096, 61440, 61441, 200_000])
                file.write(dice.randbytes(size))
                if dice.random() < 0.1:
                    file.seek(1 << 20, os.SEEK_CUR)
                    file.write(b"behind a hole")
            os.chmod(path, dice.choice([0o644, 0o600, 0o755, 0o444, 0o640]))
            files.append(path)
            if dice.random() < 0.1:
                try:
                    os.setxattr(path, "user.note", dice.randbytes(40))
                except OSError:
                    pass  # a file system without them
        os.utime(path, ns=(dice.randrange(10**18),) * 2, follow_symlinks=False)
    for folder in reversed(folders):
        os.chmod(folder, dice.choice([0o755, 0o700, 0o750]))
        os.utime(folder, ns=(dice.randrange(10**18),) * 2)


def random_name(dice, number):
    """Any byte but '/' and NUL is a legal name."""
    odd = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    letters = string.ascii_letters.encode()
    body = bytes(dice.choice(odd if dice.random() < 0.3 else letters) for _ in range(dice.choice([1, 8, 30, 200])))
    return (b"%d" % number) + body
