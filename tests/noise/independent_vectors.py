"""Test vectors in cacophony's format, made with the independent implementation."""

import functools

import independent

PROLOGUE = b"postern test vectors"
SECRETS = {name: bytes([number]) * 32 for number, name in enumerate(("ie", "re", "is", "rs"), 1)}
TRANSPORT_MESSAGES = 4

key_pair = functools.cache(independent.key_pair)


def psks_of(handshake_pattern):
    return [bytes([64 + number]) * 32 for number in range(sum(m.count("psk") for m in handshake_pattern.message_patterns))]


def parties(handshake_pattern, hash_name):
    statics = {True: key_pair(SECRETS["is"]), False: key_pair(SECRETS["rs"])}
    for initiator in (True, False):
        peer_known = independent.knows_static_of(handshake_pattern, not initiator)
        yield independent.Party(
            handshake_pattern,
            hash_name,
            initiator,
            PROLOGUE,
            SECRETS["ie" if initiator else "re"],
            statics[initiator] if independent.has_static(handshake_pattern, initiator) else None,
            statics[not initiator].public if peer_known else None,
            psks_of(handshake_pattern),
        )


def vector(family, handshake_pattern, hash_name):
    initiator, responder = parties(handshake_pattern, hash_name)
    result = {
        "protocol_name": f"Noise_{handshake_pattern.name}_25519_ChaChaPoly_{hash_name}",
        "init_prologue": PROLOGUE.hex(),
        "resp_prologue": PROLOGUE.hex(),
        "messages": [],
    }
    for side, is_initiator in (("init", True), ("resp", False)):
        if independent.sends(handshake_pattern, is_initiator, "e"):
            result[f"{side}_ephemeral"] = SECRETS["ie" if is_initiator else "re"].hex()
        if independent.has_static(handshake_pattern, is_initiator):
            result[f"{side}_static"] = SECRETS["is" if is_initiator else "rs"].hex()
        if independent.knows_static_of(handshake_pattern, not is_initiator):
            peer = key_pair(SECRETS["rs" if is_initiator else "is"])
            result[f"{side}_remote_static"] = peer.public.data.hex()
        if psks_of(handshake_pattern):
            result[f"{side}_psks"] = [psk.hex() for psk in psks_of(handshake_pattern)]

    handshake_messages = len(handshake_pattern.message_patterns)
    for number in range(handshake_messages + TRANSPORT_MESSAGES):
        from_initiator = number % 2 == 0 or family == "oneway"
        sender, receiver = (initiator, responder) if from_initiator else (responder, initiator)
        payload = bytes(range(number * 7))  # the first one is empty, as all of Postern's are
        if number < handshake_messages:
            ciphertext = sender.write(payload)
            assert receiver.read(ciphertext) == payload
        else:
            ciphertext = sender.sending.encrypt_with_ad(b"", payload)
        result["messages"].append({"payload": payload.hex(), "ciphertext": ciphertext.hex()})
    result["handshake_hash"] = initiator.hash.hex()
    return result
