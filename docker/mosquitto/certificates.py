"""Makes the broker's certificate, and that of the authority which signed it, where there is none yet; the authority's key is kept nowhere.

python certificates.py FOLDER NAME…     names that the broker is reached by, besides this machine's own
"""

import ipaddress
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = timedelta(days=3650)  # of all that it signs: for new ones, empty the folder and start again


def make(folder: Path, names: list[str]) -> None:
    """Write `ca.pem`, `broker.key`, which the broker's user alone may read, and last `broker.pem`.

    Args:
        folder: of the three files.
        names: that the certificate is good for, besides localhost and 127.0.0.1.
    """
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _named("tidecast stack")
    ca = _sign(authority, authority, authority_key, authority_key, x509.BasicConstraints(ca=True, path_length=0))
    places = [*map(x509.DNSName, ["localhost", *names]), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    broker = _sign(_named(names[0]), authority, key, authority_key, x509.SubjectAlternativeName(places))
    plain = serialization.NoEncryption()
    _write(folder / "ca.pem", ca.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(folder / "broker.key", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain), 0o600)
    _write(folder / "broker.pem", broker.public_bytes(serialization.Encoding.PEM), 0o644)


def _sign(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    extension: x509.BasicConstraints | x509.SubjectAlternativeName,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1), now + VALID)
    return builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints)).sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    path.chmod(mode)  # whatever the umask


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if not (place / "broker.pem").exists():
        make(place, sys.argv[2:])
