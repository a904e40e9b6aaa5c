"""Tokens of people who call for themselves: JWTs of the product's own login, checked with its key.

The key's kind decides the algorithm, whatever a token says of itself: so there is no `none`, and no public key that is
taken for a shared secret.
"""

from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from infra.key_file import KeysError, Quota
from infra.keys import Caller

LEEWAY_SECONDS = 10
"""How far the clock of whoever made a token may differ from ours."""

SHORTEST_SECRET = 32
SMALLEST_RSA_BITS = 2048
PERSON = "person"
VerifyingKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey | bytes


class Tokens:
    """Knows whose token is sent.

    Args:
        key_file: a public key in PEM (Ed25519, P-256 or RSA), else a shared secret of at least 32 bytes.
        audience: whom tokens have to be for.
        issuer: who has to have made them; "": it is not asked.
        quota: of each person, for events.

    Raises:
        KeysError: the key cannot be used.
    """

    def __init__(self, key_file: Path, audience: str, issuer: str, quota: Quota | None) -> None:
        self._key, self._algorithm = read_key(key_file)
        self._audience = audience
        self._issuer = issuer or None
        self._quota = quota

    def find(self, sent: bytes) -> Caller | None:
        """Whose token was sent; None where it is none, or does not hold (any more)."""
        try:
            claims = jwt.decode(
                sent,
                self._key,
                algorithms=[self._algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "aud"]},
            )
        except jwt.PyJWTError:
            return None
        return Caller(PERSON, frozenset(), self._quota, claims["sub"])


def read_key(path: Path) -> tuple[VerifyingKey, str]:
    """What tokens are checked with, and the one algorithm that goes with it.

    Raises:
        KeysError: it cannot be read, or is of no kind that is taken.
    """
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}") from None
    if not content.startswith(b"-----BEGIN"):
        if len(content) < SHORTEST_SECRET:
            raise KeysError(f"{path}: a shared secret has at least {SHORTEST_SECRET} bytes")
        return content, "HS256"
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise KeysError(f"{path} holds no public key: give it the login's public key, never the private one") from None
    match key:
        case Ed25519PublicKey():
            return key, "EdDSA"
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return key, "ES256"
        case RSAPublicKey() if key.key_size >= SMALLEST_RSA_BITS:
            return key, "RS256"
    raise KeysError(f"{path}: a public key is Ed25519, P-256, or RSA of at least {SMALLEST_RSA_BITS} bits")
