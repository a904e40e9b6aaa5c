"""`marquee verify-ledger`: the whole chain walked, with what others remember of its end, and a bar on a terminal."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.database import Head, Ledger
from infra.online_store import OnlineStore
from ingest.chain import seal_with, verify
from ingest.events import ConsentUnavailable
from ingest.projection import ProjectionWriter

RECEIPTS_A_STEP = 500


def check(ledger: Ledger, store: OnlineStore, secret: str, kept: str | None) -> str:
    """Walk the chain of receipts.

    Args:
        store: where the projection remembers the end.
        kept: the end that an earlier check told, NUMBER:HASH.

    Returns:
        What to tell: how many receipts there are, and the end.

    Raises:
        LedgerBroken: a receipt is not as it was recorded.
        LedgerUnavailable: the ledger does not answer.
        ValueError: `kept` is of another form.
    """
    console = Console(stderr=True, highlight=False)
    ends = [end for end in (_kept_end(kept), _end_in_redis(ledger, store, console)) if end]
    columns = (TextColumn("Receipts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=ledger.head().number)

        def watch(number: int) -> None:
            if number % RECEIPTS_A_STEP == 0:
                progress.update(task, completed=number)

        head = verify(ledger, seal_with(secret), ends, watch)
    told = f"{head.number} receipts, each as it was recorded and in its place."
    keep = f"\nKeep this elsewhere: `marquee verify-ledger --kept {head.number}:{head.hash}` finds what goes later."
    return told + keep if head.number else told


def _kept_end(kept: str | None) -> Head | None:
    if kept is None:
        return None
    number, _, digest = kept.partition(":")
    if not number.isdecimal() or not digest:
        raise ValueError("--kept takes what an earlier run printed: NUMBER:HASH")
    return Head(int(number), digest)


def _end_in_redis(ledger: Ledger, store: OnlineStore, console: Console) -> Head | None:
    try:
        return ProjectionWriter(ledger, store).witness()
    except ConsentUnavailable:
        console.print("Redis does not answer: the end of the ledger is compared with the ledger's own head only.")
        return None
