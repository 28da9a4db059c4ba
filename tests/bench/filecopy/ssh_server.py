"""sshd as a server over a Unix socket, one `sshd -i` a connection, and ssh's configuration to reach it.

sshd gets the accepted socket as it is. A client reaches it through socat (host `guest`), as one would with a VM, or has
the connected socket handed over, without a process between (host `direct`).
"""

import os
import pathlib
import pwd
import queue
import socket
import subprocess
import threading

from .setting import SFTP_SERVER, find

CIPHERS = ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com")
PRIVILEGE_FOLDER = pathlib.Path("/run/sshd")  # compiled into sshd; Debian's service makes it

SERVER = """\
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/user-key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp {sftp}
"""

CLIENT = """\
User {user}
IdentityFile {folder}/user-key
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
Compression no
"""

HOSTS = """\
Host guest
ProxyCommand {socat} -b 65536 - UNIX-CONNECT:{socket}
Host direct
ProxyCommand /usr/bin/python3 -IS {folder}/hand-over
ProxyUseFdpass yes
"""

HAND_OVER = """\
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect("{socket}")
socket.send_fds(socket.socket(fileno=1), [b"."], [connection.fileno()])
"""


def make_keys(folder):
    for name in "host-key", "user-key":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)


def server_settings(folder):
    return SERVER.format(folder=folder, sftp=SFTP_SERVER)


def client_settings(folder, user):
    return CLIENT.format(folder=folder, user=user)


class SshServer:
    """Lives for the length of a `with` block. Needs root: sshd separates its privileges."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.config = self.folder / "ssh_config"
        self._ended = queue.Queue()

    def __enter__(self):
        make_keys(self.folder)
        names = {"folder": self.folder, "socket": self.folder / "socket", "socat": find("socat")}
        (self.folder / "sshd_config").write_text(server_settings(self.folder))
        self.config.write_text(client_settings(self.folder, pwd.getpwuid(os.getuid()).pw_name) + HOSTS.format(**names))
        (self.folder / "hand-over").write_text(HAND_OVER.format(**names))
        self._made_privilege_folder = not PRIVILEGE_FOLDER.exists()
        if self._made_privilege_folder:
            PRIVILEGE_FOLDER.mkdir(mode=0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(names["socket"]))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._made_privilege_folder:
            PRIVILEGE_FOLDER.rmdir()

    def take_cpu(self):
        """CPU seconds of the one connection that has just been made: sshd and all that it has started."""
        return self._ended.get(timeout=20)

    def _serve(self):
        command = [find("sshd"), "-i", "-f", self.folder / "sshd_config", "-E", self.folder / "sshd.log"]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with connection:
                # Its socket closes when the client goes, so it ends with that by itself.
                process = subprocess.Popen(command, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL)
            threading.Thread(target=self._reap, args=(process,), daemon=True).start()

    def _reap(self, process):
        _, how, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(how)
        self._ended.put(usage.ru_utime + usage.ru_stime)
