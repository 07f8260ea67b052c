import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from atlas_tune.errors import UsageError
from atlas_tune.llm.limits import answer_limit
from atlas_tune.llm.prices import Price
from atlas_tune.llm.spending import BudgetSpent, Spending, most_tokens

PRICE = Price(input=1.0, output=1.0)  # so that a million tokens of any kind cost a dollar
HELLO = {"model": "m", "messages": [{"role": "user", "content": "x" * 984}], "max_tokens": 996}
WORST = (most_tokens(HELLO) + 996) / 1e6


def used(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def test_a_call_reserves_its_worst_case_and_settles_with_what_it_used():
    spending = Spending(PRICE, 1.0)
    with spending.call(HELLO) as call:
        assert call.worst_usd == pytest.approx(WORST)
        assert spending.left_usd == pytest.approx(1.0 - WORST)
        assert spending.spent_usd == 0
        call.settle(used(250, 50))
    assert spending.spent_usd == pytest.approx(300 / 1e6)
    assert spending.left_usd == pytest.approx(1.0 - 300 / 1e6)


def test_calls_in_flight_count_before_they_are_answered():
    spending = Spending(PRICE, 2.5 * WORST)
    first, second = spending.call(HELLO), spending.call(HELLO)
    with pytest.raises(BudgetSpent, match="Raise --budget-usd"):
        spending.call(HELLO)
    first.settle(used(10, 10))
    third = spending.call(HELLO)  # the first took less than it had reserved
    second.release()
    third.release()
    assert spending.spent_usd == pytest.approx(20 / 1e6)


def test_a_call_of_unknown_fate_is_spent_at_its_worst():
    spending = Spending(PRICE, 1.0)
    with pytest.raises(TimeoutError), spending.call(HELLO):
        raise TimeoutError
    assert spending.spent_usd == pytest.approx(WORST)


def test_a_refused_call_costs_nothing():
    spending = Spending(PRICE, 1.0)
    with spending.call(HELLO) as call:
        call.release()
    assert spending.spent_usd == 0
    assert spending.left_usd == 1.0


def test_a_server_that_reports_no_usage_is_counted_at_its_worst_and_said():
    spending = Spending(PRICE, 1.0)
    with spending.call(HELLO) as call:
        call.settle({})
    assert spending.spent_usd == pytest.approx(WORST)
    assert spending.unpriced == 1


def test_what_an_earlier_run_spent_counts():
    spending = Spending(PRICE, WORST * 1.5, spent_usd=WORST)
    with pytest.raises(BudgetSpent):
        spending.call(HELLO)


def test_many_threads_together_never_overrun_the_budget():
    budget = 20.5 * WORST
    spending = Spending(PRICE, budget)
    together = threading.Barrier(16)
    made = []

    def work() -> None:
        together.wait()
        for _ in range(50):
            try:
                with spending.call(HELLO) as call:
                    made.append(call.worst_usd)
                    call.settle(used(most_tokens(HELLO), 996))  # every call is its worst case
            except BudgetSpent:
                return

    with ThreadPoolExecutor(16) as pool:
        for one in [pool.submit(work) for _ in range(16)]:
            one.result()
    assert len(made) == 20
    assert spending.spent_usd <= budget


def test_without_a_budget_the_count_goes_on_without_a_limit():
    spending = Spending(PRICE)
    with spending.call({"model": "m", "messages": HELLO["messages"]}) as call:
        call.settle(used(1_000_000, 0))
    assert spending.spent_usd == pytest.approx(1.0)
    assert spending.left_usd is None


def test_without_a_price_calls_are_made_and_known_to_be_unpriced():
    spending = Spending(None)
    with spending.call(HELLO) as call:
        call.settle(used(5, 5))
    assert (spending.spent_usd, spending.unpriced) == (0.0, 1)


def test_a_budget_without_a_price_is_refused_before_any_call():
    with pytest.raises(UsageError, match="none is known"):
        Spending(None, 5.0)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_is_above_nothing(budget: float):
    with pytest.raises(UsageError, match="above 0"):
        Spending(PRICE, budget)


def test_a_budget_needs_a_limit_on_the_answers():
    with pytest.raises(UsageError, match="max_tokens"):
        Spending(PRICE, 5.0).call({"model": "m", "messages": []})


def test_a_batch_is_reserved_at_its_own_price():
    half = Price(input=1.0, output=1.0, batch=0.5)
    call = Spending(half, 1.0, batch=True).call(HELLO)
    assert call.worst_usd == pytest.approx(WORST / 2)
    with pytest.raises(UsageError, match="price of a batch"):
        Spending(PRICE, 1.0, batch=True)


def test_the_worst_case_counts_every_byte_every_field_and_every_answer():
    text = "naïve 🙂 \ud83d"
    plain = {"messages": [{"role": "user", "content": text}]}
    assert most_tokens(plain) >= len(text.encode("utf-8", "surrogatepass"))
    assert most_tokens({**plain, "response_format": {"type": "x" * 500}}) > most_tokens(plain) + 500
    assert answer_limit({"max_tokens": 5}) == 5
    assert answer_limit({"max_tokens": 5, "max_completion_tokens": 7}) == 7
    assert answer_limit({"max_tokens": 5, "n": 3}) == 15
    assert answer_limit({"max_tokens": None}) is None
