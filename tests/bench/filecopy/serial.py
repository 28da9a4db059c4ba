"""One emulated guest on virtio-serial: Postern's port beside qemu-ga's, and what the cipher alone does in there."""

import contextlib
import hashlib
import json

from agent_guest import agent_initramfs
from guestlab import Guest, VirtioPort
from guestlab.recipes import AGENT_PORT
from host_side import HostSide

from .data import MIB, DataFolder
from .native_postern import policy
from .processes import cpu_seconds, timed
from .qemu_agent import QemuAgent
from .rounds import interleave, speed
from .setting import find

VM = "web1"
QEMU_AGENT_PORT = "org.qemu.guest_agent.0"
FOLDER = "/srv"
BLOCK_BYTES = 60 << 10  # about what a record holds
BOOT_SECONDS = 120
GUEST_SECONDS = 300
OPEN = "cipher alone in the guest, opens"
SEAL = "cipher alone in the guest, seals"
WRITE = "qemu-ga, write"
READ = "qemu-ga, read"
PUT = "postern cp, host to guest"
GET = "postern cp, guest to host"


class SerialGuest:
    """Files `source` and `small` are made on both ends. Each method makes one copy and gives its Sample."""

    def __init__(self, setting, data, guest):
        self._data = data
        self._guest = guest
        self._size = setting.amount(64 * MIB, MIB)
        self._source = data.fill("source", self._size)
        self._small_size = setting.amount(16 * MIB, MIB)  # qemu-ga writes 3 MB/s
        self._small = data.fill("small", self._small_size)
        for name, size in ("source", self._size), ("small", self._small_size):
            guest.run(f"head -c {size} /dev/urandom >{FOLDER}/{name}", timeout=GUEST_SECONDS)
        self._seen = set()

    def cipher(self, section):
        """Opens; adds what sealing takes as a row of its own."""
        blocks = self._size // BLOCK_BYTES
        took = json.loads(self._guest.run(f"bare-copy cipher {BLOCK_BYTES} {blocks}", timeout=GUEST_SECONDS).output)
        section.add(SEAL, "MB/s", speed(blocks * BLOCK_BYTES, took["seal"]))
        return speed(blocks * BLOCK_BYTES, took["open"])

    def write_by_qemu_agent(self, client):
        self._guest.run(f"rm -f {FOLDER}/copy")
        sample = speed(self._small_size, client.put(self._small, f"{FOLDER}/copy"))
        self._check(WRITE, self._small, "copy")
        return sample

    def read_by_qemu_agent(self, client):
        copy = self._data.remove("copy")
        sample = speed(self._small_size, client.get(f"{FOLDER}/small", copy))
        self._check(READ, copy, "small")
        return sample

    def put(self, host):
        self._guest.run(f"rm -f {FOLDER}/copy")
        sample = self._copy(host, self._source, f"{VM}:{FOLDER}/copy")
        self._check(PUT, self._source, "copy")
        return sample

    def get(self, host):
        copy = self._data.remove("copy")
        sample = self._copy(host, f"{VM}:{FOLDER}/source", copy)
        self._check(GET, copy, "source")
        return sample

    def _copy(self, host, source, destination):
        session = host.session_pid(VM)
        before = cpu_seconds(session)
        took = timed(host.postern_command("cp", source, destination))
        return speed(self._size, took.seconds, took.cpu + cpu_seconds(session) - before)

    def _check(self, who, here, there):
        """The first copy of everyone: the same bytes here and in the guest."""
        if who in self._seen:
            return
        self._seen.add(who)
        said = self._guest.run(f"sha256sum {FOLDER}/{there}", timeout=GUEST_SECONDS).output.split()[0]
        assert said == hashlib.sha256(here.read_bytes()).hexdigest(), f"{who}: the copy is not what was copied"


def measure(setting, section):
    absent = setting.without("qemu-ga")
    if absent:
        section.notes.append(f"qemu-ga is left out: {absent}")
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(DataFolder())
        host = stack.enter_context(HostSide(setting.build))
        host.start()
        guest = stack.enter_context(_boot(setting, host, with_qemu_agent=not absent))
        section.title = f"virtio-serial of a guest under {guest.accelerator}, one vCPU, memory to memory"
        copies = SerialGuest(setting, data, guest)
        contenders = {OPEN: lambda: copies.cipher(section)}
        if not absent:
            client = stack.enter_context(QemuAgent(guest.connect_port(QEMU_AGENT_PORT)))
            contenders[WRITE] = lambda: copies.write_by_qemu_agent(client)
            contenders[READ] = lambda: copies.read_by_qemu_agent(client)
        if setting.postern:
            host.wait_for_status(VM, "green", "on-time", BOOT_SECONDS)
            contenders[PUT] = lambda: copies.put(host)
            contenders[GET] = lambda: copies.get(host)
        interleave(setting, section, "MB/s", contenders)
    section.compare(PUT, WRITE, at_least=4)
    section.compare(GET, READ, at_least=1)
    section.compare(PUT, OPEN, at_least=0.7)
    section.compare(GET, SEAL, at_least=0.7)


def _boot(setting, host, with_qemu_agent):
    socket = host.folder / "serial"
    bundle = host.enroll(VM, f"serial:{socket}", "--grant", f"ping,file:{FOLDER}/**")
    initramfs = agent_initramfs(setting.build, files={"/etc/postern/agent.toml": policy(FOLDER, "root")})
    initramfs.add_program(setting.built("tests/bench/bare-copy"))
    initramfs.add_script(f"mkdir -p {FOLDER} /var/run && mount -t tmpfs -o mode=755 tmpfs {FOLDER}")
    if with_qemu_agent:
        initramfs.add_program(find("qemu-ga"))
        port = f"/dev/virtio-ports/{QEMU_AGENT_PORT}"
        initramfs.add_script(f"qemu-ga -d -m virtio-serial -p {port} -t /run -l /tmp/qemu-ga.log")
    return Guest(
        initramfs,
        ports=[VirtioPort(AGENT_PORT, listen_at=str(socket)), VirtioPort(QEMU_AGENT_PORT)],
        memory_mib=1024,
        arguments=["-fw_cfg", f"name=opt/org.postern/bundle,file={bundle}"],
        boot_timeout=BOOT_SECONDS,
        accelerator="tcg",
        description="serial guest",
    )
