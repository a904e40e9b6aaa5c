"""What many threads ask for at the same time is done once, for all of them."""

import threading
from collections.abc import Sequence

import pytest

from ingest.group_commit import GroupCommit


def run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_everyone_gets_their_own_result() -> None:
    commit = GroupCommit[int, int](lambda jobs: [10 * job for job in jobs], most=3)
    results: dict[int, int] = {}
    run_all([threading.Thread(target=lambda n=n: results.update({n: commit(n)})) for n in range(50)])
    assert results == {n: 10 * n for n in range(50)}


def test_jobs_that_come_while_one_is_done_are_done_together() -> None:
    groups: list[list[int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(jobs: Sequence[int]) -> Sequence[int]:
        groups.append(list(jobs))
        begun.set()
        go_on.wait(10)
        return jobs

    commit = GroupCommit(work, most=4)
    first = threading.Thread(target=commit, args=(0,))
    first.start()
    begun.wait(10)
    others = [threading.Thread(target=commit, args=(n,)) for n in range(1, 8)]
    for thread in others:
        thread.start()
    while len(commit._waiting) < 7:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in [first, *others]:
        thread.join(10)
    assert [len(group) for group in groups] == [1, 4, 3]
    assert sorted(job for group in groups for job in group) == list(range(8))


def test_a_failure_reaches_everyone_of_the_group_and_nobody_after() -> None:
    def work(jobs: Sequence[int]) -> Sequence[int]:
        if 1 in jobs:
            raise OSError("the disk is full")
        return jobs

    commit = GroupCommit(work)
    with pytest.raises(OSError, match="the disk is full"):
        commit(1)
    assert commit(2) == 2


def test_a_group_is_no_larger_than_it_may_be_and_a_job_that_is_larger_goes_alone() -> None:
    groups: list[list[int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(jobs: Sequence[int]) -> Sequence[int]:
        groups.append(list(jobs))
        begun.set()
        go_on.wait(10)
        return jobs

    commit = GroupCommit(work, most=10, size=lambda job: job)
    threads = [threading.Thread(target=commit, args=(size,)) for size in (1, 4, 6, 7, 20, 3)]
    for number, thread in enumerate(threads):
        thread.start()
        begun.wait(10)
        while len(commit._waiting) < number:
            threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert groups == [[1], [4, 6], [7], [20], [3]]


def test_who_waits_too_long_is_told_and_what_had_not_begun_is_not_done() -> None:
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(jobs: Sequence[str]) -> Sequence[str]:
        begun.set()
        go_on.wait(10)
        done.extend(jobs)
        return jobs

    commit = GroupCommit(work)
    first = threading.Thread(target=commit, args=("first",))
    first.start()
    begun.wait(10)
    with pytest.raises(TimeoutError):
        commit("late", timeout=0.01)
    go_on.set()
    first.join(10)
    assert commit("next") == "next"
    assert done == ["first", "next"]
