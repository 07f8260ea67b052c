"""Every dialect of AgentGym's servers, against servers that answer in AgentGym's documented shapes.

The bodies and replies below were read off AgentGym's servers and clients (commit 3ef9235).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import pytest
from gym_server import Answer, Broken, GymServer

from atlas_tune.environments import ENVIRONMENT_NAMES, check_environment, make_environment
from atlas_tune.environments.agentgym import DIALECTS, Address
from atlas_tune.environments.agentgym.indices import parse_indices
from atlas_tune.environments.agentgym.remote import Remote
from atlas_tune.environments.base import EnvironmentLost, TextEnv
from atlas_tune.errors import AtlasError, UsageError


@dataclass(frozen=True)
class Shape:
    """What a dialect's server replies, and what the client must make of it."""

    dialect: str
    task_id: str
    create: Any
    reset: Any
    step: Any
    asked: list[tuple[str, dict[str, Any]]]
    opening: str
    observation: str
    reward: float
    success: bool
    action: str = "go on"
    others: dict[str, Any] | None = None
    """What other paths reply."""


def tool(name: str) -> Shape:
    """The five tool servers answer alike."""
    return Shape(
        name,
        f"{name}_4",
        create=7,
        reset="Now new trial starts.",
        step={"observation": "Observation: 3\nGive me one action.", "reward": 1.0, "done": True},
        others={"GET /observation": "Goal: x\nGive me one action."},
        action='finish with Action Input: {"answer": 3}',
        asked=[
            ("POST /create", {"id": 0}),
            ("POST /reset", {"env_idx": 7, "id": 4}),
            ("GET /observation", {"env_idx": "7"}),
            (
                "POST /step",
                {"env_idx": 7, "action": 'Action: finish with Action Input: {"answer": 3}'},
            ),
        ],
        opening="Goal: x\nGive me one action.",
        observation="Observation: 3\nGive me one action.",
        reward=1.0,
        success=True,
    )


SHAPES = [
    Shape(
        "textcraft",
        "textcraft_17",
        create={"id": 0, "observation": "Crafting commands:", "done": False, "reward": 0},
        reset={"id": 0, "observation": "Goal: craft a stick.", "done": False, "reward": 0},
        step={"observation": "Crafted 4 minecraft:stick", "reward": 1, "done": True},
        action='craft 4 "stick" using 2 oak planks.',
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"id": 0, "data_idx": 17}),
            ("POST /step", {"id": 0, "action": "craft 4 stick using 2 oak planks"}),
        ],
        opening="Goal: craft a stick.",
        observation="Crafted 4 minecraft:stick",
        reward=1.0,
        success=True,
    ),
    Shape(
        "babyai",
        "babyai_41",
        create={"id": 3},
        reset={"observation": "Your goal: g", "reward": 0, "score": 0, "deleted": False},
        step={"observation": "The task is completed.", "reward": 0.5, "score": 0.9, "done": True},
        action="go to red-ball 1!",
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"id": 3, "data_idx": 41}),
            ("POST /step", {"id": 3, "action": "go to redball 1"}),
        ],
        opening="Your goal: g",
        observation="The task is completed.",
        reward=0.9,
        success=True,
    ),
    Shape(
        "alfworld",
        "alfworld_2420",
        create={"id": 1},
        reset={"id": 1, "observation": "A room.", "available_actions": ["look", "go to bed 1"]},
        step={"observation": "Won.", "reward": 1.0, "available_actions": [], "done": True},
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"id": 1, "world_type": "Text", "game": 2420}),
            ("POST /step", {"id": 1, "action": "go on"}),
        ],
        opening="A room.\nAVAILABLE ACTIONS: look,go to bed 1",
        observation="Won.",
        reward=1.0,
        success=True,
    ),
    Shape(
        "sciworld",
        "sciworld_5",
        create={"id": 0},
        reset={"task_description": "Boil water.", "observation": "A hall.", "score": 0},
        step={"observation": "Done.", "reward": 67, "score": 100, "done": True},
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"id": 0, "data_idx": 5}),
            ("POST /step", {"id": 0, "action": "go on"}),
        ],
        opening="Boil water.\nA hall.",
        observation="Done.",
        reward=100.0,
        success=True,
    ),
    Shape(
        "webshop",
        "webshop_9",
        create=48_000_000,
        reset=["ignored", None],
        step={"state": "Thank you", "reward": 0.5, "done": True, "info": None},
        others={"GET /observation": "WebShop [SEP] Search"},
        action="search[red shoes]",
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"env_idx": 48_000_000, "session_id": 9}),
            ("GET /observation", {"env_idx": "48000000"}),
            ("POST /step", {"env_idx": 48_000_000, "action": "search[red shoes]"}),
        ],
        opening="WebShop [SEP] Search",
        observation="Thank you",
        reward=0.5,
        success=False,
    ),
    Shape(
        "sqlgym",
        "sqlgym_9428",
        create=12,
        reset=["ignored", None],
        step={"state": "[(1,)]", "reward": 1, "done": True, "info": {}},
        others={"GET /observation": "How many?"},
        action="```sql SELECT 1; ```",
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"env_idx": 12, "item_id": 9428}),
            ("GET /observation", {"env_idx": "12"}),
            ("POST /step", {"env_idx": 12, "action": "SELECT 1;"}),
        ],
        opening="How many?",
        observation="[(1,)]",
        reward=1.0,
        success=True,
    ),
    Shape(
        "searchqa",
        "searchqa_2",
        create=5,
        reset="Who?",
        step={"observation": "Right.", "reward": 1.0, "done": True, "info": None},
        others={"GET /observation": "Who?"},
        action="<answer>me</answer>",
        asked=[
            ("POST /create", {"id": 0}),
            ("POST /reset", {"env_idx": 5, "id": 2}),
            ("GET /observation", {"env_idx": "5"}),
            ("POST /step", {"env_idx": 5, "action": "<answer>me</answer>"}),
        ],
        opening="Who?",
        observation="Right.",
        reward=1.0,
        success=True,
    ),
    Shape(
        "maze",
        "lmrlgym_maze_3",
        create={"id": 0},
        reset={"observation": "The goal is at position 8, 6."},
        step={"observation": "Success", "reward": 1.0, "done": True},
        asked=[
            ("POST /maze/create", {}),
            ("POST /maze/reset", {"id": 0, "game": 3}),
            ("POST /maze/step", {"id": 0, "action": "go on"}),
        ],
        opening="The goal is at position 8, 6.",
        observation="Success",
        reward=1.0,
        success=True,
    ),
    Shape(
        "wordle",
        "lmrlgym_wordle_0",
        create={"id": 0},
        reset={"id": 0, "observation": "Let's start Wordle!"},
        step={"observation": "g g b y b", "reward": 0.0, "done": True},
        others={"GET /wordle/filtered_vocab": ["apple", "bread"]},
        asked=[
            ("POST /wordle/create", {}),
            ("POST /wordle/reset", {"id": 0, "seed": 0}),
            ("GET /wordle/filtered_vocab", {"id": "0"}),
            ("POST /wordle/step", {"id": 0, "action": "go on"}),
        ],
        opening="Let's start Wordle!\nWords that may be guessed:\napple\nbread",
        observation="g g b y b",
        reward=0.0,
        success=False,
    ),
    Shape(
        "webarena",
        "webarena_1",
        create={"env_idx": 2},
        reset={"observation": "ignored", "sites": [], "object": None},
        step={
            "observation": "Page",
            "reward": 1.0,
            "terminated": True,
            "truncated": False,
            "info": {},
        },
        others={"GET /observation": "Start page"},
        action="click [4]",
        asked=[
            ("POST /create", {}),
            ("POST /reset", {"env_idx": 2, "seed": 0, "idx": 1}),
            ("GET /observation", {"env_idx": "2"}),
            ("POST /step", {"env_idx": 2, "action": "```click [4]```"}),
        ],
        opening="Start page",
        observation="Page",
        reward=1.0,
        success=True,
    ),
    *(tool(name) for name in ("weather", "movie", "academia", "todo", "sheet")),
]


def answering(shape: Shape) -> Answer:
    """The server of a shape."""

    def answer(request: str, fields: dict[str, Any]) -> Any:
        if shape.others and request in shape.others:
            return shape.others[request]
        return getattr(shape, request.rpartition("/")[2])

    return answer


def connect(server: GymServer, dialect: str) -> TextEnv:
    """The environment on a server."""
    return make_environment(f"agentgym:{dialect}@{server.url}")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.dialect)
def test_a_dialect_is_spoken_and_understood(shape: Shape) -> None:
    with GymServer(answering(shape)) as server:
        env = connect(server, shape.dialect)
        opening, begun = env.reset(options={"task_id": shape.task_id})
        observation, reward, terminated, truncated, info = env.step(shape.action)
    assert server.asked == shape.asked
    assert opening == shape.opening
    assert begun == {"success": False, "valid": True}
    assert (observation, reward, terminated, truncated) == (
        shape.observation,
        shape.reward,
        True,
        False,
    )
    assert info == {"success": shape.success, "valid": True}


def test_every_dialect_of_agentgym_is_tested() -> None:
    assert {shape.dialect for shape in SHAPES} == set(DIALECTS) - {"plain"}


def replying(steps: list[Any], reset: Any = None) -> Answer:
    """A server of the form of ScienceWorld's that plays these steps."""
    left = list(steps)

    def answer(request: str, fields: dict[str, Any]) -> Any:
        if request == "POST /create":
            return {"id": 0}
        if request == "POST /reset":
            return reset or {"task_description": "Task.", "observation": "Start."}
        return left.pop(0)

    return answer


def scored(score: float, observation: str = "Ok.", done: bool = False) -> dict[str, Any]:
    """A reply to a step."""
    return {"observation": observation, "reward": 99, "score": score, "done": done}


def test_the_rewards_of_the_steps_add_up_to_the_last_score() -> None:
    refused = "No known action matches that input."
    steps = [scored(10), scored(10, refused), scored(42), scored(30, done=True)]
    with GymServer(replying(steps)) as server:
        env = connect(server, "sciworld")
        env.reset(options={"task_id": "sciworld_0"})
        turns = [env.step("look around") for _ in steps]
    assert [turn[1] for turn in turns] == [10.0, 0.0, 32.0, -12.0]
    assert [turn[4]["valid"] for turn in turns] == [True, False, True, True]
    assert not any(turn[4]["success"] for turn in turns)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look around")


def test_an_error_in_a_reply_is_told_in_the_servers_words() -> None:
    with GymServer(replying([], {"error": "list index out of range"})) as server:
        env = connect(server, "sciworld")
        with pytest.raises(AtlasError, match=r"/reset says: list index out of range\.$") as caught:
            env.reset(options={"task_id": "sciworld_99999"})
    assert not isinstance(caught.value, EnvironmentLost)


def test_an_episode_that_the_server_forgot_is_lost() -> None:
    steps = [scored(1), {"error": "The id 0 is not valid."}, scored(1)]
    with GymServer(replying(steps)) as server:
        env = connect(server, "sciworld")
        env.reset(options={"task_id": "sciworld_0"})
        env.step("look around")
        with pytest.raises(EnvironmentLost, match="task can be started again"):
            env.step("look around")
        env.reset(options={"task_id": "sciworld_0"})
        assert env.step("look around")[0] == "Ok."
    assert [request for request, _ in server.asked].count("POST /create") == 2


def test_a_step_that_may_have_arrived_is_not_sent_again() -> None:
    with GymServer(replying([Broken()])) as server:
        env = connect(server, "sciworld")
        env.reset(options={"task_id": "sciworld_0"})
        with pytest.raises(EnvironmentLost, match="gave no whole answer"):
            env.step("look around")
    assert [request for request, _ in server.asked].count("POST /step") == 1


def test_a_busy_server_is_asked_again() -> None:
    steps = [Broken(503), Broken(429), scored(5)]
    with GymServer(replying(steps)) as server:
        env = connect(server, "sciworld")
        env.reset(options={"task_id": "sciworld_0"})
        assert env.step("look around")[1] == 5.0
    assert [request for request, _ in server.asked].count("POST /step") == 3


def test_a_server_that_breaks_on_a_step_loses_the_episode() -> None:
    with GymServer(replying([Broken(500, "Internal Server Error")])) as server:
        env = connect(server, "sciworld")
        env.reset(options={"task_id": "sciworld_0"})
        with pytest.raises(EnvironmentLost, match="broke with HTTP 500: Internal Server Error"):
            env.step("look around")


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Broken(404, "Not Found"), r"HTTP 404: Not Found\. Does this server speak"),
        ({"number": 1}, "without a number for the environment"),
        (Broken(200, "<html>"), "did not answer in JSON but: <html>"),
        ({"id": 1, "reward": 0}, "without a usable 'observation'"),
    ],
)
def test_a_server_of_another_kind_is_told_apart(reply: Any, told: str) -> None:
    with GymServer(lambda request, fields: reply) as server, pytest.raises(AtlasError, match=told):
        connect(server, "babyai").reset(options={"task_id": "babyai_0"})


def test_a_server_that_never_answered_is_a_wrong_address_not_a_lost_episode() -> None:
    with GymServer(lambda request, fields: None) as server:
        url = server.url
    env = make_environment(f"agentgym:babyai@{url}")
    with pytest.raises(AtlasError, match=r"cannot be reached.*address is right") as caught:
        env.reset(options={"task_id": "babyai_0"})
    assert not isinstance(caught.value, EnvironmentLost)


def test_a_server_that_hangs_loses_the_episode_after_one_wait() -> None:
    def answer(request: str, fields: dict[str, Any]) -> Any:
        if request == "POST /reset":
            time.sleep(0.6)
        return {"id": 0}

    with GymServer(answer) as server:
        remote = Remote(Address.parse(f"agentgym:babyai@{server.url}"), timeout=0.2)
        seat = remote.take()
        with pytest.raises(EnvironmentLost, match="ReadTimeout"):
            remote.ask("POST", "/reset", {"id": 0}, seat=seat)
    assert [request for request, _ in server.asked] == ["POST /create", "POST /reset"]


def test_webarenas_silent_failure_to_reset_is_a_lost_episode() -> None:
    replies = {"/create": {"env_idx": 1}, "/reset": {}, "/observation": "TimeoutError"}
    with GymServer(lambda request, fields: replies[request.split()[1]]) as server:
        env = connect(server, "webarena")
        with pytest.raises(EnvironmentLost, match="webarena_3: TimeoutError"):
            env.reset(options={"task_id": "webarena_3"})


def test_a_remote_environment_is_used_again_and_never_by_two() -> None:
    numbers = iter(range(100))

    def answer(request: str, fields: dict[str, Any]) -> Any:
        if request == "POST /create":
            return {"id": next(numbers)}
        return {"observation": "x", "score": 0, "done": request == "POST /step"}

    with GymServer(answer) as server:
        for _ in range(5):
            env = connect(server, "babyai")
            env.reset(options={"task_id": "babyai_0"})
            env.step("move forward")
        left = connect(server, "babyai")
        left.reset(options={"task_id": "babyai_0"})
        del left, env
        two = [connect(server, "babyai") for _ in range(2)]
        for env in two:
            env.reset(options={"task_id": "babyai_0"})
    assert [request for request, _ in server.asked].count("POST /create") == 2


def test_a_server_with_too_few_environments_is_refused() -> None:
    replies = {"/create": 8, "/reset": ["", None], "/observation": "x"}
    with GymServer(lambda request, fields: replies[request.split()[1]]) as server:
        first = connect(server, "sqlgym")
        first.reset(options={"task_id": "sqlgym_0"})
        with pytest.raises(AtlasError, match="environment 8 to two episodes"):
            connect(server, "sqlgym").reset(options={"task_id": "sqlgym_1"})


def test_an_old_episode_never_acts_in_the_environment_of_a_new_one() -> None:
    """A server that was started again counts from 0 and so gives an old number to a new episode."""
    breaks = iter([False, True, False, False])

    def answer(request: str, fields: dict[str, Any]) -> Any:
        if request == "POST /step" and next(breaks):
            return Broken()
        number = 1 if len([r for r, _ in server.asked if r == "POST /create"]) == 2 else 0
        return {"id": number, "observation": "x", "score": 0, "done": False}

    with GymServer(answer) as server:
        old, other = connect(server, "babyai"), connect(server, "babyai")
        old.reset(options={"task_id": "babyai_0"})
        other.reset(options={"task_id": "babyai_1"})
        old.step("move forward")
        with pytest.raises(EnvironmentLost):
            other.step("move forward")
        other.reset(options={"task_id": "babyai_1"})  # The server gives it number 0 now.
        with pytest.raises(EnvironmentLost, match="to another episode"):
            old.step("move forward")
        assert other.step("move forward")[0] == "x"


def test_tasks_are_named_by_agentgyms_ids() -> None:
    env = make_environment("agentgym:babyai@http://127.0.0.1:9")
    assert list(env.tasks("test", indices="0-2,41")) == [
        "babyai_0",
        "babyai_1",
        "babyai_2",
        "babyai_41",
    ]
    with pytest.raises(UsageError, match="does not tell which tasks its split 'test' has"):
        env.tasks("test")
    with pytest.raises(UsageError, match="did you mean 'indices'"):
        env.tasks("test", indicse="0-2")
    with pytest.raises(UsageError, match="has no split 'tset'"):
        env.tasks("tset")
    with pytest.raises(UsageError, match="no expert"):
        env.expert()
    with pytest.raises(UsageError, match="has no task 'textcraft_3'"):
        env.reset(options={"task_id": "textcraft_3"})
    alfworld = make_environment("agentgym:alfworld@http://127.0.0.1:9")
    assert (len(alfworld.tasks("test")), alfworld.tasks("test")[0]) == (200, "alfworld_2420")
    assert not set(alfworld.tasks("test")) & set(alfworld.tasks("train"))


def test_indices_as_people_write_them() -> None:
    assert list(parse_indices("0-3")) == [0, 1, 2, 3]
    assert list(parse_indices(" 7 , 3-4,7")) == [7, 3, 4]
    assert list(parse_indices(5)) == [5]
    assert list(parse_indices([2, 0])) == [2, 0]
    for wrong in ("", "4-2", "a", "-3", "1-", [], [-1], True, 1.5, "0-99999999", None):
        with pytest.raises(UsageError, match="'indices' is a range"):
            parse_indices(wrong)


def test_names_are_checked_and_the_nearest_is_told() -> None:
    check_environment("agentgym:textcraft@http://localhost:36001")
    check_environment("agentgym:sciworld@https://gym.example/science")
    for wrong, told in {
        "agentgym:textcrat@http://localhost:1": "did you mean 'textcraft'",
        "agentgym:textcraft": "does not say where the server is",
        "agentgym:textcraft@localhost:1": "is no server's address",
        "agentgym:textcraft@http://localhost:port": "is no server's address",
        "agentgym:textcraft@http://": "is no server's address",
        "agentgym:textcraft@http://me:secret@localhost:1": "take it out",
        "textcrat": "did you mean 'textcraft'",
        "agentgim": "agentgym:<dialect>@http://host:port",
    }.items():
        with pytest.raises(UsageError, match=told) as caught:
            check_environment(wrong)
        assert "secret" not in str(caught.value)
    assert all(check_environment(name) is None for name in ENVIRONMENT_NAMES)
