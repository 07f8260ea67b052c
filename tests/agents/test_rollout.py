from agents.corridor import Corridor
from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.agents.opening import Opening
from atlas_tune.agents.rollout import PREFILL, run_policy
from atlas_tune.agents.style import TOOLS
from atlas_tune.agents.tools import TAKE_ACTION, TOOL_FORMAT, format_call, problem_text
from atlas_tune.environments.habits import Habits
from atlas_tune.trajectory.messages import to_messages


class Scripted:
    """Plays one list of replies per task length, and notes who was asked when."""

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def replies(self, conversations):
        self.asked.append(sorted(conversations))
        return {key: self.reply(messages) for key, messages in conversations.items()}


def test_episodes_run_together_and_end_apart():
    policy = Scripted(lambda messages: "Thought:\non\n\nAction:\nforward")
    episodes = run_policy(Corridor, ["corridor/1", "corridor/3"], policy, max_steps=10)
    assert [(e.success, len(e.turns), e.reward) for e in episodes] == [
        (True, 1, 1.0),
        (True, 3, 1.0),
    ]
    both = ["corridor/1#0", "corridor/3#1"]
    assert policy.asked == [both, both[1:], both[1:]]


def test_episodes_draw_from_the_streams_that_are_named():
    policy = Scripted(lambda messages: "Action: forward")
    tasks = ["corridor/1", "corridor/1"]
    run_policy(Corridor, tasks, policy, max_steps=1, streams=["a#1", "b"])
    assert policy.asked == [["a%231#0", "b#1"]]


def test_the_step_limit_counts_replies_without_an_action():
    policy = Scripted(lambda messages: "I am not sure." if len(messages) < 6 else "Action: forward")
    (episode,) = run_policy(Corridor, ["corridor/3"], policy, max_steps=3)
    assert (episode.success, len(episode.turns), episode.invalid) == (False, 3, 2)
    told = episode.turns[0][1]
    assert "no 'Action:'" in told
    assert "Answer in this form" in told


def test_a_rollout_becomes_a_trajectory_that_shows_what_the_policy_saw():
    policy = Scripted(lambda messages: "Action: forward")
    (episode,) = run_policy(Corridor, ["corridor/2"], policy, max_steps=5)
    run = episode.trajectory({"name": "scripted", "version": "1"})
    messages = to_messages(run).messages
    assert list(messages) == episode.messages()
    assert messages[1]["content"] == PREFILL
    assert [step.metrics["extra"]["reward"] for step in run.agent_steps] == [0.0, 1.0]
    assert (run.environment, run.task_id, run.outcome.success) == ("corridor", "corridor/2", True)


def test_another_opening_is_told_and_recorded():
    policy = Scripted(lambda messages: "Action: forward")
    opening = Opening.of("Walk!", "", "I will.")
    (episode,) = run_policy(Corridor, ["corridor/1"], policy, 2, opening=opening)
    assert [message["content"] for message in episode.messages()[:3]] == [
        "Walk!",
        "I will.",
        "1 cells ahead.",
    ]
    run = episode.trajectory({"name": "scripted", "version": "1"})
    assert list(to_messages(run).messages) == episode.messages()
    assert len(run.agent_steps) == 1


class Calling:
    """Calls the tool; its first turn calls nothing and its second one calls twice."""

    def __init__(self):
        self.tools = []

    def turns(self, conversations, tools=()):
        self.tools.append(list(tools))
        return {key: self._turn(messages) for key, messages in conversations.items()}

    def _turn(self, messages):
        turn = sum(message["role"] == "assistant" for message in messages)
        if turn == 1:
            return {"role": "assistant", "content": "Hm."}
        call = format_call("On.", "forward", f"call_{turn}")
        if turn == 2:
            call["tool_calls"] += format_call("", "forward", "call_other")["tool_calls"]
        return call


def test_an_agent_acts_by_calling_a_tool():
    policy = Calling()
    (episode,) = run_policy(Corridor, ["corridor/2"], policy, 8, style=TOOLS)
    assert (episode.success, len(episode.turns), episode.invalid) == (True, 4, 2)
    assert policy.tools == [[TAKE_ACTION]] * 4
    messages = episode.messages()
    assert messages[0]["content"].endswith(TOOL_FORMAT)
    assert [(m["role"], m.get("tool_call_id")) for m in messages[3:]] == [
        ("assistant", None),
        ("user", None),
        ("assistant", None),
        ("tool", "call_2"),
        ("tool", "call_other"),
        ("assistant", None),
        ("tool", "call_3"),
        ("assistant", None),
        ("tool", "call_4"),
    ]
    assert messages[4]["content"] == problem_text("the reply calls no tool")
    assert messages[6]["content"] == problem_text("the reply calls 2 tools at once")
    assert messages[-1]["content"] == "0 cells ahead."


def test_a_run_with_tool_calls_becomes_a_trajectory_with_them():
    (episode,) = run_policy(Corridor, ["corridor/2"], Calling(), 8, style=TOOLS)
    run = episode.trajectory({"name": "scripted", "version": "1"})
    assert run.agent["tool_definitions"] == [TAKE_ACTION]
    assert [len(step.tool_calls) for step in run.agent_steps] == [0, 2, 1, 1]
    assert run.agent_steps[-1].tool_calls[0].arguments == {"action": "forward"}
    assert [step.metrics["extra"]["reward"] for step in run.agent_steps] == [0.0, 0.0, 0.0, 1.0]


def test_collecting_keeps_successes_and_names_failures():
    env = Corridor()
    tasks = [*first_tasks(env, "train", 3, {}), "corridor/99"]
    collected = collect_expert_runs(env, tasks, seed=0, habits=Habits(0, 0, 0))
    assert [t.task_id for t in collected.trajectories] == tasks[:3]
    assert "did not reach the goal in 8 steps" in collected.failures["corridor/99"]
