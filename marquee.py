"""The `marquee` command: hands over to each stage's `main.py`."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # Locals may hold keys or people.
    help="Marquee: opt-in events in, a served recommender out. Settings are MARQUEE_… variables: docs/settings.md.",
)
load_app = typer.Typer(no_args_is_help=True, help="Send a data set through the ingest API, as its viewers would.")
app.add_typer(load_app, name="load")
letters_app = typer.Typer(no_args_is_help=True, help="Records of the log that could not be landed: read, fix, replay.")
app.add_typer(letters_app, name="dead-letters")
keys_app = typer.Typer(
    no_args_is_help=True, help="Keys of those who call the APIs. Changes hold within 2 s, everywhere."
)
app.add_typer(keys_app, name="keys")


@app.command()
def up() -> None:
    """Start the whole platform in this terminal and keep it up. Ctrl-C stops it, nothing is left running.

    Parts without a URL are embedded: a Redis on a socket, files below MARQUEE_DATA (var/marquee). Set MARQUEE_REDIS,
    MARQUEE_EVENT_LOG, MARQUEE_DATABASE, … to use your own. The first start makes the API key and the secret.
    """
    from infra.main import up

    raise typer.Exit(up())


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="A MovieLens folder; generated viewers where left out.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the demo's platform lives; emptied first.")] = Path("var/demo"),
    open_: Annotated[
        bool, typer.Option("--open", help="Show the storefront in a browser, and stay up until Ctrl-C.")
    ] = False,
) -> None:
    """See the loop learn, end to end, in about a minute: events, training, serving, nearline, rollback, erasure.

    Starts a platform of its own on free ports, and writes what it measured to FOLDER/summary.json. Exits with 0 only
    if every step held.
    """
    from workshop.main import demo

    raise typer.Exit(demo(data, folder, open_))


OptIn = Annotated[float, typer.Option(min=0, max=1, help="Share of the viewers that opt in.")]


@load_app.command()
def movielens(
    folder: Annotated[Path, typer.Argument(help="With ratings.csv and movies.csv, or ratings.dat and movies.dat.")],
    opt_in: OptIn = 1.0,
    max_users: Annotated[int | None, typer.Option(min=1, help="Take a sample of so many viewers.")] = None,
) -> None:
    """Send a MovieLens folder (latest-small, 1M, 10M, 20M, 25M, 32M) through the ingest API of a running platform."""
    from workshop.main import load_movielens

    raise typer.Exit(load_movielens(folder, opt_in, max_users))


@load_app.command()
def export(
    file: Annotated[Path, typer.Argument(help="What GET /v1/users/USER/data answered, one JSON object a line.")],
) -> None:
    """Send a person's export to a running platform: the consent given last, then every event with its id."""
    from workshop.main import load_export

    raise typer.Exit(load_export(file))


RUNNING, SIMULATED = "Against a running platform", "In one process, with --rounds"


@app.command()
def audience(
    ctx: typer.Context,
    *,
    users: Annotated[int, typer.Option(min=1, help="Viewers to simulate.")] = 500,
    seconds: Annotated[
        float, typer.Option(min=1, help="How long they browse, after their past was sent.", rich_help_panel=RUNNING)
    ] = 30,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Events a second while they browse.", rich_help_panel=RUNNING)
    ] = 50,
    opt_in: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the viewers that opt in.", rich_help_panel=RUNNING)
    ] = 0.8,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Close the loop so many times; 12 is enough.", rich_help_panel=SIMULATED)
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=2, help="Worlds to play it in: more give narrower intervals.", rich_help_panel=SIMULATED)
    ] = 8,
    out: Annotated[
        Path, typer.Option(help="The figures, as JSON; the plot goes beside it, as SVG.", rich_help_panel=SIMULATED)
    ] = Path("var/rounds.json"),
) -> None:
    """Simulated viewers with hidden tastes: traffic for a running platform, or the whole loop in one process.

    Without --rounds, viewers send their past to the running platform, ask for lists and play from them.

    With --rounds, no platform is needed. In every round viewers are shown lists, answer by their tastes, and what they
    watched is what models learn from next. Each way to recommend has a world of its own, with the same viewers and the
    same dice: **popularity** counts anew before every round; **stale** is a model that was trained once and knows
    what people had done by then; **nearline** is that model with everybody's newest history; **fresh** is trained anew
    before every round; the **oracle** knows the tastes. New viewers and new items arrive in every round. The defaults
    take a minute. Ctrl-C keeps the worlds that are done. What it assumes, and what it cannot show: docs/simulation.md.
    """
    from workshop.main import audience
    from workshop.main import rounds as close_the_loop

    for name in ("seconds", "rate", "opt_in") if rounds else ("seeds", "out"):
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option, with_it = name.replace("_", "-"), "with" if rounds else "without"
            raise typer.BadParameter(f"--{option} does nothing {with_it} --rounds: leave it out")
    raise typer.Exit(close_the_loop(rounds, seeds, users, out) if rounds else audience(users, seconds, rate, opt_in))


ASSUMED = "What nobody measured"


@app.command()
def capacity(
    *,
    users: Annotated[int, typer.Option(min=1, help="People who allow personalization.")],
    events_per_day: Annotated[int, typer.Option(min=1, help="Events that are accepted.")],
    requests_per_second: Annotated[float, typer.Option(min=0, help="Requests for lists, at the peak.")],
    items: Annotated[int, typer.Option(min=1, help="Items of the catalogue.")],
    peak: Annotated[
        float, typer.Option(min=1, help="Events at the peak, of the day's mean.", rich_help_panel=ASSUMED)
    ] = 3,
    headroom: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the measured to plan with.", rich_help_panel=ASSUMED)
    ] = 0.6,
    kept_days: Annotated[
        int, typer.Option(min=1, help="Days of events that are trained on.", rich_help_panel=ASSUMED)
    ] = 365,
    history_items: Annotated[
        int, typer.Option(min=1, help="Items of a person's history.", rich_help_panel=ASSUMED)
    ] = 100,
    cores: Annotated[int, typer.Option(min=1, help="Of a machine.", rich_help_panel=ASSUMED)] = 8,
    memory_gb: Annotated[int, typer.Option(min=1, help="Of a machine.", rich_help_panel=ASSUMED)] = 32,
    retrain_hours: Annotated[
        float, typer.Option(min=0.01, help="A retraining has to be over by then.", rich_help_panel=ASSUMED)
    ] = 6,
    json: Annotated[bool, typer.Option("--json", help="With units and all assumptions, for a program.")] = False,
) -> None:
    """Say what a load needs: machines, memory, Kafka partitions, Redis shards, hours of training, and what gives first.

    It multiplies what one process, event and person was measured to do or take (bench/results, made by the make targets
    named in docs/scaling.md) by the load. Those measurements come from two cores that everything shared, so they err on
    the safe side; a plan is still no measurement: try the next size before you buy it.

    Example: marquee capacity --users 1000000 --events-per-day 10000000 --requests-per-second 500 --items 50000
    """
    from workshop.capacity import Assumptions, Load
    from workshop.main import capacity

    load = Load(users, events_per_day, requests_per_second, items)
    assumed = Assumptions(
        peak=peak,
        headroom=headroom,
        kept_days=kept_days,
        history_items=history_items,
        cores=cores,
        memory_gb=memory_gb,
        retrain_hours=retrain_hours,
    )
    raise typer.Exit(capacity(load, assumed, json))


class History(StrEnum):
    """What becomes of valid before test is asked about."""

    refit = "refit"
    fresh = "fresh"


class HoldOut(StrEnum):
    """What a search chooses on."""

    time = "time"
    last = "last"
    random = "random"


class Engine(StrEnum):
    """Where models are fitted and lists are made."""

    process = "process"
    spark = "spark"


@app.command()
def train(
    schedule: Annotated[bool, typer.Option("--schedule", help="Keep running: retrain when it is due.")] = False,
    accept_data: Annotated[
        str | None, typer.Option(metavar="REASON", help="Go on though a check on the data fails; recorded.")
    ] = None,
    engine: Annotated[
        Engine | None, typer.Option(help="This process, or Spark at MARQUEE_SPARK_MASTER.  [default: MARQUEE_ENGINE]")
    ] = None,
) -> None:
    """Retrain: snapshot of the lake, checks, hold-out by time, gate, and, when it passes, a new version published.

    Exits with 0 when a version was published, 1 when something was missing, 3 when a check failed on the data or the
    gate refused the challenger: the champion keeps serving. With --schedule, it is due every
    MARQUEE_TRAIN_EVERY_SECONDS or after MARQUEE_TRAIN_AFTER_EVENTS new events; the process also removes the lists of
    people who withdraw.

    --engine spark fits ALS and makes everybody's lists on Spark, from the same snapshot; what is published is the same
    kind of version. It searches for no recipe: it takes the best ALS that `marquee tune` found, else the champion's,
    else the default. Install it with `make spark`; docs/spark.md says what a cluster needs.
    """
    from training.main import train_on_schedule, train_once

    if accept_data is not None and (schedule or not accept_data.strip()):
        raise typer.BadParameter("--accept-data is for one retraining by hand, and needs a reason: it is recorded")
    if schedule:
        if engine:
            raise typer.BadParameter("--engine is for one retraining; for the schedule, set MARQUEE_ENGINE")
        train_on_schedule()
    else:
        raise typer.Exit(train_once(accept_data, None if engine is None else engine.value))


@app.command()
def operate() -> None:
    """Run the operator's API alone (MARQUEE_OPERATOR_PORT): versions, runs, and the platform's figures over HTTP."""
    from training.main import operate

    operate()


@app.command(context_settings={"allow_extra_args": True})
def evaluate(
    context: typer.Context,
    *,
    train: Annotated[Path, typer.Option(help="What models are fitted on: .parquet or .csv.")],
    valid: Annotated[Path, typer.Option(help="What the model is chosen on.")],
    test: Annotated[Path, typer.Option(help="What the chosen model is judged on.")],
    budget: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Time to choose; fits come on top.")] = 300,
    k: Annotated[list[int] | None, typer.Option(min=1, metavar="K ...", help="List lengths.  [default: 10 20]")] = None,
    out: Annotated[Path | None, typer.Option(help="Write everybody's top-k to this parquet file.")] = None,
    history: Annotated[History, typer.Option(help="What becomes of valid before test: see above.")] = History.refit,
) -> None:
    """Find the best model for three files of interactions, and say how good it is. Needs no running platform.

    Each file has the columns user_id and item_id (whole numbers or text), one row an interaction, and may have
    occurred_at (date and time, seconds or milliseconds since 1970, or ISO 8601 text). Without it the order of a user's
    rows, train, valid, test, stands for time. Every row counts as positive; a rating and other columns are not used.

    A model is chosen by its nDCG@10 on valid alone. Then every algorithm, popularity and the chosen model are judged on
    test, ranking all items but those that a person has in train and valid. With --history refit they are fitted again
    on train and valid. With --history fresh they stay fitted on train, and valid arrives as newer history, as it does
    in production between two retrainings; beside it stands what the same models do with the stale history. The model is
    then chosen in that way too: the older half of what each has in valid has arrived, the newer half is asked for.

    The table on stdout has nDCG, recall (hits / held-out items, and hits / min(k, held-out items)), MAP, MRR,
    coverage, Gini index, novelty and popularity bias, each with its 95 % interval over people. --out has the columns
    user_id, rank (from 1), item_id and score, with the ids of the files: anyone can compute the figures again from it.

    Exits with 0, or 1 when the files cannot be used: the message says why.

    Example: marquee evaluate --train train.csv --valid valid.csv --test test.csv --k 10 20 --out recs.parquet
    """
    from training.holdout_files import HoldOutFiles
    from training.main import evaluate

    ks = _lengths(k or [], context.args) or [10, 20]
    raise typer.Exit(evaluate(HoldOutFiles(train, valid, test), budget, ks, out, history is History.refit))


def _lengths(named: list[int], more: list[str]) -> list[int]:
    """The list lengths of `--k 10 20`: an option takes one value, the others arrive as words that belong to nothing."""
    if odd := [word for word in more if not named or not word.isdecimal() or not int(word)]:
        raise typer.BadParameter(f"{odd[0]!r} belongs to no option; list lengths go after --k, as in --k 10 20")
    return sorted({*named, *map(int, more)})


@app.command()
def tune(
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Default: MARQUEE_TUNE_SECONDS.")
    ] = None,
    hold_out: Annotated[
        HoldOut, typer.Option(help="Newest events; last item of each person; a random fifth.")
    ] = HoldOut.time,
) -> None:
    """Search for the best recipe on the lake's snapshot; the next retraining tries the best ones first.

    Every trial is a run in MLflow. Interrupted and started again it goes on where it ended, as long as nothing landed
    in between. It looks at nothing that the next retraining judges by, and publishes nothing. --hold-out last and
    random are for comparison with papers: their figures are better than production's.
    """
    from training.main import tune

    raise typer.Exit(tune(budget, hold_out.value))


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Version to serve.")],
    force: Annotated[bool, typer.Option("--force", help="Also where the gate refused it; needs a reason.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with the version.")] = "",
) -> None:
    """Serve a version that passed the gate or, with --force and a reason, one that did not.

    Who said so, when and why is kept with the version; `marquee models VERSION` shows it.
    """
    from training.main import promote

    if force and not reason.strip():
        raise typer.BadParameter("--force needs --reason: it is kept with the version")
    raise typer.Exit(promote(version, force, reason))


@app.command()
def models(
    version: Annotated[int | None, typer.Argument(help="Show everything about this one.")] = None,
    card: Annotated[bool, typer.Option("--card", help="Print its model card instead, as Markdown.")] = False,
) -> None:
    """Show the versions: recipe, nDCG@10 beside champion and popular list, gate, digest, which is served.

    With a version: every verdict with its reason, lineage, parameters, figures, and where its model card is.
    """
    from training.main import print_models

    if card and version is None:
        raise typer.BadParameter("--card is of one version: marquee models VERSION --card")
    raise typer.Exit(print_models(version, card))


@app.command()
def diff(
    before: Annotated[int, typer.Argument(metavar="V1", help="A version.")],
    after: Annotated[int, typer.Argument(metavar="V2", help="Another one.")],
    people: Annotated[int, typer.Option(min=1, help="Compare so many people at most, drawn at random.")] = 2000,
) -> None:
    """Show whose lists change between two versions, and by how much, with the same histories. It names nobody.

    Over the people in the lake who allow it: how many first tens change, how much of them stays, and which items gain
    and lose most.
    """
    from training.main import print_diff

    raise typer.Exit(print_diff(before, after, people))


@app.command()
def rollback(
    version: Annotated[int | None, typer.Argument(help="Version to serve; the one before where left out.")] = None,
) -> None:
    """Serve another version, an earlier or a later one, at once."""
    from training.main import rollback

    raise typer.Exit(rollback(version))


@app.command()
def status() -> None:
    """Show the versions with their hold-out metrics, which of them is served, and how much has landed."""
    from training.main import print_status

    raise typer.Exit(print_status())


@app.command()
def serve() -> None:
    """Run the serving API alone (MARQUEE_SERVING_PORT)."""
    from serving.main import serve

    serve()


@app.command()
def nearline() -> None:
    """Run the nearline worker alone: folds new events into live lists."""
    from serving.main import nearline

    nearline()


@app.command()
def ingest() -> None:
    """Run the ingest API alone (MARQUEE_INGEST_PORT)."""
    from ingest.main import serve_ingest

    serve_ingest()


@app.command()
def land() -> None:
    """Run the lander alone: event log to lake, exactly once; it also keeps the erasures."""
    from ingest.main import land

    land()


@app.command()
def erase(user: Annotated[str, typer.Argument(help="The person's user_id, as the events carry it.")]) -> None:
    """Forget a person in every store, wait until each has signed, and print the receipt."""
    from ingest.main import erase

    raise typer.Exit(erase(user))


@app.command()
def account() -> None:
    """Show what became of every record of the event log: landed, dropped on a withdrawal, a dead letter.

    Exits with 0 if every one is accounted for.
    """
    from ingest.main import account

    raise typer.Exit(account())


@letters_app.command("list")
def list_letters() -> None:
    """Print the dead letters, newest first: id, time, reason."""
    from ingest.main import list_dead_letters

    raise typer.Exit(list_dead_letters())


@letters_app.command("show")
def show_letter(letter: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")]) -> None:
    """Print one dead letter as JSON. Put `record` right in a file, and replay that."""
    from ingest.main import show_dead_letter

    raise typer.Exit(show_dead_letter(letter))


@letters_app.command("replay")
def replay_letters(files: Annotated[list[Path], typer.Argument(help="As `show` printed them, edited.")]) -> None:
    """Send dead letters in again, through all checks and the consent gate. What is accepted leaves the dead letters.

    Exits with 0 if all of them were accepted, else with 1: the verdict says why.
    """
    from ingest.main import replay_dead_letters

    raise typer.Exit(replay_dead_letters(files))


@app.command()
def verify_ledger(
    kept: Annotated[
        str | None, typer.Option(metavar="NUMBER:HASH", help="The end that an earlier run printed, kept elsewhere.")
    ] = None,
) -> None:
    """Check that every receipt of the consent ledger is as it was recorded, and in its place.

    Prints how many there are. Exits with 0 if all of them are, with 1 and the first receipt that is not.
    A receipt that was altered, taken out, put in or moved is found; one cut off at the end too, as long as Redis or
    the line printed by an earlier run remembers it.
    """
    from ingest.main import verify_ledger

    raise typer.Exit(verify_ledger(kept))


class Scope(StrEnum):
    """What a key may do."""

    events = "events"
    items = "items"
    people = "people"
    recommendations = "recommendations"
    operate = "operate"


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Whose key it is; for people to read.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; give it several times.")],
    rate: Annotated[float | None, typer.Option(min=0.001, help="Events a second it may send.  [default: any]")] = None,
    burst: Annotated[float | None, typer.Option(min=1, help="Events at once.  [default: 10 s of the rate]")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, in UTC.  [default: never]")] = None,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept.

    events: send events. items: say what items are. people: consent, data and erasure of anybody. recommendations: lists
    of anybody. operate: lineage, and all of the operator's API. A website's back end wants all but the last.
    """
    from infra.main import create_key

    if burst is not None and rate is None:
        raise typer.BadParameter("--burst is a part of a quota: give --rate too")
    raise typer.Exit(create_key(name, [each.value for each in scope], rate, burst, expires))


@keys_app.command("list")
def list_keys() -> None:
    """Print the keys, oldest first: id, state, since when, scopes, quota, name."""
    from infra.main import list_keys

    raise typer.Exit(list_keys())


KeyId = Annotated[str, typer.Argument(metavar="ID", help="As the list shows it, and the middle of mq_ID_….")]


@keys_app.command("revoke")
def revoke_key(key_id: KeyId) -> None:
    """End a key, for good."""
    from infra.main import revoke_key

    raise typer.Exit(revoke_key(key_id))


@keys_app.command("rotate")
def rotate_key(
    key_id: KeyId,
    grace: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long the old secret still works.")] = 0,
) -> None:
    """Give a key a new secret and print it. With --grace nobody is locked out while it is passed on."""
    from infra.main import rotate_key

    raise typer.Exit(rotate_key(key_id, grace))


main = app

if __name__ == "__main__":
    main()
