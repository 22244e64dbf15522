#!/usr/bin/env python3
"""Checks the vectors of keys, signatures and layers in docs/protocol.md with another implementation.

    pip install cryptography blake3
    tools/check-vectors.py

The tests of relay-trust read the same blocks. HPKE (RFC 9180) is written out here on top of the primitives, so that a mistake
in the library that the programs use would show as well.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
import sys
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"

KEM_SUITE = b"KEM" + struct.pack(">H", 0x0020)
HPKE_SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)
INFO = b"relay-chain layer v1"
PURPOSES = {"layer": b"relay-chain layer v1\0", "next-key": b"relay-chain next key v1\0"}


def blocks(kind):
    """Each block of this kind: its words, and its lines as (first word, rest)."""
    found = []
    for words, body in re.findall(r"^```(\S[^\n]*)\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S):
        if words.split()[0] == kind:
            found.append((words.split(), [line.split(" ", 1) for line in body.splitlines()]))
    assert found, f"no {kind} in the document"
    return found


def from_base64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_key(text):
    prefix, encoded = text.split(":")
    assert prefix == "ed25519" and len(encoded) == 43, text
    return from_base64(encoded)


def raw(key):
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def extract(salt, suite, label, key):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + key, "sha256")


def expand(secret, suite, label, info, length):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(secret, block + info + bytes([counter]), "sha256")
        out, counter = out + block, counter + 1
    return out[:length]


def open_layer(seed, connection_id, layer):
    """The layer's content, and the function that exports keys (RFC 9180, sections 4.1, 5.1 and 5.3)."""
    scalar = hashlib.sha512(seed).digest()[:32]
    secret = X25519PrivateKey.from_private_bytes(scalar)
    encapsulated, ciphertext = layer[:32], layer[32:]
    agreed = secret.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    both = encapsulated + raw(secret.public_key())
    shared = expand(extract(b"", KEM_SUITE, b"eae_prk", agreed), KEM_SUITE, b"shared_secret", both, 32)
    context = b"\0" + extract(b"", HPKE_SUITE, b"psk_id_hash", b"") + extract(b"", HPKE_SUITE, b"info_hash", INFO)
    schedule = extract(shared, HPKE_SUITE, b"secret", b"")
    key = expand(schedule, HPKE_SUITE, b"key", context, 32)
    nonce = expand(schedule, HPKE_SUITE, b"base_nonce", context, 12)
    exporter = expand(schedule, HPKE_SUITE, b"exp", context, 32)
    content = ChaCha20Poly1305(key).decrypt(nonce, ciphertext, connection_id.encode())
    return content, lambda label: expand(exporter, HPKE_SUITE, b"sec", label, 32)


def hash_of(layers):
    return blake3(b"".join(struct.pack(">I", len(layer)) + layer for layer in layers)).digest()


def check_key(lines):
    fields = dict(lines)
    secret = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(fields["seed"]))
    assert raw(secret.public_key()) == public_key(fields["key"])
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().splitlines()
    assert pem[1] == fields["pem"], pem


def check_signature(purpose, lines):
    fields = dict(lines)
    key = Ed25519PublicKey.from_public_bytes(public_key(fields["key"]))
    message, signature = bytes.fromhex(fields["message"]), from_base64(fields["signature"])
    key.verify(signature, PURPOSES[purpose] + message)
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return
    raise AssertionError("a signature without its purpose")


def check_token(lines):
    fields = dict(lines)
    assert "b3:" + blake3(fields["token"].encode()).hexdigest() == fields["hash"]


def check_layer(lines):
    layers = [from_base64(rest) for word, rest in lines if word == "layer"]
    fields = dict(lines)
    content, export = open_layer(bytes.fromhex(fields["seed"]), fields["id"], layers[0])
    assert len(content) % 256 == 0 and content.decode().rstrip(" ") == fields["content"], content
    read = json.loads(content)
    behind = from_base64(read["behind"])
    assert behind == hash_of(layers[1:])
    if "client" in read:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(fields["seed"])).public_key()
        client = Ed25519PublicKey.from_public_bytes(public_key(read["client"]))
        message = raw(key) + fields["id"].encode() + behind
        client.verify(from_base64(read["signature"]), PURPOSES["layer"] + message)
    for answer in ("hello", "failed"):
        if answer in fields:
            key = export(b"relay-chain " + answer.encode() + b" v1")
            sealed = from_base64(fields[answer])
            said = ChaCha20Poly1305(key).decrypt(bytes(12), sealed, fields["id"].encode())
            assert len(said) == {"hello": 256, "failed": 2560}[answer]
            assert said.decode().rstrip(" ") == fields[answer + "-content"], said


def main():
    checked = 0
    for kind, check in (("key", check_key), ("token", check_token), ("layer", check_layer)):
        for _, lines in blocks(kind):
            check(lines)
            checked += 1
    for words, lines in blocks("signature"):
        check_signature(words[1], lines)
        checked += 1
    print(f"{checked} vectors hold")


if __name__ == "__main__":
    sys.exit(main())
