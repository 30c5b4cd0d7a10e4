// The sections with lists: the table, the wrong answers, the facts of the run.

const kTableStep = 100;  // rows shown at once; more would slow down the layout

const kTableColumns = [
  {title: "model", text: s => s.model, left: true, only: () => order.models.length > 1},
  {title: "task", text: s => s.task, left: true},
  {title: "length", text: s => format_length(s.length), value: s => s.length},
  {title: "method", text: s => short_name(s.method), value: s => order.methods.indexOf(s.method), name: true},
  {title: "n", text: s => s.n ?? kNothing, value: s => s.n},
  {title: "score", text: s => format_score(s.score), value: s => s.score},
  {title: "95 % interval", text: format_interval, value: s => s.low, drawn: true},
  {
    title: "vs baseline",
    text: s => s,
    value: s => s.score - (baseline_of(s)?.score ?? NaN),
    changed: true,
    only: () => order.methods.length > 1
  },
  {
    title: "prefill/s",
    text: s => format_size(s.prefill_tokens_per_second),
    value: s => s.prefill_tokens_per_second
  },
  {title: "decode/s", text: s => format_size(s.decode_tokens_per_second), value: s => s.decode_tokens_per_second},
  {title: "keys", text: s => format_share(s.keys_attended_share), value: s => s.keys_attended_share},
  {title: "cache", text: s => format_bytes(s.cache_bytes), value: s => s.cache_bytes},
  {title: "peak memory", text: s => format_bytes(s.peak_rss_bytes), value: s => s.peak_rss_bytes},
  {title: "same answer", text: s => format_share(s.same_answer_share), value: s => s.same_answer_share},
  {title: "KL", text: s => format_kl(s.kl), value: s => s.kl},
  {title: "details", text: s => s, left: true, more: true, only: () => [...summaries.values()].some(has_details)},
];

function has_details(summary) {
  return summary.details && typeof summary.details === "object" && Object.keys(summary.details).length > 0;
}

function baseline_of(summary) {
  return summaries.get(key_of(summary.model, summary.task, summary.length, baseline));
}

// A score and its interval between 0 and 1, with the baseline's score as a tick.
function interval_picture(summary) {
  const facts = task_facts.get(summary.task);
  if (facts?.higher_is_better === false || !is_number(summary.low) || !is_number(summary.high)) return null;
  const x = value => 3 + value * 42, base = baseline_of(summary);
  return shape(
      "svg", {class: "interval", width: 48, height: 10, "aria-hidden": "true"},
      shape("line", {class: "grid", x1: 3, x2: 45, y1: 5, y2: 5}),
      base && shape("line", {class: "axis", x1: x(base.score), x2: x(base.score), y1: 0, y2: 10}),
      series(
          summary.method, shape("line", {class: "line", x1: x(summary.low), x2: x(summary.high), y1: 5, y2: 5}),
          shape("circle", {class: "mark", cx: x(summary.score), cy: 5, r: 3})));
}

function details_cell(summary) {
  if (!has_details(summary)) return element("td", {});
  const facts = Object.entries(summary.details)
                    .map(
                        ([name, value]) => element(
                            "div", {},
                            `${name}: ${is_number(value) ? Number(value.toPrecision(4)) : JSON.stringify(value)}`));
  return element("td", {class: "text"}, element("details", {}, element("summary", {}, "more"), facts));
}

function table_cell(column, summary) {
  if (column.name) return method_head(summary.method);
  if (column.more) return details_cell(summary);
  if (column.changed) return element("td", {}, change(summary, baseline_of(summary)));
  if (column.drawn) return element("td", {}, format_interval(summary), " ", interval_picture(summary));
  return element("td", {class: column.left ? "text" : null}, String(column.text(summary) ?? kNothing));
}

// Sorts by a column's value; rows without a value are last, ties keep the order of the run.
function sorted_by(rows, column, falling) {
  const value = column.value ?? column.text;
  return [...rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (typeof x === "string" && typeof y === "string") return (falling ? -1 : 1) * x.localeCompare(y);
    if (!is_number(x) || !is_number(y)) return is_number(y) - is_number(x);
    return (falling ? -1 : 1) * (x - y);
  });
}

function rows_in_order() {
  return order.models
      .flatMap(
          model => order.tasks.flatMap(
              task => order.lengths.flatMap(
                  length => order.methods.map(method => summaries.get(key_of(model, task, length, method))))))
      .filter(Boolean);
}

// Selects that filter a list. limits: the chosen value of each field, null for all.
function limit_choices(limits, update) {
  const options = list => [{value: null, text: "all"}, ...list];
  const named = names => names.map(n => ({value: n, text: n}));
  const limit = (label, field, list) => list.length < 2 ? null : choice(label, options(list), null, value => {
    limits[field] = value;
    update();
  });
  return [
    limit("Model", "model", named(order.models)), limit("Task", "task", named(order.tasks)),
    limit("Length", "length", length_options()),
    limit("Method", "method", order.methods.map(m => ({value: m, text: short_name(m)})))
  ];
}

function within(item, limits) {
  return Object.entries(limits).every(([field, value]) => value === null || item[field] === value);
}

function make_table(section) {
  if (summaries.size === 0) return null;
  const columns = kTableColumns.filter(c => !c.only || c.only()), limits = {}, every = rows_in_order();
  let by = null, falling = false, most = kTableStep;
  const head = element("tr"), body = element("tbody");
  const more = element("button", {
    type: "button",
    class: "more",
    onclick: () => {
      most += 5 * kTableStep;
      update();
    }
  });
  const heads = columns.map(column => {
    const button = element(
        "button", {
          type: "button",
          onclick: () => {
            falling = by === column ? !falling : !column.left && !column.name;
            by = column;
            update();
          }
        },
        column.title);
    return element(
        "th", {scope: "col", class: column.left || column.name ? "text" : null},
        column.more ? column.title : button);
  });
  head.append(...heads);
  const update = () => {
    const found = every.filter(s => within(s, limits)), rows = by ? sorted_by(found, by, falling) : found;
    columns.forEach((c, i) => {
      heads[i].ariaSort = c === by ? (falling ? "descending" : "ascending") : null;
    });
    body.replaceChildren(...rows.slice(0, most).map(
        s => element(
            "tr", {class: s.method === baseline ? "baseline" : null}, columns.map(c => table_cell(c, s)))));
    more.hidden = rows.length <= most;
    more.textContent = `Show more (${most} of ${rows.length})`;
  };
  section.append(
      element(
          "div", {class: "choices"},
          limit_choices(
              limits,
              () => {
                most = kTableStep;
                update();
              })),
      element(
          "div", {class: "wide", tabindex: 0, role: "region", "aria-label": "All results"},
          element("table", {class: "results"}, element("thead", {}, head), body)),
      more,
      element(
          "p", {class: "note"},
          "The tick in an interval is the baseline's score. Rates are tokens per second. keys: share of the (query, key)",
          " pairs that are attended. same answer and KL (divergence in nats) compare with the baseline."));
  return update;
}

// Wrong answers.

function answer_item(answer) {
  const head = [
    order.models.length > 1 && answer.model, answer.task, `${format_length(answer.length)} tokens`,
    short_name(answer.method ?? ""), `sample ${answer.sample ?? kNothing}`, `score ${format_score(answer.score, 2)}`
  ];
  if (is_number(answer.baseline_score) && answer.method !== baseline)
    head.push(`${short_name(baseline)} ${format_score(answer.baseline_score, 2)}`);
  const fact = (name, text) => [element("dt", {}, name), element("dd", {}, element("pre", {}, text))];
  const expected = items(answer.reference).join("\n");
  return element(
      "details", {class: "answer"}, element("summary", {}, head.filter(Boolean).join(" · ")),
      element(
          "dl", {}, fact("answer", answer.answer || "(empty)"), fact("expected", expected || "(none)"),
          is_number(answer.depth) && fact("depth", format_share(answer.depth)),
          is_number(answer.prompt_tokens) && fact("prompt", `${answer.prompt_tokens} tokens`)));
}

function make_answers(section) {
  const kMost = 200, {total, shown} = run.answers;
  if (total === 0) return null;
  const limits = {}, list = element("div"), count = element("p", {class: "note"});
  let only_lost = false;
  const update = () => {
    const found =
        shown.filter(a => within(a, limits) && (!only_lost || (a.baseline_score === 1 && a.method !== baseline)));
    count.textContent =
        `Showing ${Math.min(kMost, found.length)} of ${found.length} selected answers, worst first for each method. ${
            total} answers of the run are below the full score.` +
        (total > shown.length ? ` The page contains ${shown.length} of them; the results file (--json) has all.` : "");
    list.replaceChildren(...found.slice(0, kMost).map(answer_item));
  };
  section.append(
      element(
          "div", {class: "choices"}, limit_choices(limits, update),
          order.methods.length > 1 &&
              element(
                  "label", {}, element("input", {
                    type: "checkbox",
                    onchange: event => {
                      only_lost = event.target.checked;
                      update();
                    }
                  }),
                  "only answers that the baseline has right")),
      count, list);
  return update;
}

// The run.

function copy_text(text, button, source) {
  const done = () => {
    button.textContent = "Copied";
  };
  const by_hand = () => {
    getSelection().selectAllChildren(source);
    if (document.execCommand("copy")) done();
  };
  if (navigator.clipboard) {
    navigator.clipboard.writeText(text).then(done, by_hand);
  } else {
    by_hand();
  }
}

function fact_text(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function fact_list(facts) {
  return element(
      "dl", {class: "facts"},
      facts.filter(([, value]) => value !== null && value !== undefined)
          .map(([name,
                 value]) => [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, fact_text(value))]));
}

function make_details(section) {
  if (typeof run.command === "string" && run.command) {
    const command = element("pre", {class: "command"}, run.command);
    const button =
        element("button", {type: "button", onclick: () => copy_text(run.command, button, command)}, "Copy");
    section.append(element("h3", {}, "Command"), command, button);
  }
  for (const model of items(run.models).filter(m => m && typeof m === "object")) {
    const {bytes, ...rest} = model;
    const size = is_number(bytes) ? [["size", format_bytes(bytes)]] : [];
    section.append(element("h3", {}, "Model"), fact_list([...Object.entries(rest), ...size]));
  }
  section.append(element("h3", {}, "Environment"), fact_list([
                   ["date", format_date(run.created)], ["version", run.version], ["seed", run.seed],
                   ...Object.entries(run.machine ?? {}), ...Object.entries(run.settings ?? {})
                 ]));
  if (order.methods.length > 0)
    section.append(
        element("h3", {}, "Methods"),
        element("ol", {}, order.methods.map(m => element("li", {}, element("code", {}, m)))));
  return () => {};
}
