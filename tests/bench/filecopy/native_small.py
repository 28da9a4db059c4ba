"""Many small files, from memory to memory, over a Unix socket between processes of this machine."""

import contextlib
import shlex

from .data import FOLDERS, MIB, DataFolder, check_tree
from .native_postern import NativePostern
from .processes import timed
from .report import Sample
from .rounds import interleave
from .setting import SFTP_SERVER
from .ssh_server import CIPHERS, SshServer

FILE_BYTES = 4096
TAR = "tar | ssh | tar"
RSYNC = "rsync -a"
SCP = "scp -r"
PUT = "postern cp -r, host to guest"
GET = "postern cp -r, guest to host"
ARCHIVE = "postern cp -a, host to guest"


class NativeSmall:
    """Each method copies a tree once and gives its Sample."""

    def __init__(self, setting, data):
        self._data = data
        self.files = setting.amount(20_000, FOLDERS)
        self._tree = data.tree("source", self.files, FILE_BYTES)
        # scp would need half a minute for all of them.
        self.few_files = setting.amount(5_000, FOLDERS)
        self._few = data.tree("few", self.few_files, FILE_BYTES)
        self._seen = set()

    def tar(self, ssh):
        copy = self._data.remove("copy")
        there = shlex.quote(f"mkdir {copy} && tar -C {copy} -xf -")
        return self._sample(TAR, copy, timed(f"tar -C {self._tree} -cf - . | {ssh} guest {there}"))

    def rsync(self, ssh):
        copy = self._data.remove("copy")
        return self._sample(RSYNC, copy, timed(["rsync", "-a", "-e", ssh, f"{self._tree}/", f"guest:{copy}"]))

    def scp(self, options):
        copy = self._data.remove("copy")
        took = timed(["scp", "-q", *options, "-r", self._few, f"guest:{copy}"])
        return self._sample(SCP, copy, took, self._few, self.few_files)

    def put(self, postern, name, option):
        copy = self._data.remove("copy")
        return self._sample(name, copy, postern.put(self._tree, copy, option)[0])

    def get(self, postern):
        copy = self._data.remove("copy")
        return self._sample(GET, copy, postern.get(self._tree, copy, "-r")[0])

    def _sample(self, who, copy, took, source=None, files=None):
        """The first copy of everyone is compared; of the others the number of files."""
        source, files = source or self._tree, files or self.files
        if who not in self._seen:
            check_tree(source, copy)
            self._seen.add(who)
        there = sum(path.is_file() for path in copy.rglob("*"))
        assert there == files, f"{who}: {there} files of {files}"
        return Sample(files / took.seconds)


def measure(setting, section):
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(DataFolder())
        data.touch(setting.amount(1024 * MIB, MIB))
        copies = NativeSmall(setting, data)
        section.title = f"{copies.files:,} files of {FILE_BYTES} bytes, tmpfs to tmpfs, over a Unix socket"
        contenders = {}
        _add_ssh(setting, section, stack, copies, contenders, data)
        if setting.postern:
            postern = stack.enter_context(NativePostern(setting, data.path))
            contenders[PUT] = lambda: copies.put(postern, PUT, "-r")
            contenders[ARCHIVE] = lambda: copies.put(postern, ARCHIVE, "-a")
            contenders[GET] = lambda: copies.get(postern)
        interleave(setting, section, "files/s", contenders)
    _judge(section)


def _add_ssh(setting, section, stack, copies, contenders, data):
    absent = setting.without("ssh", "scp", "sshd", SFTP_SERVER, "socat", root=True)
    if absent:
        section.notes.append(f"tar, rsync and scp are left out: {absent}")
        return
    server = stack.enter_context(SshServer(data.path / "ssh"))
    options = ["-F", str(server.config), "-o", f"Ciphers={CIPHERS[0]}"]
    ssh = shlex.join(["ssh", *options])
    contenders[TAR] = lambda: copies.tar(ssh)
    contenders[SCP] = lambda: copies.scp(options)
    section.notes.append(f"scp -r copies {copies.few_files:,} of the files")
    absent = setting.without("rsync")
    if absent:
        section.notes.append(f"rsync is left out: {absent}")
    else:
        contenders[RSYNC] = lambda: copies.rsync(ssh)


def _judge(section):
    for ours in PUT, GET:
        section.compare(ours, TAR, at_least=1)
        section.compare(ours, RSYNC, at_least=1.3)
        section.compare(ours, SCP, at_least=15)
    section.compare(ARCHIVE, RSYNC)
