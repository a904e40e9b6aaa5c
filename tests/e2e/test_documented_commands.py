"""Every command that the documents tell people to type is typed here, on a platform of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

import marquee
from infra.key_file import KeyFile, KeyScope
from infra.settings import Settings
from workshop.fresh_platform import FreshPlatform
from workshop.invented import generate

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
NOT_TYPED = {
    "make install": "CI has done it before this test can run",
    "make spark": "the same; elsewhere it is half a gigabyte",
    ".venv/bin/python workshop/lessons/lesson_1_from_click_to_model.py": "tests/e2e/test_lessons.py runs every lesson",
    ".venv/bin/marquee audience --rounds 12": "minutes; tests/unit/workshop plays few rounds",
    "KAFKA_TLS=DIR KAFKA_USER=marquee KAFKA_PASSWORD=… infra/deploy/kafka/kafka.sh start": "test_transport.py does",
}
"""Line → why. What it calls has to be there all the same."""

VIEWERS = 150
READY_SECONDS = 120
COMMANDS = get_command(marquee.app).commands  # type: ignore[attr-defined]


class Block(NamedTuple):
    """A block of shell in a document."""

    place: str
    lines: tuple[str, ...]


def blocks() -> list[Block]:
    """All of them, in their order; operations.md is last, since it stops the platform."""
    documents = [*ROOT.glob("docs/**/*.md"), ROOT / "workshop/lessons/README.md"]
    found = []
    for path in sorted(documents, key=lambda path: (path.name == "operations.md", path)):
        text = path.read_text()
        for block in re.finditer(r"^```sh\n(.*?)^```", text, re.M | re.S):
            line = text[: block.start()].count("\n") + 1
            found.append(Block(f"{path.relative_to(ROOT)}:{line}", tuple(block[1].splitlines())))
    return found


class Reader:
    """Somebody at a terminal beside a platform that is up, with a version that is served, and a key to play with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = FreshPlatform(folder / "data", {"TUNE_SECONDS": "0", "DOMAIN": str(ROOT / "domain.toml")})
        self.printed: list[str] = []
        self._again: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Reader":
        with ExitStack() as stack:
            stack.enter_context(self.platform).send(generate(users=VIEWERS, items=120, acts=4000))
            stack.callback(self._end_the_second)
            self.platform.command("train")
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def types(self, block: Block) -> str:
        """What the block prints. A platform that it starts goes on running."""
        if "tar --create" in block.lines[0]:
            self.platform.stop()
        script = "\n".join(self._mine(line) for line in block.lines if line not in NOT_TYPED)
        if script.endswith(" marquee up"):
            return self._start(script.removesuffix("marquee up") + "exec marquee up")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=270,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        self.printed.append(done.stdout)
        return done.stdout

    def _end_the_second(self) -> None:
        if self._again:
            self._again.terminate()
            self._again.wait(60)

    @property
    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}

    def _mine(self, line: str) -> str:
        """The line with this platform's ports for the usual ones, and a real key's id."""
        for name, field in Settings.model_fields.items():
            if name.endswith("_port"):
                line = line.replace(
                    f"127.0.0.1:{field.default}/", f"127.0.0.1:{getattr(self.platform.settings, name)}/"
                )
        return re.sub(r"\bID\b", self._new_key, line)

    def _new_key(self, _: re.Match[str]) -> str:
        """Id of a key to play with: one may have been revoked."""
        keys = KeyFile(self.platform.settings.keys_file)
        return keys.create("a caller", [KeyScope.EVENTS]).split("_")[1]

    def _start(self, script: str) -> str:
        output = self.folder / "again.out"
        with output.open("wb") as printed:
            self._again = subprocess.Popen(
                ["bash", "-euc", script],
                cwd=self.folder,
                env=self._environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_SECONDS
        while "Ctrl-C stops everything." not in output.read_text():
            assert time.monotonic() < deadline, output.read_text()
            assert self._again.poll() is None, output.read_text()
            time.sleep(0.1)
        return output.read_text()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One for the blocks of all documents, in their order."""
    before = dict(os.environ)
    with Reader(tmp_path_factory.mktemp("reader")) as somebody:
        yield somebody
    os.environ.clear()
    os.environ |= before


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.place)
def test_a_block_of_shell_works_as_it_stands(reader: Reader, block: Block, curl: str) -> None:
    reader.types(block)


def test_a_platform_that_was_restored_serves_what_it_served_and_its_ledger_is_whole(reader: Reader) -> None:
    """The last block of operations.md has started it; an earlier one said what to keep of the ledger."""
    kept = re.findall(r"--kept (\S+)`", "".join(reader.printed))[-1]
    os.environ["MARQUEE_DATA"] = str(reader.folder / "restored")
    assert "served, champion" in reader.types(Block("", ("marquee status",)))
    assert "as it was recorded" in reader.types(Block("", (f"marquee verify-ledger --kept {kept}",)))


def test_what_is_not_typed_is_there() -> None:
    """Targets of make, and files."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in NOT_TYPED:
        assert set(re.findall(r"\bmake ([a-z-]+)", line)) <= targets
        for name, options in re.findall(r"(?:^|/)marquee (\w+)((?: --\w+(?: \w+)?)*)", line):
            known = {option for each in COMMANDS[name].params for option in each.opts}
            assert set(re.findall(r"--\w+", options)) <= known, line
        for path in re.findall(r"\b(?:workshop|infra)/\S+\.\w+", line):
            assert (ROOT / path).exists(), line
    typed = {line for block in blocks() for line in block.lines}
    assert NOT_TYPED.keys() <= typed, "a line that no document has any more"
