"""Nothing that is read is executed: no module of the platform can load a pickle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ("ingest", "training", "serving", "infra", "workshop")
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {"read_pickle", "to_pickle", "load_model", "log_model"}


def loading(source: str) -> Iterator[str]:
    """What in a module's source could execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                yield module
            case ast.keyword(arg="allow_pickle", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield "allow_pickle"
            case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                yield name
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=keywords):
                of_numpy = name in ("read_array", "load") and _of_numpy(node)
                if name in CALLS or (of_numpy and "allow_pickle" not in {each.arg for each in keywords}):
                    yield name


def _of_numpy(call: ast.Call) -> bool:
    return ast.unparse(call.func).startswith(("np.", "numpy."))


@pytest.mark.parametrize(
    "path", [ROOT / "marquee.py", *(p for part in SOURCE for p in (ROOT / part).rglob("*.py"))], ids=str
)
def test_no_module_loads_a_pickle(path: Path) -> None:
    assert list(loading(path.read_text())) == []


@pytest.mark.parametrize(
    "mutant",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np\nnp.load(file)",
        "import numpy as np\nnp.lib.format.read_array(file, allow_pickle=True)",
        "import mlflow\nmlflow.pyfunc.load_model(uri)",
        "eval(text)",
    ],
)
def test_a_module_that_did_would_be_found(mutant: str) -> None:
    assert list(loading(mutant))
