// Prompts where two arms differ, side by side with the checker's verdict.
const { element, fill, verdict, records } = window.report;
const form = document.getElementById("texts-controls");
const PAGE = 10;
const FILTERS = {
  text: ["another text", (a, b) => a[0] !== b[0]],
  verdict: ["another verdict", (a, b) => a[1] !== b[1]],
  lost: ["first wrong, second right", (a, b) => a[1] === false && b[1] === true],
  won: ["first right, second wrong", (a, b) => a[1] === true && b[1] === false],
  all: ["all prompts", () => true],
};
const MOST_PIECES = 600; // of a text that is marked piece by piece

// The pieces of `text` that are not in a longest common subsequence with `other`.
function marked(text, other) {
  const [a, b] = [text, other].map((one) => one.match(/\s+|\w+|[^\s\w]/g) || []);
  if (text === other || a.length > MOST_PIECES || b.length > MOST_PIECES) return a.map((piece) => [piece, false]);
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const found = [];
  let j = 0;
  for (let i = 0; i < a.length; i++) {
    while (j < b.length && a[i] !== b[j] && best[i][j] === best[i][j + 1]) j++;
    const common = j < b.length && a[i] === b[j];
    if (common) j++;
    found.push([a[i], !common && a[i].trim() !== ""]);
  }
  return found;
}

function side(name, row, other, careful) {
  const made = element("div", "side");
  const head = element("header");
  const [kind, word] = verdict(row[1], row[0] === careful);
  head.append(element("b", "", name), element("span", kind, word), element("span", "", `${row[2]} rounds, ${row[3]} forwards`));
  const body = element("p");
  for (const [piece, differs] of marked(row[0], other[0])) body.append(differs ? element("mark", "", piece) : piece);
  if (!row[0]) body.append(element("span", "note", "(empty)"));
  made.append(head, body);
  return made;
}

function pair(found, index, a, b) {
  const made = element("article", "pair");
  const prompt = element("p", "prompt");
  prompt.append(element("span", "", `${found.ids[index]}  `), found.prompts[index]);
  made.append(prompt);
  if (found.references[index]) made.append(element("p", "note", `reference: ${found.references[index]}`));
  const sides = element("div", "sides");
  const careful = found.arms.sequential?.[index]?.[0];
  const [one, two] = [found.arms[a][index], found.arms[b][index]];
  sides.append(side(a, one, two, careful), side(b, two, one, careful));
  made.append(sides);
  return made;
}

async function start() {
  const all = await records;
  const tasks = Object.keys(all).filter((task) => all[task].texts.ids.length);
  const { task, a, b, filter } = form.elements;
  const [before, after] = ["texts-before", "texts-after"].map((id) => document.getElementById(id));
  let page = 0;

  function show() {
    const found = all[task.value].texts;
    const [one, two] = [found.arms[a.value], found.arms[b.value]];
    const both = found.ids.map((_, index) => index).filter((index) => one[index] && two[index]);
    const places = both.filter((index) => FILTERS[filter.value][1](one[index], two[index]));
    const pages = Math.max(1, Math.ceil(places.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    document.getElementById("texts-count").textContent = `${places.length} of ${both.length} prompts`;
    document.getElementById("texts-page").textContent = `${page + 1} of ${pages}`;
    [before.disabled, after.disabled] = [page === 0, page === pages - 1];
    const shown = places.slice(page * PAGE, (page + 1) * PAGE).map((index) => pair(found, index, a.value, b.value));
    document.getElementById("texts-list").replaceChildren(...shown);
  }

  function enter() {
    const { arms } = all[task.value].texts;
    const names = Object.keys(arms);
    const unlike = (name) => arms[name].filter((row, index) => row?.[0] !== arms[names[0]][index]?.[0]).length;
    const most = names.reduce((best, name) => (unlike(name) > unlike(best) ? name : best), names[Math.min(1, names.length - 1)]);
    fill(a, names.map((name) => [name, name]), most);
    fill(b, names.map((name) => [name, name]), names[0]);
    page = 0;
    show();
  }

  fill(task, tasks.map((name) => [name, name]), tasks[0]);
  fill(filter, Object.entries(FILTERS).map(([name, [label]]) => [name, label]), "text");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    page = 0;
    if (event.target === task) enter();
    else show();
  });
  const turn = (by) => () => {
    page += by;
    show();
  };
  before.addEventListener("click", turn(-1));
  after.addEventListener("click", turn(1));
  enter();
}

if (form) start();
