"""Whatever is done to the receipts of a ledger behind its back is found, and the receipt is named."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as some
from hypothesis.errors import Flaky

from infra.database import Entry, Head, Ledger, Receipt, Seal
from infra.database_tables import RECEIPTS
from infra.database_tables import engine as make_engine
from infra.online_store import OnlineStore
from ingest.chain import LedgerBroken, seal_with, verify
from ingest.projection import ProjectionWriter

AT = datetime(2026, 3, 1, 20, 15, 0, 123000, tzinfo=UTC)
SEAL = seal_with("secret")
COLUMNS = ("number", "subject", "action", "purposes", "policy_version", "source", "at", "previous", "hash")
TEXTS = COLUMNS[1:]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    ledger.create_tables()
    yield ledger
    ledger.close()


def entry(number: int) -> Entry:
    action = ("grant", "grant", "withdraw", "erase")[number % 4]
    purposes = ("analytics", "personalization")[number % 2 :] if action == "grant" else ()
    return Entry(f"{number % 3:032}", action, purposes, "2026-01", "settings page", AT + timedelta(seconds=number))


def fill(ledger: Ledger, receipts: int = 6) -> Head:
    for number in range(receipts):
        ledger.append_receipts([entry(number)], SEAL)
    return ledger.head()


class Stored(NamedTuple):
    """The ledger's rows as their bytes stand in the database."""

    receipts: tuple[tuple[Any, ...], ...]
    head: tuple[Any, ...]


class Intruder:
    """Somebody who can write the database, byte by byte, but does not hold the secret."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._json = "CAST(:purposes AS JSON)" if url.startswith("postgresql") else ":purposes"

    def read(self) -> Stored:
        with self._engine.connect() as connection:
            wanted = ", ".join("CAST(purposes AS TEXT)" if name == "purposes" else name for name in COLUMNS)
            rows = connection.execute(sql.text(f"SELECT {wanted} FROM receipts ORDER BY number"))
            head = connection.execute(sql.text("SELECT number, hash, seal FROM receipts_head")).one()
            return Stored(tuple(tuple(row) for row in rows), tuple(head))

    def write(self, stored: Stored) -> None:
        """Put these rows in the place of all; what the database itself refuses is no case of ours."""
        values = ", ".join(self._json if name == "purposes" else f":{name}" for name in COLUMNS)
        try:
            with self._engine.begin() as connection:
                connection.execute(sql.text("DELETE FROM receipts"))
                for row in stored.receipts:
                    statement = sql.text(f"INSERT INTO receipts ({', '.join(COLUMNS)}) VALUES ({values})")
                    connection.execute(statement, dict(zip(COLUMNS, row, strict=True)))
                head = dict(zip(("number", "hash", "seal"), stored.head, strict=True))
                connection.execute(sql.text("UPDATE receipts_head SET number=:number, hash=:hash, seal=:seal"), head)
        except (sql.exc.SQLAlchemyError, UnicodeEncodeError):
            assume(False)

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def intruder(url: str, ledger: Ledger) -> Iterator[Intruder]:
    intruder = Intruder(url)
    yield intruder
    intruder.close()


# --- whole -----------------------------------------------------------------------------------------------------------


def test_a_whole_ledger_is_found_whole(ledger: Ledger) -> None:
    assert verify(ledger, SEAL) == Head(0, "")
    head = fill(ledger)
    assert verify(ledger, SEAL, [head, Head(0, "")]) == head
    assert head.number == 6


def test_receipts_are_walked_page_by_page_and_counted(ledger: Ledger) -> None:
    ledger.append_receipts([entry(number) for number in range(2500)], SEAL)
    seen: list[int] = []
    assert verify(ledger, SEAL, watch=seen.append).number == 2500
    assert seen == list(range(1, 2501))


def test_receipts_that_are_given_meanwhile_are_walked_too(ledger: Ledger) -> None:
    fill(ledger, 3)

    def give(number: int) -> None:
        if number in (2, 3, 5):
            ledger.append_receipts([entry(number), entry(number)], SEAL)

    assert verify(ledger, SEAL, watch=give).number == 9


def test_a_ledger_of_before_heads_were_sealed_goes_on(url: str, ledger: Ledger) -> None:
    """Its tables get what they lack; the next receipt seals the end."""
    fill(ledger, 2)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(sql.text("ALTER TABLE receipts_head DROP COLUMN seal"))
    engine.dispose()
    for _ in range(2):
        ledger.create_tables()
    with pytest.raises(LedgerBroken, match="the next seals it"):
        verify(ledger, SEAL)
    fill(ledger, 1)
    assert verify(ledger, SEAL).number == 3


# --- tampered with, at random ----------------------------------------------------------------------------------------


@some.composite
def tamperings(draw: some.DrawFn) -> Callable[[Stored, Sequence[Stored]], Stored]:
    """Something that an intruder does to the rows. `earlier`: what the ledger was after each receipt."""
    kind = draw(some.sampled_from([flip, renumber, remove, swap, copy, forge, cut, put_back]))
    one, other, where = (draw(some.integers(0, 10**6)) for _ in range(3))
    char = draw(some.characters(codec="utf-8", exclude_characters="\0"))
    return lambda stored, earlier: kind(stored, earlier, one, other, where, char)


def flip(stored: Stored, _: Any, one: int, other: int, where: int, char: str) -> Stored:
    """One character of one column of one receipt."""
    row = list(stored.receipts[one % len(stored.receipts)])
    column = 1 + other % len(TEXTS)
    text = row[column]
    place = where % (len(text) + 1)
    row[column] = text[:place] + char + text[place + 1 :]
    return _with(stored, one, tuple(row))


def renumber(stored: Stored, _: Any, one: int, other: int, *__: Any) -> Stored:
    row = stored.receipts[one % len(stored.receipts)]
    return _with(stored, one, (other % 40 - 20, *row[1:]))


def remove(stored: Stored, _: Any, one: int, *__: Any) -> Stored:
    place = one % len(stored.receipts)
    return stored._replace(receipts=stored.receipts[:place] + stored.receipts[place + 1 :])


def swap(stored: Stored, _: Any, one: int, other: int, *__: Any) -> Stored:
    """Two receipts change places, and keep the numbers of the places."""
    a, b = one % len(stored.receipts), other % len(stored.receipts)
    rows = list(stored.receipts)
    rows[a], rows[b] = (rows[a][0], *rows[b][1:]), (rows[b][0], *rows[a][1:])
    return stored._replace(receipts=tuple(rows))


def copy(stored: Stored, _: Any, one: int, other: int, *__: Any) -> Stored:
    """A genuine receipt once more: behind the others, before them, or in the place of another."""
    row = stored.receipts[one % len(stored.receipts)]
    number = other % (len(stored.receipts) + 3) - 1
    rows = [each for each in stored.receipts if each[0] != number]
    return stored._replace(receipts=(*rows, (number, *row[1:])))


def forge(stored: Stored, _: Any, one: int, other: int, *__: Any) -> Stored:
    """A receipt made with another secret, at the end, and the head moved behind it."""
    seal = seal_with("a guess")
    draft = Receipt(stored.head[0] + 1, *entry(one), previous=stored.head[1], hash="")
    made = draft._replace(hash=seal(draft))
    row = [*made[:3], '["personalization"]', *made[4:6], made.at.isoformat(), *made[7:]]
    head = (made.number, made.hash, seal(made._replace(previous=made.hash, hash=""))) if other % 2 else stored.head
    return Stored((*stored.receipts, tuple(row)), head)


def cut(stored: Stored, _: Any, one: int, other: int, *__: Any) -> Stored:
    """The last receipts are gone and the head says so, with the seal that was there, or none, or not the head."""
    left = stored.receipts[: -1 - one % len(stored.receipts)]
    number, digest = (left[-1][0], left[-1][-1]) if left else (0, "")
    heads = (stored.head, (number, digest, stored.head[2]), (number, digest, ""))
    return Stored(left, heads[other % 3])


def put_back(_: Stored, earlier: Sequence[Stored], one: int, *__: Any) -> Stored:
    """The whole database as it was, say from a backup: nothing in it is false."""
    return earlier[one % len(earlier)]


def _with(stored: Stored, place: int, row: tuple[Any, ...]) -> Stored:
    rows = list(stored.receipts)
    rows[place % len(rows)] = row
    return stored._replace(receipts=tuple(rows))


def assert_everything_is_found(
    ledger: Ledger, intruder: Intruder, check: Callable[..., Head] = verify, examples: int = 150
) -> None:
    earlier = [intruder.read()]
    for _ in range(5):
        fill(ledger, 1)
        earlier.append(intruder.read())
    whole, head = earlier.pop(), ledger.head()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(some.lists(tamperings(), min_size=1, max_size=2))
    def found(steps: list[Callable[[Stored, Sequence[Stored]], Stored]]) -> None:
        changed = whole
        for step in steps:
            changed = step(changed, earlier) if changed.receipts else changed
        assume(_sorted(changed) != whole)
        intruder.write(changed)
        assume(intruder.read() != whole)
        missed = True
        with contextlib.suppress(LedgerBroken):
            check(ledger, SEAL, [head])
            missed = False
        assert missed, f"not found: {changed}"

    try:
        found()
    finally:
        intruder.write(whole)


def _sorted(stored: Stored) -> Stored:
    return stored._replace(receipts=tuple(sorted(stored.receipts, key=lambda row: int(row[0]))))


def test_whatever_is_done_to_the_receipts_is_found(ledger: Ledger, intruder: Intruder) -> None:
    assert_everything_is_found(ledger, intruder, examples=400)
    assert verify(ledger, SEAL).number == 5


def seal_without(field: str) -> Seal:
    """A chaining rule that forgets a field."""
    empty: dict[str, Any] = {"number": 0, "purposes": (), "at": AT}
    return lambda receipt: SEAL(receipt._replace(**{field: empty.get(field, "")}))


def without_ends(ledger: Ledger, seal: Seal, ends: Any) -> Head:
    """Nobody but the ledger remembers its end."""
    return verify(ledger, seal)


def without_previous(ledger: Ledger, seal: Seal, ends: Any) -> Head:
    """Every receipt is sealed, but nobody looks whether it fits the one before."""
    found = list(ledger.receipts_after(0))
    if any(seal(receipt) != receipt.hash for receipt in found):
        raise LedgerBroken
    return ledger.head()


def without_numbers(ledger: Ledger, seal: Seal, ends: Any) -> Head:
    """The chain is followed, but its end is not looked at."""
    previous = ""
    for receipt in ledger.receipts_after(0):
        if seal(receipt) != receipt.hash or receipt.previous != previous:
            raise LedgerBroken
        previous = receipt.hash
    return ledger.head()


@pytest.mark.parametrize("broken", [without_ends, without_previous, without_numbers])
def test_a_check_that_looks_at_less_misses_something(tmp_path: Path, broken: Callable[..., Head]) -> None:
    """So the test above can fail."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    ledger.create_tables()
    intruder = Intruder(url)
    with pytest.raises((AssertionError, Flaky), match="not found"):
        assert_everything_is_found(ledger, intruder, broken)
    intruder.close()
    ledger.close()


@pytest.mark.parametrize("field", ["number", "subject", "action", "purposes", "policy_version", "source", "at"])
def test_every_field_is_under_the_seal(field: str) -> None:
    """A rule that forgets one makes the same seal of two receipts; ours does not."""
    receipt = Receipt(1, *entry(0), previous="", hash="")
    changed: dict[str, Any] = {"number": 2, "purposes": ("research",), "at": AT + timedelta(microseconds=1)}
    other = receipt._replace(**{field: changed.get(field, "x")})
    assert SEAL(other) != SEAL(receipt)
    assert seal_without(field)(other) == seal_without(field)(receipt)


# --- which one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"action": "revoke"},
        {"subject": "9" * 32},
        {"purposes": ["research"]},
        {"policy_version": "2"},
        {"source": "forged"},
        {"at": sql.literal_column("'2020-01-01T00:00:00+00:00'")},
        {"at": sql.literal_column("'yesterday'")},
        {"previous": "0" * 64},
        {"hash": "0" * 64},
    ],
    ids=lambda change: ", ".join(f"{field}: {value}" for field, value in change.items()),
)
@pytest.mark.parametrize("number", [1, 3, 6])
def test_the_altered_receipt_is_named(ledger: Ledger, url: str, change: dict[str, Any], number: int) -> None:
    fill(ledger)
    with changing(url) as connection:
        connection.execute(sql.update(RECEIPTS).where(RECEIPTS.c.number == number).values(change))
    with pytest.raises(LedgerBroken, match=f"receipt {number} "):
        verify(ledger, SEAL)


@contextlib.contextmanager
def changing(url: str) -> Iterator[sql.Connection]:
    engine = make_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("number", [1, 3, 6])
def test_the_missing_receipt_is_named(ledger: Ledger, url: str, number: int) -> None:
    fill(ledger)
    with changing(url) as connection:
        connection.execute(sql.delete(RECEIPTS).where(RECEIPTS.c.number == number))
    with pytest.raises(LedgerBroken, match=f"receipt {number} is missing"):
        verify(ledger, SEAL)


@pytest.mark.parametrize("order", [p for p in permutations([1, 2, 3]) if p != (1, 2, 3)], ids=str)
def test_reordered_receipts_are_found(ledger: Ledger, url: str, order: tuple[int, ...]) -> None:
    fill(ledger)
    with changing(url) as connection:
        for number in (1, 2, 3):
            connection.execute(sql.update(RECEIPTS).where(RECEIPTS.c.number == number).values(number=-number))
        for number, place in zip((1, 2, 3), order, strict=True):
            connection.execute(sql.update(RECEIPTS).where(RECEIPTS.c.number == -number).values(number=place))
    first = next(place for place, number in enumerate(order, 1) if place != number)
    with pytest.raises(LedgerBroken, match=f"receipt {first} "):
        verify(ledger, SEAL)


def test_the_unreadable_receipt_of_a_page_is_named(ledger: Ledger, url: str) -> None:
    ledger.append_receipts([entry(number) for number in range(1500)], SEAL)
    with changing(url) as connection:
        at = sql.literal_column("'no time'")
        connection.execute(sql.update(RECEIPTS).where(RECEIPTS.c.number == 1337).values(at=at))
    with pytest.raises(LedgerBroken, match="receipt 1337 cannot be read"):
        verify(ledger, SEAL)


def test_an_end_that_is_remembered_elsewhere_finds_what_the_ledger_itself_cannot_tell(
    ledger: Ledger, intruder: Intruder, store: OnlineStore
) -> None:
    """The database is put back to an earlier day, and lives on: its chain is whole, and it is another one."""
    fill(ledger, 3)
    backup = intruder.read()
    writer = ProjectionWriter(ledger, store)
    fill(ledger, 2)
    writer.catch_up()
    assert verify(ledger, SEAL, [writer.witness()]).number == 5
    intruder.write(backup)
    assert verify(ledger, SEAL).number == 3
    with pytest.raises(LedgerBroken, match="receipt 4 is missing: the ledger had 5"):
        verify(ledger, SEAL, [writer.witness()])
    ledger.append_receipts([entry(8), entry(8), entry(8)], SEAL)
    assert verify(ledger, SEAL).number == 6
    with pytest.raises(LedgerBroken, match="receipt 5 is not the one that was given"):
        verify(ledger, SEAL, [writer.witness()])


def test_a_genuine_receipt_of_another_history_does_not_fit(ledger: Ledger, intruder: Intruder) -> None:
    """Made by the platform itself, say after its database was put back once: its seal is right, its place is not."""
    fill(ledger)
    whole = intruder.read()
    row = list(whole.receipts[1])
    other = next(ledger.receipts_after(1))._replace(source="elsewhere", hash="")
    row[COLUMNS.index("source")], row[COLUMNS.index("hash")] = other.source, SEAL(other)
    intruder.write(whole._replace(receipts=(whole.receipts[0], tuple(row), *whole.receipts[2:])))
    with pytest.raises(LedgerBroken, match="receipt 3 is not as it was recorded"):
        verify(ledger, SEAL)


def test_what_no_version_of_ours_wrote_is_found_though_it_reads_the_same(ledger: Ledger, url: str) -> None:
    """Another letter between day and time, a line break within a list: the same receipt to a lenient reader."""
    ledger.append_receipts([Entry("1", "grant", ("analytics", "research"), "1", "s", AT)], SEAL)
    for column, value in (("at", "2026-03-01 20:15:00.123000+00:00"), ("purposes", '["analytics",\n"research"]')):
        backup = Intruder(url)
        whole = backup.read()
        row = list(whole.receipts[0])
        row[COLUMNS.index(column)] = value
        backup.write(Stored((tuple(row),), whole.head))
        with pytest.raises(LedgerBroken, match="receipt 1 cannot be read"):
            verify(ledger, SEAL)
        backup.write(whole)
        backup.close()


def test_what_verify_says_names_nobody(ledger: Ledger, url: str) -> None:
    fill(ledger)
    with changing(url) as connection:
        connection.execute(sql.update(RECEIPTS).where(RECEIPTS.c.number == 2).values(source="canary"))
    with pytest.raises(LedgerBroken) as told:
        verify(ledger, SEAL)
    assert not re.search(r"canary|[0-9a-f]{32}", str(told.value))


def test_the_walk_is_not_ended_by_a_head_below_what_is_there(ledger: Ledger, intruder: Intruder) -> None:
    fill(ledger)
    whole = intruder.read()
    intruder.write(whole._replace(head=(3, whole.receipts[2][-1], whole.head[2])))
    with pytest.raises(LedgerBroken, match="ends at receipt 6, but its head says 3"):
        verify(ledger, SEAL)
