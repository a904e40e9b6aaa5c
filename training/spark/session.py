"""A Spark session of this platform's own, and what keeps it from being had, in words."""

import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from training.engine import EngineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXECUTOR_SECONDS = 120.0
"""How long a cluster may take to give this application its first executor."""
_LOCAL = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
_ALWAYS = {
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    # Partitions are people's homes: joined by size, a second try of a task would find others in its own.
    "spark.sql.adaptive.enabled": "false",
}


@contextmanager
def open_session(master: str, more: Mapping[str, str] = MappingProxyType({})) -> Iterator["SparkSession"]:
    """A session on this master, while the block runs.

    Args:
        master: `local[N]`, `spark://host:port`, `yarn`, `k8s://…`.
        more: further settings of Spark.

    Raises:
        EngineError: pyspark or Java is missing, or the master gives no executor.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise EngineError(f"Spark is not installed ({error}): make spark, or pip install 'marquee[spark]'") from error
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise EngineError("Spark needs Java 17 or newer: install one, or set JAVA_HOME")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    local = master.startswith("local")
    builder = SparkSession.builder.master(master).appName("marquee train")
    console = {"spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower()}
    for name, value in {**_ALWAYS, **console, **(_LOCAL if local else {}), **more}.items():
        builder = builder.config(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Of a pandas that is newer than Spark's: nothing here uses it.
        try:
            session = builder.getOrCreate()
        except (PySparkException, _java_error()) as error:
            raise EngineError(f"Spark does not start on {master}: {first_line(error)}") from error
        try:
            if not local:
                _wait_for_an_executor(session, master)
            yield session
        finally:
            session.stop()


def first_line(error: BaseException) -> str:
    """What went wrong, without the stacks of two languages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Exception: " in line or "Error: " in line]
    return (causes or lines or [type(error).__name__])[-1]


def _java_error() -> type[Exception]:
    from py4j.protocol import Py4JError

    found: type[Exception] = Py4JError
    return found


def _wait_for_an_executor(session: "SparkSession", master: str) -> None:
    """Spark itself waits for ever."""
    deadline = time.monotonic() + EXECUTOR_SECONDS
    context = session.sparkContext
    while context._jsc.sc().getExecutorMemoryStatus().size() < 2:  # The driver is one.
        if context._jsc.sc().isStopped() or time.monotonic() > deadline:
            raise EngineError(
                f"{master} gives no executor within {EXECUTOR_SECONDS:.0f} s: is it up, does it have workers with free "
                "cores and memory, and do its workers reach this host?"
            )
        time.sleep(0.2)
