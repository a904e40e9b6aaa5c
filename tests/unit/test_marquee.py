"""The command line says what is missing before anything begins."""

import pytest
from typer.testing import CliRunner

import marquee


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promote", "2", "--force"], "--force needs --reason"),
        (["promote", "2", "--force", "--reason", " "], "--force needs --reason"),
        (["train", "--accept-data", " "], "needs a reason"),
        (["train", "--schedule", "--accept-data", "because"], "for one retraining by hand"),
        (["models", "--card"], "marquee models VERSION --card"),
        (["tune", "--hold-out", "never"], "'time', 'last', 'random'"),
        (["diff", "1"], "V2"),
    ],
)
def test_a_command_without_what_it_needs_is_not_begun(words: list[str], said: str) -> None:
    done = CliRunner().invoke(marquee.app, words, env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 2
    assert said in done.output
