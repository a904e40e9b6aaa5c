"""Every MovieLens layout reads to the same acts, and broken input is named by file and line."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from workshop.datasets import ACTS, DatasetError, read_movielens

RATINGS = [("1", "10", "4.5", 900000300), ("1", "20", "1.0", 900000100), ("2", "10", "3.5", 900000200)]
MOVIES = [("10", "Amélie: a tale, retold (2001)", "Comedy|Romance"), ("20", "Nothing known", "(no genres listed)")]
UNSEEN = ("30", "Nobody saw it (1999)", "Drama")


def write_csv(folder: Path) -> Path:
    """The layout of ml-latest-small, 20M, 25M and 32M."""
    ratings = "".join(f"{u},{m},{r},{t}\n" for u, m, r, t in RATINGS)
    movies = "".join(f'{m},"{title}",{genres}\n' for m, title, genres in [*MOVIES, UNSEEN])
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies, encoding="utf-8")
    return folder


def write_dat(folder: Path, encoding: str) -> Path:
    """The layout of 1M (Latin-1) and 10M (UTF-8)."""
    (folder / "ratings.dat").write_text("".join(f"{u}::{m}::{r}::{t}\n" for u, m, r, t in RATINGS))
    movies = "".join("::".join(movie) + "\n" for movie in [*MOVIES, UNSEEN])
    (folder / "movies.dat").write_text(movies, encoding=encoding)
    return folder


@pytest.fixture(params=["csv", "latin-1", "utf-8"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_csv(tmp_path) if request.param == "csv" else write_dat(tmp_path, request.param)


def test_every_layout_reads_to_the_same_acts_oldest_first(folder: Path) -> None:
    acts = read_movielens(folder).acts
    assert acts.schema == ACTS
    assert acts.drop("occurred_at").rows() == [
        ("u1", "m20", "thumbs_down"),
        ("u2", "m10", "play"),
        ("u1", "m10", "thumbs_up"),
    ]
    assert acts["occurred_at"][0] == datetime.fromtimestamp(900000100, UTC)


def test_every_layout_reads_to_the_same_items_without_those_that_nobody_rated(folder: Path) -> None:
    attributes = {item.item_id: item.attributes for item in read_movielens(folder).items}
    assert attributes == {
        "m10": {"title": "Amélie: a tale, retold (2001)", "genres": ["Comedy", "Romance"], "year": 2001},
        "m20": {"title": "Nothing known", "genres": []},
    }


@pytest.mark.parametrize(
    ("title", "year"), [("Alien (1979)", 1979), ("Babylon 5 (2007-)", 2007), ("M (1931) ", 1931), ("2001", None)]
)
def test_the_year_comes_from_the_end_of_the_title(tmp_path: Path, title: str, year: int | None) -> None:
    write_csv(tmp_path)
    (tmp_path / "movies.csv").write_text(f"movieId,title,genres\n10,{title},Drama\n")
    assert read_movielens(tmp_path).items[0].attributes.get("year") == year


def test_quotes_within_a_quoted_title_are_kept(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n10,"""Cats"", live (1998)",Musical\n')
    assert read_movielens(tmp_path).items[0].attributes["title"] == '"Cats", live (1998)'


def test_windows_line_ends_and_empty_lines_do_not_matter(folder: Path) -> None:
    expected = read_movielens(folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_movielens(folder).acts.equals(expected.acts)
    assert read_movielens(folder).items == expected.items


@pytest.mark.parametrize("missing", ["ratings", "movies"])
def test_a_missing_file_is_named_with_the_layouts_that_are_understood(folder: Path, missing: str) -> None:
    path = next(folder.glob(f"{missing}.*"))
    path.unlink()
    with pytest.raises(DatasetError, match=rf"{missing}\.(csv|dat).*10M"):
        read_movielens(folder)


BROKEN = """
    1,10,4.5 | 1,10,4.5,900000000,5 | 1,10,good,900000000 | x1,10,4.5,900000000 | 1,10,5.5,900000000 |
    1,10,nan,900000000 | 1,,4.5,900000000 | 1,10,4.5,-900000000 | -1,10,4.5,900000000 | 1,10,4.5,9999999999999
"""


@pytest.mark.parametrize("broken", [line.strip() for line in BROKEN.split("|")])
@pytest.mark.parametrize("at", [1, 3])
def test_a_broken_rating_is_named_by_file_and_line(folder: Path, broken: str, at: int) -> None:
    path = next(folder.glob("ratings.*"))
    csv = path.suffix == ".csv"
    lines = path.read_text().splitlines()
    lines.insert(at, broken if csv else broken.replace(",", "::"))
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=rf"{path.name}, line {at + 1}: expected"):
        read_movielens(folder)


def test_a_broken_rating_is_told_even_when_its_user_is_not_drawn(folder: Path) -> None:
    path = next(folder.glob("ratings.*"))
    with path.open("a") as file:
        file.write("7,7,7,7\n" if path.suffix == ".csv" else "7::7::7::7\n")
    with pytest.raises(DatasetError, match="line"):
        read_movielens(folder, max_users=1)


def test_something_between_the_colons_is_a_broken_line(tmp_path: Path) -> None:
    write_dat(tmp_path, "utf-8")
    (tmp_path / "ratings.dat").write_text("1::10::4::900000000\n1:x:10::4::900000000\n")
    with pytest.raises(DatasetError, match=r"ratings\.dat, line 2: expected"):
        read_movielens(tmp_path)


@pytest.mark.parametrize("broken", ["11", "x,Title,Drama", "11,Title,Drama,more", '11,"Title" x,Drama'])
def test_a_broken_movie_is_named_by_file_and_line(tmp_path: Path, broken: str) -> None:
    write_csv(tmp_path)
    (tmp_path / "movies.csv").write_text(f"movieId,title,genres\n10,A,Drama\n{broken}\n20,B,Drama\n")
    with pytest.raises(DatasetError, match=r"movies\.csv, line 3"):
        read_movielens(tmp_path)


def test_a_broken_movie_of_the_older_layouts_is_named_too(tmp_path: Path) -> None:
    write_dat(tmp_path, "latin-1")
    (tmp_path / "movies.dat").write_text("10::A (1999)::Drama\n20::B (1999)\n")
    with pytest.raises(DatasetError, match=r"movies\.dat, line 2"):
        read_movielens(tmp_path)


@pytest.mark.parametrize("name", ["ratings.csv", "movies.csv"])
def test_a_file_without_its_header_is_named(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path)
    path = tmp_path / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DatasetError, match=rf"{name}, line 1: expected the header"):
        read_movielens(tmp_path)


@pytest.mark.parametrize("name", ["ratings.csv", "movies.csv"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (write_csv(tmp_path) / name).write_text("")
    with pytest.raises(DatasetError, match=name):
        read_movielens(tmp_path)


def test_drawing_users_is_decided_by_the_seed_and_keeps_all_that_they_did(tmp_path: Path) -> None:
    write_csv(tmp_path)
    rows = [f"{user},{movie},3.0,{900000000 + user}\n" for user in range(1, 41) for movie in (10, 20)]
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(rows))
    drawn = read_movielens(tmp_path, max_users=5, seed=3)
    assert drawn.acts.equals(read_movielens(tmp_path, max_users=5, seed=3).acts)
    assert drawn.users != read_movielens(tmp_path, max_users=5, seed=4).users
    assert len(drawn.users) == 5
    assert len(drawn.acts) == 10
    assert len(read_movielens(tmp_path, max_users=99).users) == 40


def test_only_items_that_the_drawn_users_rated_are_kept(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,3,900000000\n2,20,3,900000000\n")
    drawn = read_movielens(tmp_path, max_users=1)
    assert [item.item_id for item in drawn.items] == drawn.acts["item_id"].to_list()
