"""Noise as Debian's python3-dissononce has it: written by others, in another language, over another crypto library."""

import importlib
import itertools

from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.extras.dh.dangerous.dh_nogen import NoGenDH
from dissononce.hash.blake2b import Blake2bHash
from dissononce.hash.sha256 import SHA256Hash
from dissononce.hash.sha512 import SHA512Hash
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.psk import PSKPatternModifier

HASHES = {"BLAKE2b": Blake2bHash, "SHA256": SHA256Hash, "SHA512": SHA512Hash}
PATTERNS = {
    "oneway": ["N", "K", "X"],
    "interactive": ["NN", "NK", "NX", "XN", "XK", "XX", "KN", "KK", "KX", "IN", "IK", "IX"],
    "deferred": [
        "NK1", "NX1", "X1N", "X1K", "XK1", "X1K1", "X1X", "XX1", "X1X1", "K1N", "K1K", "KK1", "K1K1",
        "K1X", "KX1", "K1X1", "I1N", "I1K", "IK1", "I1K1", "I1X", "IX1", "I1X1",
    ],
}
MAX_PSK = 3


def key_pair(secret):
    return X25519DH().generate_keypair(PrivateKey(secret))


def pattern(family, name, psks=()):
    module = importlib.import_module(f"dissononce.processing.handshakepatterns.{family}.{name}")
    result = getattr(module, f"{name}HandshakePattern")()
    for number in psks:
        result = PSKPatternModifier(number).modify(result)
    return result


def all_patterns():
    """Every pattern with every set of psk modifiers that it has room for. (dissononce takes one psk a message.)"""
    for family, names in PATTERNS.items():
        for name in names:
            last = min(len(pattern(family, name).message_patterns), MAX_PSK)
            for count in range(last + 2):
                for psks in itertools.combinations(range(last + 1), count):
                    if not {0, 1} <= set(psks):
                        yield family, pattern(family, name, psks)


def sends(handshake_pattern, initiator, token):
    return any(token in message for message in handshake_pattern.message_patterns[0 if initiator else 1 :: 2])


def knows_static_of(handshake_pattern, initiator):
    messages = (
        handshake_pattern.initiator_pre_message_pattern
        if initiator
        else handshake_pattern.responder_pre_message_pattern
    )
    return "s" in messages


def has_static(handshake_pattern, initiator):
    return knows_static_of(handshake_pattern, initiator) or sends(handshake_pattern, initiator, "s")


class Party:
    """One side of a handshake and, behind it, its two transport ciphers."""

    def __init__(self, handshake_pattern, hash_name, initiator, prologue, ephemeral, static, peer_static, psks):
        self.initiator = initiator
        self.state = HandshakeState(
            SymmetricState(CipherState(ChaChaPolyCipher()), HASHES[hash_name]()),
            NoGenDH(X25519DH(), PrivateKey(ephemeral)),
        )
        self.state.initialize(handshake_pattern, initiator, prologue, s=static, rs=peer_static, psks=psks)
        self.sending = self.receiving = None

    def _finish(self, ciphers):
        if ciphers is not None:
            self.sending, self.receiving = ciphers if self.initiator else reversed(ciphers)

    def write(self, payload):
        message = bytearray()
        self._finish(self.state.write_message(payload, message))
        return bytes(message)

    def read(self, message):
        payload = bytearray()
        self._finish(self.state.read_message(message, payload))
        return bytes(payload)

    @property
    def finished(self):
        return self.sending is not None

    @property
    def hash(self):
        return self.state.symmetricstate.get_handshake_hash()
