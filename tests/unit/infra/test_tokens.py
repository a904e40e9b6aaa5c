"""A token speaks for its person while it holds, and only as the platform's key says; everything else is nobody's."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from infra.key_file import KeysError, Quota
from infra.tokens import LEEWAY_SECONDS, Tokens

SECRET = b"thirty-two bytes, and no fewer!!"
PRIVATE: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}


def public(algorithm: str) -> bytes:
    content: bytes = PRIVATE[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return content


def claims(**changes: Any) -> dict[str, Any]:
    whole = {"sub": "ann", "aud": "marquee", "iss": "login", "exp": time.time() + 60, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def tokens(folder: Path, key: bytes, issuer: str = "") -> Tokens:
    (folder / "key").write_bytes(key)
    return Tokens(folder / "key", "marquee", issuer, Quota.of(10))


def by_hand(header: Any, payload: Any, signature: str = "") -> bytes:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    return b".".join([*parts, signature.encode()])


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_speaks_for_its_person(tmp_path: Path, algorithm: str) -> None:
    sent = jwt.encode(claims(), PRIVATE[algorithm], algorithm).encode()
    caller = tokens(tmp_path, public(algorithm)).find(sent)
    assert caller is not None
    assert caller == ("person", frozenset(), Quota.of(10), "ann", "")
    assert tokens(tmp_path, SECRET).find(sent) is None


def test_a_shared_secret_does_too(tmp_path: Path) -> None:
    """An end of line that an editor put there does not count."""
    sent = jwt.encode(claims(), SECRET, "HS256").encode()
    caller = tokens(tmp_path, SECRET + b"\n").find(sent)
    assert caller is not None
    assert caller.user_id == "ann"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": time.time() - LEEWAY_SECONDS - 5}, {"exp": None}, {"exp": "soon"}, {"nbf": time.time() + 3600},
        {"aud": None}, {"aud": "another"}, {"aud": []}, {"iss": None}, {"iss": "another"}, {"sub": None}, {"sub": 7},
        {"exp": float("inf")},
    ],
    ids=[
        "ended", "without an end", "an end in words", "begins in an hour", "for nobody", "for another", "for none",
        "by nobody", "by another", "nobody's", "a number's", "endless",
    ],
)  # fmt: skip
def test_a_token_that_does_not_hold_is_nobodys(tmp_path: Path, changes: dict[str, Any]) -> None:
    known = tokens(tmp_path, SECRET, issuer="login")
    assert known.find(jwt.encode(claims(), SECRET, "HS256").encode())
    assert known.find(jwt.encode(claims(**changes), SECRET, "HS256").encode()) is None


def test_a_clock_that_differs_by_seconds_is_borne(tmp_path: Path) -> None:
    sent = jwt.encode(claims(exp=time.time() - LEEWAY_SECONDS / 2), SECRET, "HS256").encode()
    assert tokens(tmp_path, SECRET).find(sent)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None])
def test_no_algorithm_is_no_signature(tmp_path: Path, name: str | None) -> None:
    assert tokens(tmp_path, SECRET).find(by_hand({"alg": name, "typ": "JWT"}, claims())) is None


def _signed_with_public_key(algorithm: str) -> bytes:
    """What is signed with the text of a public key, which everybody has, as if it were a shared secret."""
    import hashlib
    import hmac

    head = by_hand({"alg": "HS256", "typ": "JWT"}, claims()).rpartition(b".")[0]
    digest = hmac.digest(public(algorithm).strip(), head, hashlib.sha256)
    return head + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")


class _AsTheTokenSays(Tokens):
    """A broken one: the token names the algorithm, and a public key is a secret like another."""

    def find(self, sent: bytes) -> Any:
        self._key, self._algorithm = self._content, jwt.get_unverified_header(sent)["alg"]
        return super().find(sent)

    _content = b""


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_no_shared_secret(tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test finds one that confuses them."""
    forged = _signed_with_public_key(algorithm)
    assert tokens(tmp_path, public(algorithm)).find(forged) is None
    fooled = _AsTheTokenSays(tmp_path / "key", "marquee", "", None)
    fooled._content = public(algorithm).strip()
    monkeypatch.setattr("jwt.algorithms.is_pem_format", lambda _: False)
    assert fooled.find(forged)


@pytest.mark.parametrize(
    "sent",
    [
        b"", b".", b"..", b"...", b"\xff.\xfe.x", b"e30.e30.", by_hand([], []), by_hand({"alg": "HS256"}, {}, "x"),
        base64.urlsafe_b64encode(b"[" * 20_000) + b".e30.x", base64.urlsafe_b64encode(b"9" * 5_000) + b".e30.x",
        by_hand({"alg": ["HS256"]}, {}), by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, {}),
    ],
    ids=lambda sent: repr(sent[:20]),
)  # fmt: skip
def test_what_is_no_token_is_nobodys_and_breaks_nothing(tmp_path: Path, sent: bytes) -> None:
    assert tokens(tmp_path, SECRET).find(sent) is None


def _private(algorithm: str) -> bytes:
    content: bytes = PRIVATE[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return content


def _weak() -> bytes:
    return rsa.generate_private_key(65537, 1024).public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


def _other_curve() -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"short", "at least 32 bytes"),
        (b"", "at least 32 bytes"),
        (b"-----BEGIN PUBLIC KEY-----\nnonsense", "holds no public key"),
        (_private("EdDSA"), "never the private one"),
        (_weak(), "at least 2048 bits"),
        (_other_curve(), "P-256"),
        (None, "cannot be read"),
    ],
)
def test_a_key_that_cannot_be_used_stops_the_start(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeysError, match=said):
        Tokens(tmp_path / "key", "marquee", "", None)
