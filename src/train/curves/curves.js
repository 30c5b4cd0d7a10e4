// Draws the curves of a training run with the elements and scales of draw.js, which the evaluation report uses too.

const run = JSON.parse(document.getElementById("data").textContent);
const kTrained = "training";
const heldout_names = [...new Set(run.heldout.flatMap(line => Object.keys(line.losses)))];
const task_names = heldout_names.filter(name => name !== "books");
const order = {methods: [kTrained, ...heldout_names]};
const baseline = kTrained;
const short_name = name => name;

function seconds_text(seconds) {
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function number_text(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size < 0.01 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
}

// curves: [{name, points: [[step, value]], marks}]; options: log, unit.
function curves_chart(label, curves, options) {
  return chart_box(width => {
    const height = 300, area = {left: 52, right: width - 8, top: 20, bottom: height - 40};
    const shown = curves.flatMap(c => c.points).filter(p => !options.log || p[1] > 0);
    if (shown.length === 0) return element("p", {class: "muted"}, "No data yet.");
    let low = Math.min(...shown.map(p => p[1])), high = Math.max(...shown.map(p => p[1]));
    if (!options.log) low = Math.min(low, options.from ?? low);
    if (high === low) high = low + (Math.abs(low) || 1);
    const y_of = (options.log ? log_scale : linear_scale)(low, high, area.bottom, area.top);
    const x_of = linear_scale(0, run.steps, area.left, area.right);
    const ticks = options.log ? log_ticks(low, high, false) : linear_ticks(low, high, 5);
    const steps = linear_ticks(0, run.steps, 6);
    const drawn = curves.map(({name, points, marks}) => {
      const kept = points.filter(p => !options.log || p[1] > 0).map(p => [x_of(p[0]), y_of(p[1]), p]);
      const last = kept[kept.length - 1];
      return series(
          name, line(name, kept.map(p => [p[0].toFixed(1), p[1].toFixed(1)])),
          (marks ? kept : last ? [last] : []).map(([x, y, p]) => mark(
              name, x, y, 3.5, `${name}\nstep ${p[0].toLocaleString("en")}: ${number_text(p[1])} ${options.unit}`)));
    });
    return chart(
        width, height, label,
        plane(
            area, {at: x_of, ticks: steps, text: s => s.toLocaleString("en"), title: "steps"},
            {at: y_of, ticks, text: number_text, title: options.unit}),
        drawn);
  });
}

function legend(names) {
  return element(
      "p", {class: "legend"}, names.map(name => element("span", {}, swatch(name), name)));
}

function heldout_curve(name) {
  return {
    name,
    marks: true,
    points: run.heldout.filter(l => name in l.losses).map(l => [l.step, l.losses[name]]),
  };
}

function add(section, ...nodes) { document.getElementById(section).append(...nodes); }

const last = run.heldout[run.heldout.length - 1];
const done = run.trained.length > 0 ? run.trained[run.trained.length - 1].step : 0;
document.getElementById("heading").textContent = run.name;
document.getElementById("subject").textContent = [
  `${number_text(run.weights)} weights`, `step ${done.toLocaleString("en")} of ${run.steps.toLocaleString("en")}`,
  `${number_text(run.tokens)} tokens`, seconds_text(run.seconds), run.machine,
].filter(part => part).join(" · ");

const loss_names = heldout_names.includes("books") ? [kTrained, "books"] : [kTrained];
const books = loss_names.includes("books");
add("loss", element(
    "p", {class: "note"},
    "Weighted mean loss of the batch of each step, before the update, in nats per token",
    books ? ", and of held-out texts at the longest length." : "."),
    legend(loss_names),
    curves_chart(
        "Loss by step",
        [{name: kTrained, points: run.trained.map(l => [l.step, l.loss])}, ...(books ? [heldout_curve("books")] : [])],
        {unit: "nats per token"}));

if (task_names.length > 0) {
  add("tasks", element(
      "p", {class: "note"}, "Loss of the answers, in nats per answer token, on held-out texts at the longest length."),
      legend(task_names), curves_chart("Loss of answers by step", task_names.map(heldout_curve),
                                       {unit: "nats per answer token", log: true}));
} else {
  document.getElementById("tasks").remove();
}

for (const [key, title, unit] of [
  ["learning_rate", "Learning rate", "per step"],
  ["gradient_norm", "Gradient norm before clipping", ""],
  ["tokens_per_second", "Speed", "tokens/s"],
]) {
  add("pace", element("h3", {}, title), curves_chart(
      title, [{name: kTrained, points: run.trained.map(l => [l.step, l[key]])}], {unit, from: 0}));
}

if (last) {
  add("loss", element(
      "table", {}, element("thead", {}, element("tr", {}, ["held out", "nats per token", "perplexity"].map(
          head => element("th", {}, head)))),
      element("tbody", {}, Object.entries(last.losses).map(([name, loss]) => element(
          "tr", {}, [name, loss.toFixed(4), number_text(Math.exp(loss))].map(cell => element("td", {}, cell)))))));
}
add("config", element("pre", {}, JSON.stringify(run.config, null, 2)));
