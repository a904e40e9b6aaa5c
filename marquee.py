"""The `marquee` command: hands over to each stage's `main.py`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # Locals may hold keys or people.
    help="Marquee: opt-in events in, a served recommender out. Settings are MARQUEE_… variables: docs/settings.md.",
)
load_app = typer.Typer(no_args_is_help=True, help="Send a data set through the ingest API, as its viewers would.")
app.add_typer(load_app, name="load")


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
) -> None:
    """See the loop learn, end to end, in about a minute: events, training, serving, nearline, rollback, erasure.

    Starts a platform of its own on free ports, and writes what it measured to FOLDER/summary.json. Exits with 0 only
    if every step held.
    """
    from workshop.main import demo

    raise typer.Exit(demo(data, folder))


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


@app.command()
def audience(
    users: Annotated[int, typer.Option(min=1, help="Viewers to simulate.")] = 500,
    seconds: Annotated[float, typer.Option(min=1, help="How long they browse, after their past was sent.")] = 30,
    rate: Annotated[float, typer.Option(min=0.1, help="Events a second while they browse.")] = 50,
    opt_in: OptIn = 0.8,
) -> None:
    """Send simulated traffic to a running platform: viewers with hidden tastes who ask for lists and play from them."""
    from workshop.main import audience

    raise typer.Exit(audience(users, seconds, rate, opt_in))


@app.command()
def train(
    schedule: Annotated[bool, typer.Option("--schedule", help="Keep running: retrain when it is due.")] = False,
) -> None:
    """Retrain: snapshot of the lake, hold-out by time, gate, and, when it passes, a new version published.

    Exits with 0 when a version was published, 1 when something was missing, 3 when the gate refused the challenger:
    the champion keeps serving. With --schedule, it is due every MARQUEE_TRAIN_EVERY_SECONDS or after
    MARQUEE_TRAIN_AFTER_EVENTS new events; the process also removes the lists of people who withdraw.
    """
    from training.main import train_on_schedule, train_once

    if schedule:
        train_on_schedule()
    else:
        raise typer.Exit(train_once())


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


main = app

if __name__ == "__main__":
    main()
