import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import synthetic_results as synthetic

from atlas_tune.report import Arm, Environment, Results, write_report
from atlas_tune.report.palette import looks

ATTACK = "<script>alert(1)</script><img src=https://evil.example/x.png> & \"quoted\" 'too' $x_1$"
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Nesting(HTMLParser):
    """Collects the elements of a page and refuses what is not properly nested."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing, line {self.getpos()[0]}"

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    parser = Nesting()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def page_of(results, tmp_path):
    return write_report(results, tmp_path).read_text(encoding="utf-8")


def without(results, /, **changes):
    return Results.model_validate(results.model_dump() | changes)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(synthetic.results(), tmp_path_factory.mktemp("report"))


def test_the_page_is_properly_nested_and_its_links_lead_somewhere(page):
    parsed = read(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    referred = re.findall(r"url\(#([^)]+)\)", page)
    assert referred
    assert set(referred) <= set(parsed.ids)


def test_the_page_loads_nothing(page):
    tags = {tag for tag, _ in read(page).tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "form"}
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    policy = next(a["content"] for t, a in read(page).tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_the_same_results_give_the_same_bytes(page, tmp_path):
    assert page_of(synthetic.results(), tmp_path) == page


@pytest.mark.parametrize(
    "number",
    [
        "64.0%",
        "54.2–72.7%",  # success of `critical` on textcraft and its Wilson interval
        "0.580",
        "0.500 to 0.660",  # mean reward of `all` on babyai and its interval
        "0.345",
        "0.690",  # the same after Holm
        "−4.0 to +16.0",
        "54.2–72.7</span>",  # times 100 in the table of training signals
        "756 TFLOP",
        "&lt; 0.001",
        "≈ cannot tell",
        "▲ better",
        "900 × 1",
        "200,900",
        "59,942",
        "674,825",
        "16.9%",
        "20 min 34 s",
        "1.432 → 0.211",
        "1,462 of 4,900",
        "29.8%",
        "960",
        "65.7%",
        "at most 30%",
        "374",
        "2,900",
        "95.0%",
        "1 min 15 s",
        "textcraft.jsonl, line 17",
    ],
)
def test_the_tables_hold_the_numbers(page, number):
    assert number in page


def test_every_score_stands_in_the_table_of_measurements(page):
    for result in synthetic.results().results:
        assert f"{result.successes} of {result.tasks}" in page
        assert f"{100 * result.success_rate:.1f}%" in page


def test_notes_stand_in_the_summary(page):
    assert page.index("These numbers are invented.") < page.index('<section id="scores">')


def test_critical_steps_are_marked_by_words_as_well_as_colour(page):
    steps = re.findall(r'<li class="step ([^"]*)">(.*?)</li>', page, flags=re.DOTALL)
    assert len(steps) == 5 * 7
    for classes, content in steps:
        assert ("critical" in classes) == ("◆ critical" in content)
    assert sum("critical" in classes for classes, _ in steps) == 5 * 2


def test_an_injected_script_stays_text(tmp_path):
    results = synthetic.results()
    step = (
        results.examples[0]
        .steps[2]
        .model_copy(
            update={"text": ATTACK, "observation": ATTACK, "reason": ATTACK, "kind": ATTACK}
        )
    )
    example = results.examples[0].model_copy(update={"steps": (step,), "task_id": ATTACK})
    hostile = without(
        results,
        examples=[example.model_dump()],
        name=ATTACK,
        recipe=ATTACK,
        command=ATTACK,
        notes=[ATTACK],
        machine={ATTACK: ATTACK},
        quarantined=[{"place": ATTACK, "reason": ATTACK}],
    )
    parsed = read(page_of(hostile, tmp_path))
    assert not {tag for tag, _ in parsed.tags} & {"script", "img"}
    assert "".join(parsed.text).count(ATTACK) >= 10


def test_an_injected_script_in_a_name_stays_text(tmp_path):
    text = synthetic.results().model_dump_json()
    for name in ("complement", "babyai"):
        text = text.replace(f'"{name}"', f'"{name}<script>$a_b$</script>"')
    parsed = read(page_of(Results.model_validate_json(text), tmp_path))
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert any("$a_b$" in words for words in parsed.text)


def test_control_characters_are_shown_and_half_characters_replaced(tmp_path):
    results = synthetic.results().model_dump()
    results["examples"][0]["steps"][0]["text"] = "bell \x07 nul \x00 half \ud83d end"
    assert "bell ␇ nul ␀ half \N{REPLACEMENT CHARACTER} end" in page_of(results, tmp_path)


def test_several_seeds_give_a_range_of_seeds_not_a_narrower_interval(tmp_path):
    page = page_of(synthetic.results(seeds=(0, 1, 2)), tmp_path)
    assert "3 seeds 63.0–66.0%" in page
    read(page)


def test_a_run_with_one_untuned_arm_has_a_page(tmp_path):
    bare = without(
        synthetic.results(),
        losses=[],
        comparisons=[],
        reward_per_step=[],
        task_scores=[],
        failures=[],
        transcripts=[],
        examples=[],
        data=[],
        notes=[],
        quarantined=[],
        machine={},
        arms=[Arm(name="untuned", selector="").model_dump()],
        results=[r.model_dump() for r in synthetic.results().results if r.arm == "untuned"],
    )
    page = page_of(bare, tmp_path)
    read(page)
    for sentence in (
        "No paired comparison was made",
        "No arm was tuned",
        "kept no rewards by turn",
        "kept no count of how episodes ended",
        "not tuned",
        "kept no example trajectories",
        "lists no training data",
    ):
        assert sentence in page


def test_an_environment_without_results_is_said_to_have_none(tmp_path):
    results = synthetic.results()
    more = [
        *results.environments,
        Environment(name="maze", split="test", tasks=25, max_steps=15, metric="success"),
    ]
    page = page_of(without(results, environments=[e.model_dump() for e in more]), tmp_path)
    assert "Nothing was evaluated on maze." in page
    assert "not evaluated" in page


def test_many_arms_all_look_different(tmp_path):
    arms = [Arm(name=f"arm-{i}", selector="random", reference=True) for i in range(20)]
    results = Results.model_validate(
        synthetic.results().model_dump()
        | {
            "arms": [a.model_dump() for a in arms],
            "results": [],
            "comparisons": [],
            "losses": [],
            "reward_per_step": [],
            "task_scores": [],
            "failures": [],
            "transcripts": [],
        }
    )
    drawn = {(look.paint, look.marker, look.dashes) for look in looks(results).values()}
    assert len(drawn) == 20


def test_the_report_needs_no_torch_and_loads_matplotlib_late():
    check = (
        "import sys, atlas_tune.report; assert 'matplotlib' not in sys.modules;"
        "import atlas_tune.report.page; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
