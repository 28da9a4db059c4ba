"""A guest with postern-agent as its service, for tests and the demo."""

import os
import pathlib
import shutil
import subprocess

from guestlab import Guest, SetUpError, VirtioPort, basic_initramfs
from guestlab.recipes import AGENT_PORT, PCI

# What an init does for the agent: it is started again whenever it ends, until it is told to stop.
SERVICE = """\
#!/bin/busybox sh
# agent-service start [OPTION...] | stop | pid | agent-pid
case "$1" in
start)
  shift
  rm -f /run/agent-stopped
  (
    until [ -e /run/agent-stopped ]; do
      postern-agent "$@" >>/tmp/agent.log 2>&1 &
      echo $! >/run/agent-service.pid
      wait $!
    done
  ) </dev/null >/dev/null 2>&1 &
  ;;
stop)
  touch /run/agent-stopped
  pid=$(cat /run/agent-service.pid)
  kill "$pid"
  while [ -e "/proc/$pid" ]; do sleep 0.05; done
  ;;
pid) cat /run/agent-service.pid ;;  # the broker
agent-pid) grep -l '[-]-agent-process' /proc/[0-9]*/cmdline 2>/dev/null | cut -d / -f 3 ;;
esac
"""

USER = "postern-agent:x:990:990::/nonexistent:/bin/false"

# A disk of the guest's own, so that its identity outlives a reboot.
MOUNT_STATE = "mkdir -p /var/lib && mount -t ext4 /dev/vda /var/lib"


def debian_package(name):
    """One of Postern's, which packaging/build-packages has put into the folder POSTERN_TEST_PACKAGES."""
    found = list(pathlib.Path(os.environ.get("POSTERN_TEST_PACKAGES", "")).glob(f"{name}_*.deb"))
    if len(found) != 1:
        raise SetUpError(f"POSTERN_TEST_PACKAGES has no {name}: run this with ctest, or packaging/build-packages DIR")
    return found[0].resolve()


def packaged_agent(folder):
    """The program of the agent's package, unpacked into `folder`."""
    subprocess.run(["dpkg-deb", "-x", debian_package("postern-agent"), folder], check=True)
    return pathlib.Path(folder) / "usr/sbin/postern-agent"


def agent_initramfs(programs, *, agent=None, modules=(), options="", disk=False, files=None, first=""):
    """Debian's kernel, busybox and postern-agent, which starts at boot with `options`.

    `programs` is the build tree's folder, `agent` another program than its postern-agent; `files` are added, path -> text
    (executable, if below hooks.d); `first` are shell lines that run before the agent starts.
    """
    initramfs = basic_initramfs(PCI, "virtio_console", "qemu_fw_cfg", "dmi_sysfs", *modules)
    initramfs.add_program(agent or f"{programs}/guest-agent/postern-agent")
    initramfs.add_text("/bin/agent-service", SERVICE, mode=0o755)
    initramfs.add_text("/etc/os-release", 'NAME="Postern demo guest"\nPRETTY_NAME="busybox, in memory"\nID=busybox\n')
    for path, text in (files or {}).items():
        initramfs.add_text(path, text, mode=0o755 if "/hooks.d/" in path else 0o644)
    initramfs.add_script(f"echo '{USER}' >>/etc/passwd && echo 'postern-agent:x:990:' >>/etc/group")
    if disk:
        initramfs.add_modules("virtio_blk")
        initramfs.add_script(MOUNT_STATE)
    if first:
        initramfs.add_script(first)
    initramfs.add_script(f"agent-service start {options}")
    return initramfs


def make_disk(path):
    """An empty ext4 of 16 MiB, for agent_initramfs(disk=True). Gives the path."""
    mke2fs = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not mke2fs:
        raise SetUpError("mke2fs is not installed: run packaging/install-dependencies")
    with open(path, "wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run([mke2fs, "-q", "-t", "ext4", str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


def agent_guest(initramfs, socket, *, qmp=None, arguments=(), **options):
    """A guest whose virtio-serial port of the agent is `socket` on the host, and a second QMP socket, at `qmp`."""
    extra = ["-qmp", f"unix:{qmp},server=on,wait=off"] if qmp else []
    return Guest(
        initramfs, ports=[VirtioPort(AGENT_PORT, listen_at=str(socket))], arguments=[*extra, *arguments], **options
    )
