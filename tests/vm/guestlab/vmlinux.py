"""Takes the uncompressed kernel out of a bzImage, so that a guest need not do it under emulation at each boot.

Layout: the setup header of Documentation/x86/boot.rst (setup_sects, payload_offset, payload_length); the payload is in
LZ4's legacy frame format (Debian's cloud kernel has CONFIG_KERNEL_LZ4). QEMU boots the result by its PVH note.
"""

import struct

LZ4_LEGACY_MAGIC = 0x184C2102
SETUP_SECTORS_AT = 0x1F1
MAGIC_AT = 0x202
PAYLOAD_AT = 0x248
SECTOR = 512


class UnknownCompression(Exception):
    """The image is packed in another way; boot it as it is."""


def extract_vmlinux(bzimage):
    if bzimage[MAGIC_AT : MAGIC_AT + 4] != b"HdrS":
        raise UnknownCompression("not a bzImage")
    try:
        setup_sectors = bzimage[SETUP_SECTORS_AT] or 4
        offset, length = struct.unpack_from("<II", bzimage, PAYLOAD_AT)
        start = (setup_sectors + 1) * SECTOR + offset
        payload = bzimage[start : start + length]
        vmlinux = b"".join(_blocks(payload))
    except (IndexError, struct.error) as error:
        raise UnknownCompression(f"not a bzImage with an LZ4 payload: {error}") from error
    if vmlinux[:4] != b"\x7fELF":
        raise UnknownCompression("the payload is not an ELF file")
    return vmlinux


def _blocks(payload):
    (magic,) = struct.unpack_from("<I", payload)
    if magic != LZ4_LEGACY_MAGIC:
        raise UnknownCompression(f"payload starts with {magic:#x}")
    at = 4
    # The last four bytes are not a block but the unpacked size, which the kernel's build appends.
    while at + 4 < len(payload):
        (size,) = struct.unpack_from("<I", payload, at)
        yield _lz4_block(payload[at + 4 : at + 4 + size])
        at += 4 + size


def _lz4_block(block):
    """One LZ4 block: sequences of literals, each but the last followed by a copy from what is already written."""
    out = bytearray()
    at, end = 0, len(block)
    while at < end:
        token = block[at]
        literals, at = _length(block, at + 1, token >> 4)
        out += block[at : at + literals]
        at += literals
        if at >= end:
            break
        distance = block[at] | block[at + 1] << 8
        count, at = _length(block, at + 2, token & 15)
        count += 4
        if not 0 < distance <= len(out):
            raise UnknownCompression("a copy from outside of the block")
        source = len(out) - distance
        if distance >= count:
            out += out[source : source + count]
        else:
            pattern = bytes(out[source:])
            out += (pattern * (count // distance + 1))[:count]
    return bytes(out)


def _length(block, at, nibble):
    if nibble == 15:
        more = 255
        while more == 255:
            more = block[at]
            nibble += more
            at += 1
    return nibble, at
