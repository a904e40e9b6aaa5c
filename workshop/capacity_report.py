"""A plan, to read."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from workshop.capacity import Assumptions, Load, Plan, Units


def as_json(load: Load, assumed: Assumptions, units: Units, plan: Plan) -> Mapping[str, Any]:
    """Everything, by name."""
    whole = plan._asdict() | {"parts": [part._asdict() for part in plan.parts]}
    return {"load": load._asdict(), "plan": whole, "assumed": assumed._asdict(), "units": units._asdict()}


def as_table(load: Load, assumed: Assumptions, plan: Plan) -> Table:
    """The parts, one a line."""
    title = (
        f"{load.users:,} people, {load.events_per_day:,} events a day, {load.requests_per_second:,g} lists/s, "
        f"{load.items:,} items"
    )
    table = Table("part", "how many", "cores", "memory GB", "disk GB", "why", title=title, title_justify="left")
    for part in plan.parts:
        sizes = (f"{part.cores:,.1f}", f"{part.memory_gb:,.1f}", f"{part.disk_gb:,.1f}")
        table.add_row(part.name, f"{part.many} x {part.what}", *sizes, part.because)
    table.caption_justify = "left"
    table.caption = in_words(assumed, plan)
    return table


def in_words(assumed: Assumptions, plan: Plan) -> str:
    """The totals, and what gives way first."""
    if plan.factor < 1:
        first = f"{plan.first} is past what one process or machine can do, {1 / plan.factor:,.1f} times"
    else:
        first = f"{plan.first} saturates first, when all of this has grown {plan.factor:,.1f} times"
    shards = f"{plan.shards} Redis shard{'s' * (plan.shards != 1)} and as many replicas"
    return (
        f"{plan.machines} machines of {assumed.cores} cores and {assumed.memory_gb} GB, one of them for training; "
        f"{plan.partitions} Kafka partitions; {shards}. A retraining in one process takes "
        f"{plan.training_hours:,.1f} hours and {plan.training_gb:,.0f} GB. {first[0].upper()}{first[1:]}."
    )
