"""AgentGym's servers one by one, and our own.

Fields and paths are those of AgentGym's servers and clients as of its last commit (3ef9235).
Step limits are the rounds that AgentGym's training script for all tasks gives
(``agentenv/examples/agentevol/train_agentevol_multi_task.sh``). It leaves out SearchQA, whose limit
is ours, like that of ``plain``.
"""

from __future__ import annotations

from typing import Any

from atlas_tune.environments.agentgym.dialect import Dialect

_TOOLS = (
    "Reach the goal by calling tools, one a turn. Write an action as:\n"
    'TOOL with Action Input: {{"ARGUMENT": VALUE}}\n'
    "and {{}} where a tool takes nothing. When you are done, end with finish. The tools and what "
    "they take: {tools}."
)


def _tool_server(name: str, max_steps: int, tools: str) -> Dialect:
    """AgentGym's five tool servers differ in their tools and their step limits alone."""
    return Dialect(
        name,
        _TOOLS.format(tools=tools),
        max_steps=max_steps,
        metric="reward",
        episode="env_idx",
        create={"id": 0},
        task="id",
        asks_observation=True,
        wording="Action: {action}",
        refusals=("Format error",),
    )


_LISTED = (
    Dialect(
        "alfworld",
        "Do a household task. Each turn, take one of the available actions, such as: go to desk "
        "1, take mug 1 from desk 1, put mug 1 in/on shelf 1, open drawer 1, close drawer 1, clean "
        "mug 1 with sinkbasin 1, heat mug 1 with microwave 1, cool mug 1 with fridge 1, use "
        "desklamp 1, examine mug 1, inventory, look. What cannot be done is answered with: "
        "Nothing happens.",
        max_steps=30,
        task="game",
        reset={"world_type": "Text"},
        choices="available_actions",
        refusals=("Nothing happen",),
        ranges={"train": range(2420), "test": range(2420, 2620)},
    ),
    Dialect(
        "babyai",
        "Reach the goal in a grid of rooms. Take one action a turn: turn left, turn right, move "
        "forward, go to OBJECT ID, pickup OBJECT ID, drop, toggle, go through DOOR ID, toggle "
        "and go through DOOR ID, check available actions. For example: go to red ball 1.",
        max_steps=20,
        metric="reward",
        reward="score",
        any_reward_wins=True,  # minigrid's reward falls with every move: nobody gets a full one.
        closes=True,
        strips=True,
        refusals=("The action is not recognized", "No change in state"),
    ),
    Dialect(
        "sciworld",
        "Do a task in a small world of science. Each turn, take one action, such as: look around, "
        "look at THING, open DOOR, go to PLACE, pick up THING, move THING to THING, use TOOL on "
        "THING, pour THING into THING, mix THING, activate THING, focus on THING, read THING, "
        "wait1, inventory, task. Focus only on what the task is about.",
        max_steps=30,
        metric="reward",
        reward="score",
        preface="task_description",
        closes=True,
        refusals=("No known action matches that input",),
    ),
    Dialect(
        "textcraft",
        "You craft items. Each turn, do one of these:\ninventory\nget N ITEM\n"
        "craft N ITEM using N A, N B\nUse only the crafting commands given, with exactly their "
        "numbers. What has a command must be crafted; the rest you can get. Where a command says "
        "planks or wool, name one kind, such as oak planks.",
        max_steps=20,
        closes=True,
        strips=True,
        refusals=("Could not ", "Wrong item format"),
    ),
    Dialect(
        "webshop",
        "Buy what you are told to in a web shop. Each turn, do one of these:\nsearch[WORDS]\n"
        "click[BUTTON]\nBoth only where the page offers them.",
        max_steps=10,
        metric="reward",
        episode="env_idx",
        task="session_id",
        asks_observation=True,
        observation="state",
    ),
    Dialect(
        "sqlgym",
        "Answer a question about an SQLite database. Each turn, give one SQL statement on one "
        "line.",
        max_steps=1,
        episode="env_idx",
        task="item_id",
        asks_observation=True,
        observation="state",
        fence="sql",
        ranges={"train": range(9428), "test": range(9428, 10962)},
    ),
    Dialect(
        "searchqa",
        "Answer a question. Each turn, search or answer:\n<search>WORDS</search>\n"
        "<answer>ANSWER</answer>",
        max_steps=10,
        episode="env_idx",
        create={"id": 0},
        task="id",
        asks_observation=True,
        closes=True,
    ),
    Dialect(
        "maze",
        "Find the goal in a maze in as few steps as possible. Each turn, take one of these: move "
        "up, move down, move left, move right. Down raises the first number of a position, right "
        "the second.",
        max_steps=15,
        root="/maze",
        task="game",
        item="lmrlgym_maze",
        ranges={"test": range(26)},
    ),
    Dialect(
        "wordle",
        "Guess a hidden word of five letters in at most six guesses. Write a guess with spaces: "
        "s h i r e. The answer has a letter for each of yours: g for the right letter in the "
        "right place, y for a letter that the word holds, b for one that it does not hold.",
        max_steps=8,
        root="/wordle",
        task="seed",
        item="lmrlgym_wordle",
        vocabulary="/filtered_vocab",
        refusals=("invalid word",),
    ),
    _tool_server(
        "weather",
        10,
        "get_user_current_date(), get_user_current_location(), get_latitude_longitude(name), "
        "get_historical_temp, get_historical_rain, get_historical_snow, get_temp_forecast, "
        "get_rain_forecast, get_snow_forecast and get_historical_air_quality_index(latitude, "
        "longitude, start_date, end_date), get_current_temp, get_current_rain, get_current_snow "
        "and get_current_air_quality_index(latitude, longitude, current_date), "
        "get_air_quality_level(air_quality_index), get_elevation(latitude, longitude), "
        "get_distance(latitude1, longitude1, latitude2, longitude2), check_valid_actions(), "
        "finish(answer)",
    ),
    _tool_server(
        "movie",
        12,
        "get_search_movie(movie_name), get_movie_details, get_movie_production_companies, "
        "get_movie_production_countries, get_movie_cast, get_movie_crew, get_movie_keywords, "
        "get_movie_alternative_titles and get_movie_translation(movie_id), "
        "get_search_person(person_name), get_person_details, get_person_cast, get_person_crew "
        "and get_person_external_ids(person_id), check_valid_actions(), finish(answer)",
    ),
    _tool_server(
        "academia",
        12,
        "loadPaperNet(), loadAuthorNet(), neighbourCheck(graph, node), paperNodeCheck(node), "
        "authorNodeCheck(node), authorEdgeCheck(node1, node2), finish(answer)",
    ),
    _tool_server(
        "todo",
        15,
        "get_user_current_date(), get_user_current_location(), get_projects(), "
        "update_project(project_id, is_favorite), get_tasks(project_id), "
        "get_task_description, get_task_duration, complete_task and delete_task(task_id), "
        "update_task(task_id, due_date), check_valid_actions(), finish(answer)",
    ),
    _tool_server(
        "sheet",
        15,
        "open_sheet(name), del_sheet(name), freeze_data(dimension, num), insert_cols(values_list, "
        "col_idx), insert_rows(values_list, row_idx), delete_batch_data(dimension, index_list), "
        "update_cell(position, value), update_cell_by_formula(start_position, end_position, "
        "position_list, result_position, operator), update_range(start_position, end_position, "
        "values_list), sort_sheet_by_col(col_num, order), merge_cells(start_position, "
        "end_position), update_note(position, content), get_all_values(), "
        "get_range_values(start_position, end_position), get_cell_value(position), "
        "get_value_by_formula(start_position, end_position, position_list, operator), "
        "filter_cells(query, in_row, in_column), get_note(position), finish()",
    ),
    Dialect(
        "webarena",
        "Do a task in a web browser. Each turn, take one of these: click [ID], type [ID] [TEXT] "
        "[0 or 1 for Enter], hover [ID], press [KEYS], scroll [up or down], new_tab, tab_focus "
        "[INDEX], close_tab, goto [URL], go_back, go_forward, stop [ANSWER].",
        max_steps=25,
        episode="env_idx",
        task="idx",
        reset={"seed": 0},
        asks_observation=True,
        done=("terminated", "truncated"),
        pays_at_end=True,
        closes=True,
        wording="```{action}```",
        broken_reset="TimeoutError",
    ),
    Dialect(
        "plain",
        "",  # The server tells it, with the step limit and the metric: `atlas-tune serve-env`.
        max_steps=20,
        task="task_id",
        reward="score",
        closes=True,
        ours=True,
    ),
)

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _LISTED}
"""Every dialect by name."""


def numbered(reply: Any, dialect: Dialect) -> int | None:
    """The remote environment's number in the reply of ``/create``; None where it holds none.

    Some servers answer with the bare number, the others with an object that names it.
    """
    number = reply.get(dialect.episode) if isinstance(reply, dict) else reply
    return number if isinstance(number, int) and not isinstance(number, bool) else None
