"""Strike a platform of its own while events come in, and prove that no acknowledged event is lost or counted twice.

    make chaos [LOG=redis|kafka|kafka-cluster] [EVENTS=1000000] [FAULTS=200] [SEED=1]

For each log three stories are told to real processes on this machine, on free ports of loopback, in a folder that goes
with them:

- the faults: kill -9, SIGSTOP, connections cut, hanging and slow, at collector, log, lander and lake in turn;
- the control: landers without the fence, which must make duplicates, or the checker is worth nothing;
- the log stopped for two minutes under load.

`kafka-cluster` has three brokers, which are killed and paused in turn with collectors, landers and nearline workers,
two of each; the log is not stopped as a whole.

bench/results/chaos.json gets one object a log. The exit code is 1 if anything was lost, doubled or not accounted for.
The same seed gives the same faults, people and batches; what meets what is up to the machine.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.outage import Outage, run_outage
from tests.chaos.platform import BROKER, CLUSTER, LANDERS, NEARLINES, Platform
from tests.chaos.run import Outcome, Size, Watch, run, run_control

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "bench/results/chaos.json"
LOGS = ("redis", "kafka", "kafka-cluster")
PEOPLE = 2000
CONTROL = Size(events=60_000, strikes=6, people=200)
OUTAGE_SECONDS = 120.0

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command(help=__doc__)
def main(
    log: Annotated[
        list[str], typer.Option(help="Which log: redis, kafka, kafka-cluster. Kafka needs `make kafka`.")
    ] = list(LOGS),  # noqa: B006
    events: Annotated[int, typer.Option(min=1000, help="Events that are sent to each log.")] = 1_000_000,
    faults: Annotated[int, typer.Option(min=1, help="Faults that strike meanwhile.")] = 200,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
    outage: Annotated[
        float, typer.Option(min=0, help="Seconds that the log is stopped. 0: not at all.")
    ] = OUTAGE_SECONDS,
    result: Annotated[Path, typer.Option(help="File that gets the results.")] = RESULT,
) -> None:
    """Strike a platform while events come in; compare log, lake and training read with what was acknowledged."""
    console, ill = Console(), []
    if unknown := sorted(set(log) - set(LOGS)):
        sys.exit(f"There is no log {', '.join(unknown)}: take {' or '.join(LOGS)}.")
    for each in log:
        figures = all_of(each, Size(events, faults, min(PEOPLE, events // 50), seed), outage, console)
        write(result, each, figures)
        console.print(shown(each, figures))
        ill += [f"{each}: {what}" for what in figures["broken"]]
    for what in ill:
        console.print(f"[bold red]Broken: {what}[/bold red]")
    if not ill:
        console.print("[bold green]Nothing acknowledged was lost or counted twice.[/bold green]")
    sys.exit(1 if ill else 0)


def all_of(log: str, size: Size, outage_seconds: float, console: Console) -> dict[str, Any]:
    """The three stories of one log."""
    cluster = log == "kafka-cluster"
    kind, brokers = ("kafka", CLUSTER) if cluster else (log, BROKER)
    whole = {"landers": LANDERS, "nearlines": NEARLINES} if cluster else {}
    with bar(console, f"{log}: faults", size) as watch, Platform(kind, brokers=brokers, **whole) as platform:
        outcome = run(platform, size, watch)
    with (
        bar(console, f"{log}: control", CONTROL) as watch,
        Platform(kind, brokers=brokers, landers=LANDERS, fenced=False) as platform,
    ):
        control = run_control(platform, CONTROL, watch)
    stopped = None
    if outage_seconds and not cluster:
        with bar(console, f"{log}: stopped", CONTROL) as watch, Platform(log) as platform:
            stopped = run_outage(platform, outage_seconds, watch, size.seed)
    return figures_of(log, outcome, size, control, stopped)


def figures_of(log: str, outcome: Outcome, size: Size, control: int, stopped: Outage | None) -> dict[str, Any]:
    """What the result file says of a log."""
    found = outcome.findings
    broken = [
        what
        for what, wrong in {
            f"{found.lost} lost": found.lost,
            f"{found.duplicated} duplicated": found.duplicated,
            f"{found.false_202} accepted after a withdrawal": found.false_202,
            f"{found.kept} kept after a withdrawal": found.kept,
            f"{found.invented} that nobody sent": found.invented,
            f"{found.out_of_order} out of order": found.out_of_order,
            f"{len(outcome.wrong_histories)} histories that are not what the lake says": outcome.wrong_histories,
            f"{found.unaccounted} unaccounted for": found.unaccounted,
            f"{len(outcome.surprises)} answers that nothing accounts for": outcome.surprises,
            "the control has no duplicates, so the checker finds none": not control,
            **({f"log stopped: {what}": True for what in stopped.broken} if stopped else {}),
        }.items()
        if wrong
    ]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"make chaos LOG={log} EVENTS={size.events} FAULTS={size.strikes} SEED={size.seed}",
        "cores": os.cpu_count(),
        "events_acknowledged": outcome.acknowledged,
        "faults": sum(outcome.struck.values()),
        "lost": found.lost,
        "duplicated": found.duplicated,
        "control_duplicated": control,
        "accepted_after_withdrawal": found.false_202,
        "kept_after_withdrawal": found.kept,
        "invented": found.invented,
        "out_of_order": found.out_of_order,
        "wrong_histories": len(outcome.wrong_histories),
        "unaccounted": found.unaccounted,
        "seconds": round(outcome.seconds, 1),
        "withdrawals": outcome.withdrawals,
        "account": found.figures,
        "sent": dict(outcome.counts),
        "answers": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "faults_by_kind": dict(sorted(outcome.struck.items())),
        "restarts": outcome.restarts,
        "control": {"events": CONTROL.events, "faults": CONTROL.strikes},
        "outage": stopped.figures() if stopped else None,
        "examples": found.examples,
        "surprises": outcome.surprises[:5],
        "broken": broken,
    }


class bar:  # noqa: N801
    """A progress bar over events, with the fault that strikes now; a context manager that gives a `Watch`."""

    def __init__(self, console: Console, what: str, size: Size) -> None:
        columns = (TextColumn(f"{what:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[now]}"), console=console)
        self._size = size

    def __enter__(self) -> Watch:
        self._progress.start()
        task = self._progress.add_task("", total=self._size.events, now="starting")

        def watch(acknowledged: int, struck: int, now: str) -> None:
            self._progress.update(task, completed=acknowledged, now=f"{struck} faults; {now}")

        return watch

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def shown(log: str, figures: dict[str, Any]) -> Table:
    """The result of a log, to read."""
    table = Table("", log, title=f"Chaos on {log}")
    for name in (
        "events_acknowledged",
        "faults",
        "lost",
        "duplicated",
        "control_duplicated",
        "accepted_after_withdrawal",
        "kept_after_withdrawal",
        "unaccounted",
        "seconds",
    ):
        table.add_row(name.replace("_", " "), f"{figures[name]:,}")
    for name, value in (figures["outage"] or {}).items():
        table.add_row(f"log stopped: {name.replace('_', ' ')}", str(value))
    for kind, examples in figures["examples"].items():
        table.add_row(kind, ", ".join(map(str, examples)))
    return table


def write(path: Path, log: str, figures: dict[str, Any]) -> None:
    """Put a log's figures into the result file; those of other logs stay."""
    results = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**results, log: figures}, indent=2) + "\n")


if __name__ == "__main__":
    app()
