from agents.corridor import Corridor
from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.agents.rollout import PREFILL, run_policy
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
    assert policy.asked == [["0", "1"], ["1"], ["1"]]


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


def test_collecting_keeps_successes_and_names_failures():
    env = Corridor()
    tasks = [*first_tasks(env, "train", 3, {}), "corridor/99"]
    collected = collect_expert_runs(env, tasks, seed=0, habits=Habits(0, 0, 0))
    assert [t.task_id for t in collected.trajectories] == tasks[:3]
    assert "did not reach the goal in 8 steps" in collected.failures["corridor/99"]
