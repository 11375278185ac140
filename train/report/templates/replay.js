// The rounds of two arms on one prompt, played side by side.
const { element, fill, short, verdict, records } = window.report;
const form = document.getElementById("replay-controls");
const WORDS = {
  exploit: "accepted", forced: "the best one", implicit: "explored", explore: "looked ahead",
  cascade: "foretold", again: "again", none: "committed",
};
const SPACES = { "\n": "⏎", "\r": "⏎", "\t": "⇥", " ": "␣" };
const PAUSE = 700; // milliseconds of a round
const bare = (text) => text.trimStart() || text;
const visible = (token) => [...token].map((letter, i, all) => (letter === " " && all.length > 1 ? " " : SPACES[letter] || letter)).join("") || "∅";

// What every position shows after `count` rounds.
function canvasAt(replay, count) {
  const cells = Array.from({ length: replay.length }, (_, position) => ({ position, state: "masked" }));
  for (let index = 0; index < Math.min(count, replay.rounds.length); index++) {
    const [commits, taken, ended, drafts] = replay.rounds[index];
    const last = index === count - 1;
    for (const [position, token, confidence, risk, reason, draft] of commits)
      cells[position] = { position, state: "done", token, confidence, risk, reason, draft, round: index + 1, fresh: last };
    for (const position of taken) cells[position] = { position, state: "masked", taken: last };
    if (ended !== null) for (let position = ended; position < cells.length; position++) cells[position] = { position, state: "past" };
    if (last) for (const [position, token, depth, cameTrue] of drafts)
      if (cells[position].state === "masked") cells[position].draft = { token, depth, cameTrue };
  }
  return cells;
}

function describe(cell, ends) {
  const place = `position ${cell.position}: `;
  if (cell.state === "past") return `${place}behind the end of the answer`;
  if (cell.state === "masked") {
    if (cell.draft) return `${place}masked, with the draft “${visible(cell.draft.token)}” ${cell.draft.depth} ahead, which ${cell.draft.cameTrue ? "came true" : "the next forward refused"}`;
    return place + (cell.taken ? "taken back in this round" : "masked");
  }
  const token = ends.includes(cell.token) ? "end of the answer" : `“${visible(cell.token)}”`;
  const parts = [`${token}, ${WORDS[cell.reason] || cell.reason} in round ${cell.round}${cell.draft ? " as a draft that came true" : ""}`];
  if (cell.confidence !== null) parts.push(`confidence ${cell.confidence.toFixed(4)}`);
  if (cell.risk !== null) parts.push(`risk ${cell.risk.toFixed(4)}`);
  return place + parts.join(", ");
}

function cellElement(cell, replay) {
  const text = cell.state === "done" ? (replay.ends.includes(cell.token) ? "■" : bare(visible(cell.token))) : cell.draft ? bare(visible(cell.draft.token)) : cell.state === "past" ? " " : "·";
  const names = ["cell", cell.state, cell.state === "done" ? cell.reason : "", cell.fresh ? "new" : "", cell.draft ? "draft" : "", cell.taken ? "taken" : ""];
  if (cell.position && cell.position % replay.block === 0) names.push("block");
  const made = element("span", names.filter(Boolean).join(" "), text);
  made.dataset.position = cell.position;
  return made;
}

function branchesElement(round) {
  const made = element("div", "branches");
  if (!round || !round[4].length) return made;
  made.append(`${round[4].length} canvases share the next forward:`);
  const list = element("ul");
  for (const [kept, commits] of round[4]) {
    const what = commits.map(([position, token]) => `${position} “${visible(token)}”`).join(", ") || "none of these";
    list.append(element("li", kept ? "kept" : "", what + (kept ? ", kept" : "")));
  }
  made.append(list);
  return made;
}

class Panel {
  constructor(id, onPick) {
    this.home = document.getElementById(id);
    this.home.addEventListener("mousemove", (event) => {
      const moved = event.movementX || event.movementY; // not so where the page moved under the mouse
      if (moved && event.target.dataset.position) this.tell(Number(event.target.dataset.position));
    });
    this.home.addEventListener("click", (event) => event.target.dataset.position && onPick(Number(event.target.dataset.position)));
  }

  show(name, replay, row, count, picked, careful) {
    this.replay = replay;
    const done = Math.min(count, replay.rounds.length);
    this.cells = canvasAt(replay, count);
    const head = element("h3");
    head.append(name, element("small", "", `round ${done} of ${replay.rounds.length}${row ? `, ${row[3]} forwards in all` : ""}`));
    if (row && count >= replay.rounds.length) head.append(element("small", ...verdict(row[1], row[0] === careful)));
    const canvas = element("div", "canvas");
    canvas.append(...this.cells.map((cell) => cellElement(cell, replay)));
    this.detail = element("p", "detail");
    this.canvas = canvas;
    this.home.replaceChildren(head, canvas, this.detail, branchesElement(count <= replay.rounds.length ? replay.rounds[count - 1] : null));
    if (picked !== null && picked < this.cells.length) this.tell(picked);
  }

  tell(position) {
    this.canvas.querySelector(".picked")?.classList.remove("picked");
    this.canvas.children[position].classList.add("picked");
    this.detail.textContent = describe(this.cells[position], this.replay.ends);
  }
}

async function start() {
  const all = await records;
  const tasks = Object.keys(all).filter((task) => Object.keys(all[task].replays).length);
  const { task, prompt, a, b } = form.elements;
  const slider = document.getElementById("round");
  const play = document.getElementById("play");
  let at = 0, picked = null, timer = null;
  const pick = (position) => { picked = position; show(); };
  const panels = ["panel-a", "panel-b"].map((id) => new Panel(id, pick));
  const replays = () => [a.value, b.value].map((name) => all[task.value].replays[prompt.value][name]);
  const most = () => Math.max(...replays().map((one) => one.rounds.length));

  function show() {
    const texts = all[task.value].texts;
    const index = texts.ids.indexOf(Number(prompt.value));
    const careful = texts.arms.sequential?.[index]?.[0];
    replays().forEach((one, side) => {
      const name = [a.value, b.value][side];
      panels[side].show(name, one, texts.arms[name]?.[index], at, picked, careful);
    });
    slider.max = most();
    slider.value = at;
    document.getElementById("at").textContent = `round ${at} of ${most()}`;
    document.getElementById("replay-prompt").textContent = texts.prompts[index] ?? "";
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "play";
  }

  function go(round) {
    at = Math.min(Math.max(round, 0), most());
    show();
    if (at === most()) stop();
  }

  function toggle() {
    if (timer !== null) return stop();
    if (at === most()) go(0);
    timer = setInterval(() => go(at + 1), PAUSE);
    play.textContent = "stop";
  }

  function enterPrompt(keep) {
    const found = all[task.value].replays[prompt.value];
    const names = Object.keys(found);
    const fastest = names.reduce((best, name) => (found[name].rounds.length < found[best].rounds.length ? name : best));
    const [one, two] = keep && names.includes(a.value) && names.includes(b.value) ? [a.value, b.value] : [names[0], fastest];
    fill(a, names.map((name) => [name, name]), one);
    fill(b, names.map((name) => [name, name]), two);
    stop();
    go(0);
  }

  function enterTask() {
    const { ids, prompts } = all[task.value].texts;
    const known = Object.keys(all[task.value].replays);
    fill(prompt, known.map((id) => [id, `${id}  ${short(prompts[ids.indexOf(Number(id))] ?? "", 40)}`]), known[0]);
    picked = null;
    enterPrompt(false);
  }

  function step(by) {
    prompt.selectedIndex = Math.min(Math.max(prompt.selectedIndex + by, 0), prompt.options.length - 1);
    enterPrompt(true);
  }

  const KEYS = {
    " ": toggle, ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), Home: () => go(0), End: () => go(most()),
    ArrowUp: () => pick(Math.max((picked ?? 1) - 1, 0)),
    ArrowDown: () => pick(Math.min((picked ?? -1) + 1, Math.max(...replays().map((one) => one.length)) - 1)),
    n: () => step(1), p: () => step(-1),
  };
  const home = document.getElementById("replay");
  home.tabIndex = -1;
  document.addEventListener("keydown", (event) => {
    const inside = home.contains(document.activeElement) || home.matches(":hover");
    const typing = ["SELECT", "INPUT"].includes(event.target.tagName) || (event.key === " " && event.target.tagName === "BUTTON");
    if (!inside || typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  home.addEventListener("click", (event) => {
    if (!event.target.closest("select, input, button")) home.focus({ preventScroll: true });
  });

  for (const [id, act] of [["first", "Home"], ["back", "ArrowLeft"], ["play", " "], ["forward", "ArrowRight"], ["last", "End"]])
    document.getElementById(id).addEventListener("click", () => KEYS[act]());
  slider.addEventListener("input", () => go(Number(slider.value)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target === task) enterTask();
    else if (event.target === prompt) enterPrompt(true);
    else { stop(); go(Math.min(at, most())); }
  });
  for (const [reason, word] of Object.entries(WORDS).filter(([reason]) => reason !== "none")) {
    const sign = element("span", "");
    sign.append(element("span", `cell ${reason}`, " "), ` ${word}`);
    document.getElementById("legend").append(sign);
  }
  const more = [["new", "12", "in this round"], ["draft", "12", "draft"], ["taken masked", "·", "taken back"], ["masked", "·", "masked"], ["", "■", "end"]];
  for (const [kind, text, word] of more) {
    const sign = element("span", "");
    sign.append(element("span", `cell ${kind}`, text), ` ${word}`);
    document.getElementById("legend").append(sign);
  }
  fill(task, tasks.map((name) => [name, name]), tasks[0]);
  enterTask();
}

if (form) start();
