"""Recommendation ids: what was served, when and by which version, signed and stored nowhere."""

import base64
import binascii
import hmac
import itertools
import secrets
import struct
import time
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from serving.fallback import Tier

TAG_BYTES = 12
_FIELDS = struct.Struct(">IQBI")  # version, milliseconds, tier, nonce; the milliseconds' two leading bytes are left out
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class ForgedRecommendationId(Exception):
    """An id that this platform did not make, or that was altered since."""


class Lineage(NamedTuple):
    """What a recommendation id says."""

    version: int
    at: datetime
    tier: Tier


class RecommendationIds:
    """Makes and reads recommendation ids: 36 characters, safe in a URL.

    The signature is a keyed BLAKE2b, the MAC of RFC 7693: a quarter of the time that OpenSSL takes for an HMAC, and one
    is made for every answer.

    Args:
        secret: the platform's secret; whoever has it can make ids.
    """

    def __init__(self, secret: str) -> None:
        key = blake2b(secret.encode(), person=b"recommendation").digest()
        self._mac = blake2b(key=key, digest_size=TAG_BYTES)
        self._nonces = itertools.count(secrets.randbits(32))

    def sign(self, version: int, tier: Tier) -> str:
        """A new id.

        Args:
            version: of the model that made the list; 0 where there was none.
            tier: where the list came from.
        """
        packed = _FIELDS.pack(version, time.time_ns() // 1_000_000, tier, next(self._nonces) & 0xFFFFFFFF)
        fields = packed[:4] + packed[6:]
        signed = binascii.b2a_base64(fields + self._tag(fields), newline=False)
        return signed.translate(_TO_URL_SAFE).decode("ascii")

    def resolve(self, recommendation_id: str) -> Lineage:
        """What the id says.

        Raises:
            ForgedRecommendationId: it is not one of ours.
        """
        try:
            signed = base64.b64decode(recommendation_id.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError:
            raise ForgedRecommendationId("not a recommendation id") from None
        fields, tag = signed[:-TAG_BYTES], signed[-TAG_BYTES:]
        if len(fields) != _FIELDS.size - 2 or not hmac.compare_digest(tag, self._tag(fields)):
            raise ForgedRecommendationId("not a recommendation id of this platform")
        version, at_ms, tier, _ = _FIELDS.unpack(fields[:4] + b"\0\0" + fields[4:])
        return Lineage(version, datetime.fromtimestamp(at_ms / 1000, UTC), Tier(tier))

    def _tag(self, fields: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(fields)
        return mac.digest()
