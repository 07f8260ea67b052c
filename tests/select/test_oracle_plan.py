import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vault import record

from atlas_tune.cli.asking import Asking, OracleAsking
from atlas_tune.errors import UsageError
from atlas_tune.llm import Journal
from atlas_tune.llm.prices import Price
from atlas_tune.select import select
from atlas_tune.select.oracle import OracleOptions, OracleSelector
from atlas_tune.select.oracle.estimate import estimate
from atlas_tune.select.oracle.plan import plan_requests
from atlas_tune.select.shares import parse_expected, shares_of
from atlas_tune.trajectory import Kind, Selection, Trajectory
from atlas_tune.trajectory.files import read_runs
from atlas_tune.trajectory.store import append_labels
from llm.batch_server import BatchServer, completion
from scripted_server import ScriptedServer, good
from shared_data import shared_data

OPTIONS = OracleOptions(model="m", base_url="http://127.0.0.1:9/v1", max_tokens=100)
PRICES = "models: {m: {input: 1, output: 1, batch: 0.5}}"


def runs(count: int) -> list[Trajectory]:
    return [
        record("take red key", *["look"] * i, "open door", "take gold", as_task=f"task-{i}")
        for i in range(count)
    ]


def answer(body: dict[str, Any]) -> str:
    """An answer that fits: it quotes the first step that the agent wrote."""
    shown = body["messages"][1]["content"]
    title, words = next(
        part.split("\n", 1) for part in shown.split("\n\n") if "] step " in part.split("\n")[0]
    )
    step = {
        "step_id": int(title.rsplit(" ", 1)[1]),
        "kind": "critical_action",
        "reason": "it decides",
        "quote": words.split("\n")[0],
    }
    return json.dumps({"plan": [{"subgoal": "win"}], "critical_steps": [step]})


@pytest.fixture
def journal(tmp_path: Path):
    found = Journal(tmp_path / "j.sqlite")
    yield found
    found.close()


def asking(
    tmp_path: Path, journal: Journal, some: list[Trajectory], options=OPTIONS, **how: Any
) -> OracleAsking:
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    how.setdefault("prices", prices)
    return OracleAsking(Asking(**how), options, 0.3, journal, tmp_path / "labels.jsonl", some)


def test_the_plan_is_what_the_oracle_then_asks(journal: Journal):
    some = runs(4)
    with ScriptedServer(lambda asked: good(answer(asked.body))) as server:
        options = OPTIONS.model_copy(update={"base_url": server.url})
        plan = plan_requests(some, options, 0.3)
        found = select(some, OracleSelector(options, journal=journal))
    assert not found.unlabelled
    assert {request.key for request in plan.requests} == set(journal.states())
    for request, asked in zip(plan.requests, sorted(server.asked, key=_length), strict=True):
        # All but the nonce, of which each has its own.
        assert request.body.keys() == asked.body.keys()
        assert request.body["max_tokens"] == asked.body["max_tokens"] == 100
        assert len(str(request.body)) == len(str(asked.body))


def _length(asked: Any) -> int:
    """The runs grow longer one by one."""
    return len(asked.body["messages"][1]["content"])


def test_every_request_has_a_nonce_of_its_own_and_a_key_without_it():
    first, second = plan_requests(runs(3), OPTIONS, 0.3), plan_requests(runs(3), OPTIONS, 0.3)
    assert [r.key for r in first.requests] == [r.key for r in second.requests]
    marks = {
        r.body["messages"][1]["content"].split("\n")[0] for r in first.requests + second.requests
    }
    assert len(marks) == 6


def test_answered_and_labelled_trajectories_are_not_planned(journal: Journal, tmp_path: Path):
    some = runs(4)
    requests = plan_requests(some, OPTIONS, 0.3).requests
    journal.answered(requests[0].key, good(answer(requests[0].body)).body.decode())
    journal.answered(requests[1].key, good(answer(requests[1].body)).body.decode())
    labels = OracleSelector(OPTIONS, client=_stored_only(journal)).label(some[0])
    plan = plan_requests(some, OPTIONS, 0.3, done=labels, look=journal.stored)
    assert (plan.labelled, plan.ready, plan.cached) == (1, 1, 1)
    assert [r.key for r in plan.requests] == [r.key for r in requests[2:]]


def _stored_only(journal: Journal):
    from atlas_tune.select.oracle.plan import Plan, PlanningClient

    return PlanningClient(OPTIONS, journal.stored, Plan())


def test_an_unusable_answer_plans_the_second_question(journal: Journal):
    [first] = plan_requests(runs(1), OPTIONS, 0.3).requests
    journal.answered(first.key, good("no idea").body.decode())
    [second] = plan_requests(runs(1), OPTIONS, 0.3, look=journal.stored).requests
    assert second.key != first.key
    assert len(second.body["messages"][1]["content"]) > len(first.body["messages"][1]["content"])


def test_an_answer_that_was_cut_short_plans_a_larger_limit_once(journal: Journal):
    [first] = plan_requests(runs(1), OPTIONS, 0.3).requests
    journal.answered(first.key, good("{", "length").body.decode())
    [larger] = plan_requests(runs(1), OPTIONS, 0.3, look=journal.stored).requests
    assert (larger.key, larger.body["max_tokens"]) == (first.key, 200)
    journal.answered(first.key, good('{"', "length").body.decode())
    plan = plan_requests(runs(1), OPTIONS, 0.3, look=journal.stored)
    assert plan.requests == []
    assert len(plan.unlabelled) == 1


def test_all_samples_of_a_question_are_planned_at_once():
    options = OPTIONS.model_copy(update={"samples": 3, "temperature": 1.0})
    assert len({r.key for r in plan_requests(runs(2), options, 0.3).requests}) == 6


def test_an_estimate_says_how_it_was_made_and_what_it_does_not_know():
    plan = plan_requests(runs(2), OPTIONS, 0.3)
    characters = sum(
        len(str(r.body["response_format"])) + sum(len(m["content"]) for m in r.body["messages"])
        for r in plan.requests
    )
    found = estimate(plan, Price(input=1.0, output=2.0, batch=0.5))
    assert found.counted_by == "estimated: characters / 4"
    # Two messages and a schema a request, each rounded up and with its marks around it.
    assert 0 <= found.prompt_tokens - characters / 4 <= 2 * 3 * 5
    assert found.completion_tokens == 200  # the limit is below what is assumed
    assert found.usd == pytest.approx((found.prompt_tokens + 2 * 200) / 1e6)
    # Two questions, each cut off at 100 and again at 200.
    assert found.worst_completion_tokens == 2 * 2 * (100 + 200)
    assert found.worst_prompt_tokens == 4 * found.prompt_tokens
    assert estimate(plan, None).usd is None
    assert estimate(plan, Price(input=1, output=1), batch=True).usd is None
    assert estimate(plan, None, answers=(10, 500)).completion_tokens == 100


def test_without_a_limit_the_worst_is_unknown_and_not_nothing():
    plan = plan_requests(runs(1), OPTIONS.model_copy(update={"max_tokens": None}), 0.3)
    found = estimate(plan, Price(input=1.0, output=1.0))
    assert found.usd is not None
    assert (found.worst_usd, found.worst_completion_tokens) == (None, None)


def test_a_tokenizer_counts(tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.enable_truncation(5)
    words.save(str(tmp_path / "tokenizer.json"))
    plan = plan_requests(runs(1), OPTIONS, 0.3)
    body = plan.requests[0].body
    count = sum(len(m["content"].split()) for m in body["messages"])
    found = estimate(plan, None, tokenizer=tmp_path)
    assert count < found.prompt_tokens < count + len(str(body["response_format"]).split()) + 20
    with pytest.raises(UsageError, match="no tokenizer at"):
        estimate(plan, None, tokenizer=tmp_path / "nowhere")


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path, capsys):
    with ScriptedServer([]) as server:
        options = OPTIONS.model_copy(update={"base_url": server.url})
        journal = Journal(tmp_path / "j.sqlite")
        found = asking(tmp_path, journal, runs(3), options, dry_run=True).dry_run()
        assert server.asked == []
    assert found["requests"] == 3
    assert found["usd"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prices.yaml"]
    unknown = OPTIONS.model_copy(update={"model": "stranger"})
    found = asking(tmp_path, journal, runs(3), unknown, dry_run=True).dry_run()
    assert (found["usd"], found["worst_usd"]) == (None, None)
    assert "cost                       unknown" in capsys.readouterr().err


def test_a_batch_goes_out_and_its_answers_label_without_a_server(tmp_path: Path, journal: Journal):
    some = runs(5)
    out = asking(tmp_path, journal, some, batch_out=tmp_path / "out", most_requests=2)
    written = out.write_batch()
    assert (written["requests"], len(written["files"])) == (5, 3)
    assert set(journal.states().values()) == {"planned"}
    results = tmp_path / "results.jsonl"
    with results.open("w") as file:
        for path in reversed(written["files"]):
            for line in Path(path).read_text().splitlines():
                request = json.loads(line)
                body = json.loads(good(answer(request["body"])).body)
                response = {"status_code": 200, "request_id": "r", "body": body}
                result = {"custom_id": request["custom_id"], "response": response, "error": None}
                file.write(json.dumps(result) + "\n")
    back = asking(tmp_path, journal, some, batch_in=(results,))
    assert back.read_batch().stored == 5
    found = select(some, back.selector())
    assert len(found.selections) == 5 and not found.unlabelled
    assert set(journal.states().values()) == {"accepted"}
    append_labels(tmp_path / "labels.jsonl", found.labels)
    again = asking(tmp_path, journal, some, batch_in=(results,)).read_batch()
    assert (again.stored, again.duplicates, again.unknown) == (0, 5, [])


def test_with_result_files_nothing_is_asked_and_the_rest_is_listed(
    tmp_path: Path, journal: Journal
):
    empty = tmp_path / "results.jsonl"
    empty.write_text("")
    with ScriptedServer([]) as server:
        options = OPTIONS.model_copy(update={"base_url": server.url})
        back = asking(tmp_path, journal, runs(2), options, batch_in=(empty,))
        back.read_batch()
        found = select(runs(2), back.selector())
        assert server.asked == []
    assert [one.reason for one in found.unlabelled] == ["not asked yet"] * 2


def test_batches_are_driven_through_second_questions_to_labels(tmp_path: Path, journal: Journal):
    some = runs(6)

    def reply(line: dict[str, Any]) -> dict[str, Any]:
        is_second = "could not be used" in line["body"]["messages"][1]["content"]
        is_odd = len(line["body"]["messages"][1]["content"]) % 2
        return completion(answer(line["body"]) if is_second or is_odd else "no idea")

    with BatchServer(reply) as server:
        options = OPTIONS.model_copy(update={"base_url": server.url})
        how = {"batch_submit": True, "poll_seconds": 0.01}
        run = asking(tmp_path, journal, some, options, **how)
        run.submit()
        found = select(some, run.selector())
        assert len(found.selections) == 6
        assert 1 <= len(server.batches) <= 2
        paid = journal.summary().calls
        again = asking(tmp_path, journal, some, options, **how)
        again.submit()
        assert journal.summary().calls == paid
    # Half price, as of a batch.
    told = run.summary(found.selections, found.labels)
    assert told["usd"] == pytest.approx(paid * (7 + 3) / 1e6 / 2)


def test_a_batch_stays_within_the_budget(tmp_path: Path, journal: Journal):
    out = asking(tmp_path, journal, runs(9), batch_out=tmp_path / "out", budget_usd=0.01)
    written = out.write_batch()
    assert 0 < written["requests"] < 9
    assert written["over_budget"] == 9 - written["requests"]


@pytest.mark.shared_data
def test_every_real_run_is_planned_once(tmp_path: Path, journal: Journal):
    source = shared_data() / "agenttraj-l" / "textcraft.jsonl.xz"
    store = tmp_path / "runs.jsonl"
    command = [sys.executable, "-c", "from atlas_tune.cli import main; main()", "import"]
    subprocess.run([*command, source, "-o", store], check=True, capture_output=True)
    some = list(read_runs(store, lambda bad: pytest.fail(str(bad))))
    found = asking(tmp_path, journal, some, dry_run=True).dry_run()
    assert found["requests"] == len({one.trajectory_id for one in some}) == 374
    assert found["unlabelled"] == 0


def test_a_budget_stops_cleanly_and_holds_over_runs(tmp_path: Path, journal: Journal):
    some = runs(8)

    def reply(asked: Any):
        document = json.loads(good(answer(asked.body)).body)
        # Eight of these are over the budget, however few of them are in flight at a time.
        document["usage"] = {"prompt_tokens": 2900, "completion_tokens": 100}
        return good("").__class__(json.dumps(document).encode())

    with ScriptedServer(reply) as server:
        options = OPTIONS.model_copy(update={"base_url": server.url, "concurrency": 4})
        run = asking(tmp_path, journal, some, options, budget_usd=0.02)
        found = select(some, run.selector())
        paid = len(server.asked)
        assert 0 < paid < 8
        assert len(found.selections) == paid  # what was asked is labelled
        assert len(found.unlabelled) == 8 - paid
        assert all(one.reason.startswith("budget: ") for one in found.unlabelled)
        assert run.spending.spent_usd == pytest.approx(paid * 3000 / 1e6)
        # A second run with the same budget has what the first one left, and no more.
        again = asking(tmp_path, journal, some, options, budget_usd=0.02)
        assert again.spending.spent_usd == pytest.approx(paid * 3000 / 1e6)
        assert len(select(some, again.selector()).selections) >= paid
        assert len(server.asked) * 3000 / 1e6 <= 0.02


def test_a_budget_needs_a_price_before_the_first_call(tmp_path: Path, journal: Journal):
    unknown = OPTIONS.model_copy(update={"model": "stranger"})
    with pytest.raises(UsageError, match="none is known"):
        asking(tmp_path, journal, runs(1), unknown, budget_usd=1.0)


def test_the_cost_of_asking_is_that_of_the_first_questions(journal: Journal):
    some = runs(3)
    cost = OracleSelector(OPTIONS, journal=journal).cost(some)
    planned = estimate(plan_requests(some, OPTIONS, 0.3), None)
    assert cost.read_tokens == planned.prompt_tokens > 3 * 500
    assert cost.written_tokens == 3 * (OPTIONS.max_tokens or 0) == 300
    assert cost.rollouts == cost.env_steps == 0


def test_options_of_an_oracle_are_refused_elsewhere_and_exclude_each_other(tmp_path: Path):
    Asking(dry_run=True).check("replay")
    with pytest.raises(UsageError, match="for the selector 'oracle'"):
        Asking(dry_run=True, budget_usd=1.0).check("replay")
    with pytest.raises(UsageError, match="choose one"):
        Asking(dry_run=True, batch_submit=True).check("oracle")
    with pytest.raises(UsageError, match="choose one"):
        Asking(batch_in=(tmp_path,), batch_out=tmp_path).check("oracle")


def test_the_summary_counts_shares_by_kind_and_alarms(tmp_path: Path, journal: Journal):
    some = runs(3)
    with ScriptedServer(lambda asked: good(answer(asked.body))) as server:
        options = OPTIONS.model_copy(update={"base_url": server.url})
        run = asking(tmp_path, journal, some, options)
        found = select(some, run.selector())
        told = run.summary(found.selections, found.labels)
    assert (told["calls"], told["failed"], told["unknown"]) == (3, 0, 0)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (21, 9)
    assert told["usd"] == pytest.approx(30 / 1e6)
    [environment] = told["environments"]
    assert environment["kinds"].keys() == {"critical_action"}
    assert environment["share"] == pytest.approx(environment["selected"] / environment["steps"])


def test_a_share_outside_its_range_raises_an_alarm():
    some = runs(4)
    none = [Selection(t.trajectory_id, (), "r") for t in some]
    every = [
        Selection(t.trajectory_id, tuple(step.step_id for step in t.agent_steps), "r") for t in some
    ]
    name = some[0].environment
    [low] = shares_of(some, none, [], 0.3)
    [high] = shares_of(some, every, [], 0.3)
    assert low.alarm is not None and "0.0% of" in low.alarm
    assert high.alarm is not None and "100.0% of" in high.alarm
    [given] = shares_of(some, every, [], 0.3, {name: (0.5, 1.0)})
    assert given.alarm is None and given.is_chosen
    assert given.kinds == {"no kind": 1.0} and Kind.NONE not in given.kinds
    with pytest.raises(UsageError, match="no trajectory is of that environment"):
        shares_of(some, every, [], 0.3, {"elsewhere": (0.0, 1.0)})


def test_ranges_are_read_or_refused():
    assert parse_expected(["a=0.1-0.3", "b=c=0-1"]) == {"a": (0.1, 0.3), "b=c": (0.0, 1.0)}
    for wrong in ("a", "a=0.3", "a=0.3-0.1", "=0-1", "a=x-y", "a=0-2", "a=nan-1"):
        with pytest.raises(UsageError, match="--expect takes"):
            parse_expected([wrong])
