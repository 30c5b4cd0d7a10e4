"use strict";
// The data of the run, functions to look it up, and number formats.

const run = JSON.parse(document.getElementById("data").textContent);
const order = run.order;
const baseline = order.methods[0];
const kNothing = "–";

function is_number(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function items(value) {
  return Array.isArray(value) ? value : [];
}

function key_of(...parts) {
  return JSON.stringify(parts);
}

const task_facts = new Map(items(run.tasks).filter(t => t && t.name).map(t => [t.name, t]));
const summaries = new Map();
for (const s of items(run.summaries)) {
  if (!s || !is_number(s.score)) continue;
  const [model, task, method] = [s.model, s.task, s.method].map(name => typeof name === "string" ? name : "");
  summaries.set(key_of(model, task, s.length, method), {...s, model, task, method});
}
const means = new Map(run.means.map(m => [key_of(m.model, m.measure, m.higher_is_better, m.length, m.method), m]));
const ruler_means = new Map(run.ruler.means.map(m => [key_of(m.model, m.length, m.method), m]));
const effective_lengths = new Map(run.ruler.effective_lengths.map(e => [key_of(e.model, e.method), e.length]));

// A subject of a chart is one task, or the mean of all tasks of one measure.
function task_subject(task) {
  const facts = task_facts.get(task) ?? {};
  const measure = typeof facts.measure === "string" ? facts.measure : "score";
  return {
    key: "task " + task,
    title: task,
    measure,
    higher: facts.higher_is_better !== false,
    at: (model, length, method) => summaries.get(key_of(model, task, length, method)),
  };
}

function mean_subjects() {
  const found = new Map();
  for (const m of run.means) {
    const key = key_of(m.measure, m.higher_is_better);
    if (found.has(key)) continue;
    found.set(key, {
      key: "mean " + key,
      title: "",
      measure: m.measure,
      higher: m.higher_is_better,
      tasks: 0,
      at: (model, length, method) => means.get(key_of(model, m.measure, m.higher_is_better, length, method)),
    });
  }
  for (const m of run.means) {
    const subject = found.get(key_of(m.measure, m.higher_is_better));
    subject.tasks = Math.max(subject.tasks, m.tasks);
  }
  for (const subject of found.values()) {
    const own =
        order.tasks.map(task_subject).filter(t => t.measure === subject.measure && t.higher === subject.higher);
    subject.title = own.length === 1 ? own[0].title : `mean of ${plural(subject.tasks, "task")}`;
    if (own.length > 1 && found.size > 1) subject.title += `, ${subject.measure}`;
  }
  return [...found.values()];
}

const all_means = mean_subjects();
const all_tasks = order.tasks.map(task_subject);
// The mean of a single task is omitted; it equals the task.
const all_subjects = [...all_means.filter(s => s.tasks > 1), ...all_tasks];

function axis_title(subject) {
  return subject.higher ? subject.measure : `${subject.measure} (lower is better)`;
}

function low_of(summary) {
  return is_number(summary.low) ? summary.low : summary.score;
}

function high_of(summary) {
  return is_number(summary.high) ? summary.high : summary.score;
}

function are_disjoint(a, b) {
  return high_of(a) < low_of(b) || high_of(b) < low_of(a);
}

// Removes the common prefix of all methods: "window:window=64" if all begin with "attend=".
const method_prefix = (() => {
  const prefix = (order.methods[0] ?? "").match(/^[a-z]+=/)?.[0] ?? "";
  return order.methods.every(m => m.startsWith(prefix) && m.length > prefix.length) ? prefix : "";
})();

function short_name(method) {
  return method.slice(method_prefix.length) || "method";
}

// Removes the middle of a text that is too long; methods differ at both ends.
function cut(text, most) {
  if (text.length <= most) return text;
  const head = Math.ceil(most * 0.6);
  return text.slice(0, head) + "…" + text.slice(head + 1 - most);
}

// Three significant digits without trailing zeros.
function three_digits(value) {
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

function with_unit(value, units) {
  if (!is_number(value)) return kNothing;
  let rest = Math.abs(value), step = 0;
  for (; rest >= 1023.5 && step + 1 < units.length; ++step) rest /= 1024;
  return (value < 0 ? "−" : "") + three_digits(rest) + units[step];
}

const format_size = value => with_unit(value, ["", "k", "m", "g", "t"]);
const format_bytes = value => with_unit(value, [" B", " KiB", " MiB", " GiB", " TiB"]);

function format_length(tokens) {
  return tokens >= 1024 && tokens % 1024 === 0 ? format_size(tokens) : String(tokens);
}

function format_score(value, digits = 3) {
  return is_number(value) ? value.toFixed(digits) : kNothing;
}

function format_interval(summary) {
  if (!is_number(summary.low) || !is_number(summary.high)) return kNothing;
  return `${summary.low.toFixed(2)}–${summary.high.toFixed(2)}`;
}

function format_share(value) {
  if (!is_number(value)) return kNothing;
  return `${(value * 100).toFixed(value > 0 && value < 0.0995 ? 1 : 0)} %`;
}

function format_change(value) {
  if (!is_number(value)) return kNothing;
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
}

function format_kl(value) {
  return is_number(value) ? value.toFixed(4) : kNothing;
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

// The text of the tooltip of a summary.
function tip_of(title, summary) {
  const lines = [title, `${format_score(summary.score)}, 95 % interval ${format_interval(summary)}`];
  const fact = (name, text) => {
    if (text !== kNothing) lines.push(`${name}: ${text}`);
  };
  if (is_number(summary.n)) lines.push(plural(summary.n, "sample"));
  if (is_number(summary.tasks)) lines.push(`mean of ${plural(summary.tasks, "task")}`);
  fact(
      "decode",
      is_number(summary.decode_tokens_per_second) ? `${format_size(summary.decode_tokens_per_second)} tokens/s` :
                                                    kNothing);
  fact("keys attended", format_share(summary.keys_attended_share));
  fact("cache", format_bytes(summary.cache_bytes));
  return lines.join("\n");
}
