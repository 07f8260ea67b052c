"use strict";
// The page on which runs are read and their steps labelled. It shows what the server says and
// decides nothing: which label stands and what a budget takes comes with each run.

const KINDS = [
  ["1", "plan_creation"],
  ["2", "critical_observation"],
  ["3", "critical_action"],
  ["4", "self_correction"],
  ["x", "none"],
];
const SELECTION = "selection";
const LISTED = 300;

const held = document.getElementById("held") && JSON.parse(document.getElementById("held").textContent);
const at = (id) => document.getElementById(id);
const state = { about: null, runs: [], run: null, source: null, step: null, shown: LISTED };
const filters = { words: "", environment: "", outcome: "", judged: "" };
const undone = []; // What was judged, to be taken back: {run, step, source, before}.

function el(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== ""));
  return made;
}

async function ask(path, fields) {
  if (held) {
    if (path === "about") return held.about;
    if (path === "runs") return held.runs;
    if (path === "run" && held.documents[fields.run]) return held.documents[fields.run];
    throw new Error("This is a copy to read, and holds no such run.");
  }
  return answer(await fetch(`api/${path}?${new URLSearchParams(fields || {})}`));
}

async function tell(path, fields) {
  const body = JSON.stringify(fields);
  return answer(await fetch(`api/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body }));
}

async function answer(response) {
  const reply = await response.json().catch(() => ({ error: `The server says ${response.status}.` }));
  if (!response.ok) throw new Error(reply.error || `The server says ${response.status}.`);
  return reply;
}

let forgetting;
function say(words) {
  at("said").textContent = words;
  clearTimeout(forgetting);
  forgetting = setTimeout(() => { at("said").textContent = ""; }, 6000);
}

function doing(work) {
  return async (...given) => {
    try {
      return await work(...given);
    } catch (error) {
      say(error instanceof TypeError ? "The server does not answer: was it stopped?" : error.message);
    }
  };
}

const words = (name) => (name || "critical").replaceAll("_", " ");
const isOwn = () => state.source === state.about.own;
const isFixed = () => Boolean(held) || state.source === SELECTION;
const sourceName = (source) => (source === state.about.own ? `${state.about.annotator} (your own)` : source);

// What stands of the source that is shown.
function standing(step) {
  const id = (state.run.said[state.source] || {})[step.id];
  return id ? { id, ...state.run.labels[id] } : null;
}

function marks(step) {
  const taken = (state.run.chosen[state.source] || []).includes(step.id);
  const label = standing(step);
  const candidate = taken || Boolean(label && label.kind !== "none");
  const kind = label && label.kind && label.kind !== "none" ? label.kind : "critical";
  // Who only scores calls every step a candidate: what the budget takes is critical then.
  const critical = taken || (candidate && kind !== "critical");
  return { taken, candidate, critical, kind, label };
}

const markClasses = ({ taken, candidate, kind }) =>
  candidate ? `${kind} is-critical${taken ? " is-taken" : ""}` : "";

const ownSteps = () => state.run.steps.filter((step) => step.own);

// The bar.

function drawBar() {
  const { about } = state;
  const sources = [...new Set([about.own, ...Object.keys(about.sources)])];
  const chosen = el("select", { onchange: (event) => show({ source: event.target.value }), "aria-label": "Whose labels" },
    ...sources.filter((source) => !held || source !== about.own || source in about.sources)
      .map((source) => el("option", { value: source, selected: source === state.source }, sourceName(source))));
  at("bar").replaceChildren(
    el("h1", {}, "Steps"),
    el("label", {}, "labels of ", chosen),
    el("span", { class: "faint" }, held ? "a copy to read"
      : about.is_blind ? `blind: ${about.annotator} sees no other labels`
      : isOwn() ? `you label as ${about.annotator}`
      : state.source === SELECTION ? "a selection: nothing to change here"
      : `you correct them as ${about.annotator}`),
    el("span", { class: "grow" }),
    held || about.is_blind ? "" : el("button", { onclick: openAgreement }, "agreement ", el("kbd", {}, "a")),
    el("button", { onclick: openHelp }, "help ", el("kbd", {}, "?")));
}

// The list.

function counted(entry) {
  return entry.counts[state.source] || [0, 0];
}

function fits(entry) {
  const [judged] = counted(entry);
  const text = `${entry.environment} ${entry.task} #${entry.number}`.toLowerCase();
  return filters.words.toLowerCase().split(/\s+/).every((word) => text.includes(word) || entry.id.startsWith(word))
    && (!filters.environment || entry.environment === filters.environment)
    && (!filters.outcome || String(entry.success) === filters.outcome)
    && (!filters.judged || (filters.judged === "done") === (judged >= entry.steps));
}

const fitting = () => state.runs.filter(fits);

function drawFilters() {
  const change = (name) => (event) => { filters[name] = event.target.value; state.shown = LISTED; drawList(); };
  const choice = (name, label, choices) =>
    el("select", { onchange: change(name), "aria-label": label },
      ...choices.map(([value, said]) => el("option", { value, selected: filters[name] === value }, said)));
  const environments = [...new Set(state.runs.map((entry) => entry.environment))].sort();
  at("list").replaceChildren(
    el("div", { class: "filters" },
      el("input", { type: "search", id: "words", placeholder: "filter: words, id, #number", value: filters.words,
        oninput: change("words"), "aria-label": "Filter" }),
      choice("environment", "Environment", [["", "all environments"], ...environments.map((name) => [name, name || "not named"])]),
      choice("outcome", "Outcome", [["", "any outcome"], ["true", "success"], ["false", "failure"], ["null", "unknown"]]),
      choice("judged", "Labels", [["", "labelled or not"], ["done", "every step labelled"], ["open", "not all labelled"]]),
      el("p", { class: "faint", id: "count" })),
    el("ol", { id: "entries" }));
  drawList();
}

function drawList() {
  const found = fitting();
  at("count").textContent = `${found.length.toLocaleString()} of ${state.runs.length.toLocaleString()} runs`;
  const item = (entry) => {
    const [judged, critical] = counted(entry);
    const outcome = { true: "✓ success", false: "✗ failure", null: "outcome unknown" }[String(entry.success)];
    return el("li", {}, el("button", { onclick: () => show({ run: entry.id, step: null }), "aria-current": state.run && state.run.id === entry.id ? "true" : null },
      el("span", {}, `#${entry.number} ${entry.task || entry.id.slice(0, 12)}`),
      el("span", { class: "facts" }, el("span", {}, entry.environment || "not named"), el("span", {}, outcome),
        el("span", {}, `${entry.steps} steps`),
        judged ? el("span", {}, `${critical} critical${judged < entry.steps ? `, ${judged} judged` : ""}`) : "")));
  };
  const more = found.length > state.shown
    ? [el("li", {}, el("button", { onclick: () => { state.shown += LISTED; drawList(); } }, "show more"))] : [];
  at("entries").replaceChildren(...found.slice(0, state.shown).map(item), ...more);
}

// The run.

const shown = { reasoning: true, calls: true, results: true, folded: false };

function drawRun() {
  const { run } = state;
  const main = at("run");
  if (!run) return main.replaceChildren(el("p", { class: "faint" }, state.runs.length ? "Choose a run." : "There is no run."));
  const scrolled = main.scrollTop;
  const own = ownSteps();
  const all = own.map(marks);
  const critical = all.filter((mark) => mark.critical).length;
  const taken = (run.chosen[state.source] || []).length;
  const judged = own.filter(standing).length;
  const outcome = { true: "success", false: "failure", null: "outcome unknown" }[String(run.success)];
  const candidates = all.filter((mark) => mark.candidate).length;
  const counts = isOwn() ? `${critical} of ${own.length} steps critical`
    : `${candidates} of ${own.length} steps are candidates; the budget takes ${taken} (at most ${run.budget})`;
  const box = (name, label) => el("label", {}, el("input", { type: "checkbox", checked: shown[name],
    onchange: (event) => { shown[name] = event.target.checked; classes(); } }), ` ${label}`);
  main.replaceChildren(
    el("div", { class: "top" },
      el("h2", {}, run.task || run.id.slice(0, 12)),
      el("p", { class: "faint" }, [run.environment || "environment not named", outcome,
        run.reward == null ? "" : `reward ${run.reward}`, run.agent, run.id.slice(0, 12)].filter(Boolean).join(" · ")),
      el("p", {}, state.source === SELECTION ? `${taken} of ${own.length} steps are selected`
        : judged ? `${counts}${judged < own.length ? `; ${own.length - judged} not judged` : ""}`
        : `${sourceName(state.source)} ${isOwn() ? "have" : "has"} said nothing of its ${own.length} steps`),
      el("ol", { class: "outline", "aria-label": "Steps" }, ...own.map((step, place) =>
        el("li", {}, el("button", { class: markClasses(all[place]), onclick: () => goTo(step.id), id: `o${step.id}`,
          title: all[place].critical ? words(all[place].kind) : all[place].candidate ? "candidate" : "not critical" }, String(step.id))))),
      el("p", { class: "toggles" }, box("reasoning", "reasoning"), box("calls", "tool calls"), box("results", "observations"),
        box("folded", "fold what is not critical"),
        held ? "" : el("button", { onclick: doing(openRaw) }, "raw ", el("kbd", {}, "r")),
        state.about.shows_tokens ? el("button", { onclick: doing(openTokens) }, "what is trained ", el("kbd", {}, "t")) : "",
        isOwn() && !held && judged < own.length
          ? el("button", { onclick: doing(finish) }, "the rest is not critical ", el("kbd", {}, "f")) : "")),
    run.notes ? el("pre", { class: "faint" }, run.notes) : "",
    ...run.steps.map(drawStep));
  classes();
  main.scrollTop = scrolled;
  mark();
}

function classes() {
  at("run").className = [!shown.reasoning && "no-reasoning", !shown.calls && "no-calls", !shown.results && "no-results",
    shown.folded && "folded"].filter(Boolean).join(" ");
}

function drawStep(step) {
  const found = step.own ? marks(step) : { critical: false };
  const title = el("div", { class: "title" },
    el("b", {}, `${step.id}`), el("span", { class: "faint" }, step.copied ? `${step.source}, copied context` : step.source),
    step.reward == null ? "" : el("span", { class: "faint" }, `reward ${step.reward}`),
    found.candidate ? el("span", { class: "mark" }, found.critical ? words(found.kind) : "candidate") : "",
    found.candidate && !found.taken ? el("span", { class: "faint" }, "beyond the budget") : "");
  return el("section", { class: `step ${step.own ? markClasses(found) : "other"}`, id: `s${step.id}`,
    onclick: () => { if (step.own && state.step !== step.id && !String(getSelection())) goTo(step.id, false); } },
    title,
    step.own ? drawSaid(step) : "",
    el("div", { class: "body" },
      step.reasoning ? el("pre", { class: "reasoning" }, step.reasoning) : "",
      step.message ? el("pre", {}, step.message) : "",
      ...step.calls.map((call) => el("pre", { class: "call" }, `▸ ${call.name}(${call.arguments})`)),
      ...step.results.map((text) => el("pre", { class: "result" }, text || "(nothing)"))),
    step.own && !isFixed() ? drawKinds(step, found.label) : "");
}

function drawSaid(step) {
  const line = (id, label, gone) => el("li", { class: gone ? "gone" : "" }, el("b", {}, label.by), ": ",
    label.kind === null ? (label.score === null ? "critical" : "scored") : label.kind === "none" ? "not critical" : words(label.kind),
    label.score === null ? "" : `, score ${Number(label.score.toPrecision(4))}`,
    label.reason ? `. ${label.reason}` : "", label.quote ? ` “${label.quote}”` : "");
  const stands = new Set(Object.values(state.run.said).map((said) => said[step.id]).filter(Boolean));
  const now = standing(step);
  const all = Object.entries(state.run.labels).filter(([, label]) => label.step === step.id);
  const rest = all.filter(([id]) => !now || id !== now.id);
  return el("div", {},
    now ? el("ul", { class: "says" }, line(now.id, now, false)) : "",
    rest.length ? el("details", {}, el("summary", {}, now ? `${rest.length} other ${rest.length === 1 ? "label" : "labels"}` : `labels of others: ${rest.length}`),
      el("ul", { class: "says" }, ...rest.map(([id, label]) => {
        const item = line(id, label, !stands.has(id));
        if (label.at) item.append(` (${label.at})`);
        return item;
      }))) : "");
}

function drawKinds(step, label) {
  const now = label ? label.kind : undefined;
  const why = el("input", { placeholder: "why (e, then Enter)", "aria-label": "Reason", maxlength: 2000,
    onkeydown: (event) => {
      if (event.key === "Escape") at("run").focus();
      if (event.key !== "Enter") return;
      if (!now) return say("Say first of which kind it is.");
      judge(step, now, event.target.value);
    } });
  return el("div", { class: "kinds" },
    ...KINDS.map(([key, kind]) => el("button", { class: kind, "aria-pressed": String(now === kind), onclick: () => judge(step, kind) },
      el("kbd", {}, key), ` ${kind === "none" ? "not critical" : words(kind)}`)),
    why);
}

// Moving.

function goTo(id, scroll = true) {
  state.step = id;
  mark();
  write();
  const section = at(`s${id}`);
  if (scroll && section) section.scrollIntoView({ block: "nearest" });
}

function mark() {
  for (const old of document.querySelectorAll(".is-current")) old.classList.remove("is-current");
  for (const old of document.querySelectorAll(".outline [aria-current]")) old.removeAttribute("aria-current");
  const section = state.step && at(`s${state.step}`);
  if (!section) return;
  section.classList.add("is-current");
  const dot = at(`o${state.step}`);
  if (dot) {
    dot.setAttribute("aria-current", "step");
    dot.scrollIntoView({ block: "nearest" });
  }
}

function move(by, onlyCritical) {
  if (!state.run) return;
  const steps = ownSteps().filter((step) => !onlyCritical || marks(step).critical);
  const next = by > 0 ? steps.find((step) => step.id > (state.step || 0)) : steps.findLast((step) => step.id < (state.step || Infinity));
  if (next) goTo(next.id);
}

function moveRun(by) {
  const found = fitting();
  const place = found.findIndex((entry) => state.run && entry.id === state.run.id);
  const next = found[place < 0 ? 0 : place + by];
  if (next) show({ run: next.id, step: null });
}

// A link to a run and a step stands in the address.

function write() {
  const fields = { run: state.run ? state.run.id : "", source: state.source };
  if (state.step) fields.step = state.step;
  history.replaceState(null, "", `#${new URLSearchParams(fields)}`);
}

const show = doing(async (wanted) => {
  const isOther = wanted.run !== undefined && (!state.run || wanted.run !== state.run.id);
  if (wanted.source !== undefined) state.source = wanted.source;
  if (isOther) {
    state.run = wanted.run ? await ask("run", { run: wanted.run }) : null;
    at("run").scrollTop = 0;
  }
  if (wanted.step !== undefined) state.step = wanted.step;
  if (state.run && !ownSteps().some((step) => step.id === state.step)) state.step = ownSteps()[0].id;
  drawBar();
  drawList();
  drawRun();
  write();
  if (wanted.step) goTo(wanted.step);
});

const readAddress = doing(async () => {
  const fields = new URLSearchParams(location.hash.slice(1));
  const wanted = fields.get("run");
  const entry = wanted && state.runs.find((one) => one.id.startsWith(wanted));
  if (wanted && !entry) say(`There is no run ${wanted.slice(0, 12)} here.`);
  const source = fields.get("source");
  const known = source && (source === state.about.own || source in state.about.sources);
  await show({ run: (entry || state.runs[0] || {}).id || "", step: Number(fields.get("step")) || null, source: known ? source : state.source });
});

// Judging.

const renew = async (run) => {
  state.run = run;
  // The list and the sources follow at leisure.
  drawRun();
  [state.about, state.runs] = await Promise.all([ask("about"), ask("runs")]);
  drawBar();
  drawList();
};

const judge = doing(async (step, kind, reason) => {
  if (held) return say("This is a copy to read: nothing can be changed in it.");
  if (isFixed()) return say("A selection is not changed here: choose whose labels above.");
  const now = standing(step);
  const fields = { run: state.run.id, step: step.id, source: state.source, seen: now && now.id, kind, reason: reason || null };
  await judged(fields, now);
});

async function judged(fields, before) {
  let run;
  try {
    run = await tell("label", fields);
  } catch (error) {
    if (state.run && state.run.id === fields.run) await renew(await ask("run", { run: fields.run }));
    throw error;
  }
  const after = (run.said[fields.source] || {})[fields.step];
  if (after !== (before && before.id)) undone.push({ run: fields.run, step: fields.step, source: fields.source, before: before && before.id });
  await renew(run);
}

const undo = doing(async () => {
  const last = undone.pop();
  if (!last) return say("There is nothing to undo.");
  await show({ run: last.run, source: last.source, step: last.step });
  const now = (state.run.said[last.source] || {})[last.step];
  const fields = { run: last.run, step: last.step, source: last.source, seen: now || null };
  await renew(await tell("label", last.before ? { ...fields, restored: last.before } : { ...fields, kind: "none" }));
  say(last.before ? `Step ${last.step} is as it was.` : `Step ${last.step} was not judged before; it is "not critical" now.`);
});

async function finish() {
  await renew(await tell("finish", { run: state.run.id }));
  say("Every step of this run is judged.");
}

// What opens above the page.

function open(dialog, ...content) {
  dialog.replaceChildren(...content, el("p", {}, el("button", { onclick: () => dialog.close() }, "close ", el("kbd", {}, "Esc"))));
  if (!dialog.open) dialog.showModal();
}

function openHelp() {
  const keys = [["j k", "next, previous step"], ["J K", "next, previous critical step"], ["] [", "next, previous run"],
    ["1 2 3 4", "plan creation, critical observation, critical action, self correction"], ["x", "not critical"],
    ["e", "say why; Enter keeps it"], ["u", "undo"], ["f", "your own labels: the rest is not critical"], ["o", "fold what is not critical"],
    ["r", "the run as JSON"], ["t", "the tokens that are trained"], ["a", "agreement of two sources"], ["/", "filter the runs"], ["?", "this"]];
  open(at("help"), el("h2", {}, "Keys"),
    el("dl", {}, ...keys.flatMap(([key, said]) => [el("dt", {}, ...key.split(" ").flatMap((one) => [el("kbd", {}, one), " "])), el("dd", {}, said)])),
    el("p", {}, "Filled: what the budget takes of the labels as they stand. Framed: a candidate beyond the budget."),
    el("p", {}, "Labels are appended to the file and nothing in it is rewritten. Select again with the same command, and the selection follows the corrections."));
}

async function openRaw() {
  if (!state.run || held) return;
  const raw = await ask("raw", { run: state.run.id });
  open(at("text"), el("h2", {}, state.run.id), el("pre", {}, JSON.stringify(raw, null, 1)));
}

async function openTokens() {
  if (!state.run || !state.about.shows_tokens) return;
  const rows = await ask("tokens", { run: state.run.id, source: state.source });
  open(at("text"), el("h2", {}, "What is trained"),
    el("p", { class: "faint" }, "Marked: tokens that carry loss. Pale: behind the last of them, never computed."),
    ...rows.flatMap((row) => [
      el("p", {}, `${row.supervised.toLocaleString()} of ${row.tokens.toLocaleString()} tokens are trained, ${row.computed.toLocaleString()} are computed.`),
      el("pre", {}, ...row.pieces.map((piece) => piece.step === null ? el("span", { class: piece.is_cut ? "cut" : "" }, piece.text)
        : el("mark", {}, el("b", {}, `step ${piece.step} · ${piece.tokens} tokens `), piece.text)))]));
  const first = at("text").querySelector("mark");
  if (first) first.scrollIntoView({ block: "center" });
}

const share = (figure) => figure.value === null ? `undefined: ${figure.why}`
  : `${figure.value.toFixed(3)}${figure.low === null ? ` (${figure.why})` : ` (95%: ${figure.low.toFixed(3)} to ${figure.high.toFixed(3)})`}`;

function openAgreement() {
  if (held || state.about.is_blind) return;
  const names = Object.keys(state.about.sources);
  if (names.length < 2) return open(at("agreement"), el("h2", {}, "Agreement"), el("p", {}, "There are labels of one source only."));
  const one = state.source in state.about.sources ? state.source : names[0];
  const other = state.about.own in state.about.sources && state.about.own !== one ? state.about.own : names.find((name) => name !== one);
  const result = el("div", {});
  const choice = (value) => el("select", { onchange: () => compare() }, ...names.map((name) =>
    el("option", { value: name, selected: name === value }, sourceName(name))));
  const [first, second] = [choice(one), choice(other)];
  const compare = doing(async () => {
    result.replaceChildren(el("p", { class: "faint" }, "…"));
    try {
      const found = await ask("agreement", { one: first.value, other: second.value });
      result.replaceChildren(...drawAgreement(found));
    } catch (error) {
      result.replaceChildren(el("p", {}, error.message));
    }
  });
  open(at("agreement"), el("h2", {}, "Agreement"), el("p", {}, first, " and ", second), result);
  compare();
}

function drawAgreement(found) {
  const table = el("table", {},
    el("tr", {}, el("td", {}, "both judged"), el("td", {}, `${found.steps.toLocaleString()} steps of ${found.trajectories.toLocaleString()} runs`)),
    el("tr", {}, el("td", {}, "critical or not, the same"), el("td", {}, share(found.observed))),
    el("tr", {}, el("td", {}, "Cohen's kappa"), el("td", {}, share(found.kappa))),
    el("tr", {}, el("td", {}, `kappa of the kinds (${found.kinds_steps} steps)`), el("td", {}, share(found.kinds_kappa))),
    ...found.raters.map((name, place) => el("tr", {}, el("td", {}, `critical for ${sourceName(name)}`), el("td", {}, share(found.prevalence[place])))));
  const columns = [...new Set(Object.values(found.confusion).flatMap(Object.keys))];
  const confusion = el("table", {},
    el("tr", {}, el("th", {}, "first \\ second"), ...columns.map((name) => el("th", {}, name === "none" ? "not critical" : words(name)))),
    ...Object.entries(found.confusion).map(([row, counts]) => el("tr", {}, el("th", {}, row === "none" ? "not critical" : words(row)),
      ...columns.map((name) => el("td", {}, String(counts[name] || 0))))));
  const called = (said) => (said === "none" ? "not critical" : words(said));
  const item = (one) => {
    const entry = state.runs.find((run) => run.id === one.run);
    return el("li", {}, el("a", { href: "#", onclick: (event) => {
      event.preventDefault();
      at("agreement").close();
      show({ run: one.run, step: one.step });
    } }, `#${entry ? entry.number : "?"}, step ${one.step}`), `: ${one.said.map(called).join(" / ")}`);
  };
  return [table, el("h2", {}, "What they call the steps"), confusion,
    el("h2", {}, `Where they differ (${found.differences.toLocaleString()}${found.differ.length < found.differences ? `, the first ${found.differ.length}` : ""})`),
    el("ul", {}, ...found.differ.map(item))];
}

// Keys.

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (typing && event.key === "Escape") typing.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const step = state.run && ownSteps().find((one) => one.id === state.step);
  const kind = KINDS.find(([key]) => key === event.key);
  const moves = { j: () => move(1), k: () => move(-1), J: () => move(1, true), K: () => move(-1, true),
    "]": () => moveRun(1), "[": () => moveRun(-1), u: undo, "?": openHelp, a: openAgreement, r: doing(openRaw), t: doing(openTokens),
    f: () => { if (state.run && isOwn() && !held) doing(finish)(); },
    o: () => { shown.folded = !shown.folded; drawRun(); },
    "/": () => at("words").focus(),
    e: () => { const why = step && document.querySelector(`#s${step.id} .kinds input`); if (why) why.focus(); } };
  if (kind && step) judge(step, kind[1]);
  else if (moves[event.key]) moves[event.key]();
  else return;
  event.preventDefault();
});

addEventListener("hashchange", readAddress);

doing(async () => {
  [state.about, state.runs] = await Promise.all([ask("about"), ask("runs")]);
  const named = Object.entries(state.about.sources);
  state.source = state.about.is_blind || !named.length ? state.about.own : named[0][0];
  drawFilters();
  await readAddress();
})();
