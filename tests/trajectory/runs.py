"""Small trajectories for tests."""

from atlas_tune.trajectory import Observation, Outcome, Step, Trajectory


def craft_run(steps: int = 4, environment: str = "textcraft", task_id: str = "t1") -> Trajectory:
    """A run in AgentGym's form: instruction, prefill, task, then ``steps`` agent steps."""
    opening = (
        Step(1, "user", "Craft things."),
        Step(2, "agent", "OK.", is_copied_context=True),
        Step(3, "user", "Goal: craft stick."),
    )
    own = tuple(
        Step(
            4 + i,
            "agent",
            f"Thought:\nI need stick {i}.\n\nAction:\nget {i} stick",
            observation=Observation.of(f"Got {i} stick"),
        )
        for i in range(steps)
    )
    return Trajectory.create(
        opening + own,
        environment=environment,
        task_id=task_id,
        outcome=Outcome(reward=1.0, success=True),
    )
