"""How many threads BLAS has."""

import os
import subprocess
import sys

SCRIPT = """
from training.algorithms.blas import one_blas_thread

def threads():
    from threadpoolctl import threadpool_info
    return sorted({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})

with one_blas_thread():
    pass
import scipy.linalg, scipy.sparse.linalg
print(threads())
with one_blas_thread():
    print(threads())
print(threads())
"""


def test_blas_has_one_thread_inside_and_as_many_as_before_outside_whatever_was_imported_first() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    said = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True)
    before, inside, after = said.stdout.splitlines()
    assert inside == "[1]"
    assert after == before
