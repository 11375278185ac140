// Theme, charts drawn when they come into view, and the records for the other scripts.
const root = document.documentElement;
const specs = JSON.parse(document.getElementById("charts").textContent);
const drawn = new Map();

const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";

function chartConfig(width) {
  const style = getComputedStyle(document.body);
  const soft = isDark() ? "#a4abb8" : "#5b6270";
  const line = isDark() ? "#363b45" : "#d9dde4";
  const text = { labelColor: soft, titleColor: soft, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
  return {
    background: "transparent",
    font: style.fontFamily,
    view: { stroke: line },
    axis: { ...text, gridColor: line, domainColor: line, tickColor: line },
    legend: { ...text, columns: Math.max(1, Math.floor((width - 60) / 125)), symbolSize: 80, labelLimit: 150 },
    rule: { color: soft },
    point: { color: isDark() ? "#7db7f5" : "#0b5cad" },
  };
}

async function draw(element) {
  drawn.get(element)?.finalize();
  const spec = specs[element.dataset.task][element.dataset.chart];
  const config = chartConfig(element.clientWidth);
  const options = { config, actions: false, renderer: "svg", ast: true, tooltip: { theme: isDark() ? "dark" : "light" } };
  drawn.set(element, await window.vegaEmbed(element, structuredClone(spec), options));
}

const inView = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    inView.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "400px" });
document.querySelectorAll(".chart").forEach((element) => inView.observe(element));

const themeButton = document.getElementById("theme");
function showTheme() {
  themeButton.textContent = isDark() ? "light" : "dark";
  themeButton.title = `switch to ${themeButton.textContent}`;
  [...drawn.keys()].forEach(draw);
}
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
systemDark.addEventListener("change", showTheme);
showTheme();

async function unpack() {
  const bytes = Uint8Array.from(atob(document.getElementById("records").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

window.report = {
  records: unpack(),
  element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  },
  fill(select, values, chosen) {
    select.replaceChildren(...values.map(([value, label]) => new Option(label, value, false, value === chosen)));
  },
  short: (text, most = 70) => (text.length > most ? `${text.slice(0, most - 1)}…` : text).replaceAll("\n", " "),
  verdict(right, same) {
    if (right === null) return same ? ["right", "same text"] : ["wrong", "another text"];
    return right ? ["right", "✓ right"] : ["wrong", "✗ wrong"];
  },
};
