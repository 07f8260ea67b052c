import json
import re
from pathlib import Path

import pytest

from atlas_tune.errors import UsageError
from atlas_tune.llm import Journal
from atlas_tune.select import CannotLabel
from atlas_tune.select.oracle import OracleOptions, OracleSelector
from atlas_tune.select.oracle.counting import TokenizerCount, identity_of
from atlas_tune.select.oracle.estimate import estimate
from atlas_tune.select.oracle.plan import plan_requests
from atlas_tune.trajectory import Observation, Step, Trajectory
from scripted_server import ScriptedServer, good

ANSWER = json.dumps(
    {
        "plan": [{"subgoal": "win"}],
        "critical_steps": [
            {"step_id": 2, "kind": "critical_action", "reason": "r", "quote": "I try way 2."}
        ],
    }
)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A tokenizer that makes a token of every letter, and would cut texts after five."""
    return save_tokenizer(tmp_path / "letters.json", "")


def save_tokenizer(path: Path, pattern: str) -> Path:
    """One that cuts a text at every ``pattern``; an empty one cuts it into letters."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(pattern or r"[\s\S]"), "isolated" if not pattern else "removed"
    )
    made.enable_truncation(5)
    made.save(str(path))
    return path


def run_of(*observations: str) -> Trajectory:
    steps = [Step(1, "user", "Win.")]
    for i, text in enumerate(observations, start=2):
        steps.append(Step(i, "agent", f"I try way {i}.", observation=Observation.of(text)))
    return Trajectory.create(tuple(steps))


def letters_of(body) -> int:
    return sum(len(message["content"]) for message in body["messages"])


def test_every_token_counts_whatever_the_text_holds(letters: Path):
    count = TokenizerCount(letters)
    assert [count(""), count("seven77"), count("größe\n"), count("a\ud800b")] == [0, 7, 6, 3]
    assert count.all(["ab", "", "abc"]) == [2, 0, 3]


def test_a_folder_with_a_tokenizer_counts_like_the_file(letters: Path, tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(letters.read_bytes())
    assert TokenizerCount(folder)("four") == 4
    assert identity_of(TokenizerCount(folder)) == identity_of(TokenizerCount(letters))


def test_a_file_that_is_no_tokenizer_is_told_before_anything_is_asked(tmp_path: Path):
    (tmp_path / "broken.json").write_text("{}")
    for place, sentence in (("nowhere", "no tokenizer at"), ("broken.json", "is no tokenizer")):
        with pytest.raises(UsageError, match=sentence):
            OracleSelector(OracleOptions(model="m", tokenizer=tmp_path / place))
    with pytest.raises(UsageError, match=r"no tokenizer at .*tokenizer\.json"):
        OracleSelector(OracleOptions(model="m", tokenizer=tmp_path))


def test_the_option_measures_records_against_the_context(letters: Path):
    trajectory = run_of("x" * 3_000, "y" * 3_000)
    options = {"model": "m", "context_tokens": 9_000, "max_tokens": 100}
    with ScriptedServer([good(ANSWER)] * 2) as server:
        options["base_url"] = server.url
        estimated = OracleSelector(OracleOptions(**options))
        counted = OracleSelector(OracleOptions(**options, tokenizer=letters))
        whole, cut = estimated.label(trajectory), counted.label(trajectory)
    assert whole[0].reason == "r"
    assert "2 of 2 observations shortened" in cut[0].reason
    sent = [letters_of(asked.body) for asked in server.asked]
    assert sent[0] > 8_900
    assert 8_300 < sent[1] <= 8_900


def test_labels_are_made_again_where_counting_changes_and_only_there(letters: Path, tmp_path: Path):
    words = save_tokenizer(tmp_path / "words.json", " ")
    elsewhere = tmp_path / "copy.json"
    elsewhere.write_bytes(letters.read_bytes())

    def version(**options) -> str:
        return OracleSelector(OracleOptions(model="m", **options)).version

    counted = [
        version(context_tokens=9_000, tokenizer=place)
        for place in (None, letters, elsewhere, words)
    ]
    assert counted[1] == counted[2]
    assert len(set(counted)) == 3
    # Without context_tokens nothing is shortened, and counting decides nothing.
    assert version(tokenizer=letters) == version()


def test_a_dry_run_counts_with_the_same_tokenizer(letters: Path):
    options = OracleOptions(model="m", tokenizer=letters)
    plan = plan_requests([run_of("here", "there")], options, 0.3)
    [request] = plan.requests
    schema = len(str(request.body["response_format"]))
    found = estimate(plan, None, tokenizer=options.tokenizer)
    # Two messages and a schema, each with its marks around it.
    assert found.prompt_tokens == letters_of(request.body) + schema + 3 * 4
    assert found.counted_by == f"counted with {letters}"
    assert OracleSelector(options).cost([run_of("here", "there")]).read_tokens == (
        found.prompt_tokens
    )


def question_letters(letters: Path) -> int:
    """What the longest question about the run below takes, by the figures of a refusal."""
    options = OracleOptions(model="m", context_tokens=200, max_tokens=1, tokenizer=letters)
    with pytest.raises(CannotLabel) as refused:
        OracleSelector(options).label(run_of("gone"))
    [needed] = re.findall(r"needs ([\d,]+) tokens", str(refused.value))
    return int(needed.replace(",", ""))


@pytest.mark.parametrize(
    ("free", "limits"),
    [
        (200, [100, 200]),  # twice as much fits
        (999, [100, 200]),  # and is all that is asked for
        (150, [100, 150]),  # half more fits
        (125, [100, 125]),
        (124, [100]),  # so little more is no second call worth
        (100, [100]),
    ],
)
def test_an_answer_is_enlarged_as_far_as_the_context_goes(
    letters: Path, tmp_path: Path, free: int, limits: list[int]
):
    context = question_letters(letters) + free
    options = {"model": "m", "context_tokens": context, "max_tokens": 100, "tokenizer": letters}
    journal = Journal(tmp_path / "j.sqlite")
    with ScriptedServer([good("{", "length")] * 2) as server:
        checked = OracleOptions(**options, base_url=server.url)
        selector = OracleSelector(checked, journal=journal)
        with pytest.raises(CannotLabel) as refused:
            selector.label(run_of("gone"))
        assert [asked.body["max_tokens"] for asked in server.asked] == limits
        for asked in server.asked:
            assert letters_of(asked.body) + asked.body["max_tokens"] <= context
        # The plan knows what the oracle would do: nothing more.
        plan = plan_requests([run_of("gone")], checked, 0.3, look=journal.stored)
        assert plan.requests == [] and len(plan.unlabelled) == 1
    journal.close()
    said = str(refused.value)
    assert "raise the oracle's max_tokens" in said or free < 200
    assert (f"{free:,} tokens of the oracle's context_tokens are free" in said) == (free < 200)


def test_a_plan_enlarges_as_far_as_the_context_goes(letters: Path, tmp_path: Path):
    context = question_letters(letters) + 150
    options = OracleOptions(model="m", context_tokens=context, max_tokens=100, tokenizer=letters)
    journal = Journal(tmp_path / "j.sqlite")
    [first] = plan_requests([run_of("gone")], options, 0.3).requests
    journal.answered(first.key, good("{", "length").body.decode())
    [larger] = plan_requests([run_of("gone")], options, 0.3, look=journal.stored).requests
    journal.close()
    assert (larger.key, larger.body["max_tokens"]) == (first.key, 150)


def test_a_context_without_room_for_a_question_is_refused():
    for options in ({"context_tokens": 4096}, {"context_tokens": 50, "max_tokens": 60}):
        with pytest.raises(UsageError, match="longest answer alone may have"):
            OracleOptions(model="m", **options)
    assert OracleOptions(model="m", context_tokens=4097).answer_tokens == 4096
