"""Signing keys made on the spot."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def write_key_pair(folder: Path, password: str = "", curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """PEM files of a private key and of its public half."""
    folder.mkdir(parents=True, exist_ok=True)
    key, private, public = ec.generate_private_key(curve or ec.SECP256R1()), folder / "key.pem", folder / "key.pub"
    kept = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public
