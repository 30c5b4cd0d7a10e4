// The page: its sections, the selections in them, and the bar above them.

const state = {
  model: order.models[0] ?? "",
  shown: new Set(order.methods),
  picked: null
};

function shown_methods() {
  return order.methods.filter(m => state.shown.has(m));
}

function length_options() {
  return order.lengths.map(l => ({value: l, text: format_length(l)}));
}

function method_head(method) {
  return element("th", {class: "name", scope: "row", title: method}, broken_name(method));
}

// The difference to the baseline. A star marks disjoint intervals for readers without colour vision.
function change(summary, base) {
  if (!base || base === summary) return null;
  const disjoint = are_disjoint(summary, base);
  return element(
      "span",
      {class: disjoint ? "change disjoint" : "change", title: disjoint ? "the intervals do not overlap" : null},
      `${format_change(summary.score - base.score)}${disjoint ? " *" : ""}`);
}

function write_heading() {
  const models = order.models.filter(Boolean).join(", ");
  const lengths = order.lengths.map(format_length);
  const span = lengths.length > 1 ? `${lengths[0]} to ${lengths[lengths.length - 1]} tokens` :
                                    lengths.map(l => `${l} tokens`).join("");
  document.getElementById("heading").textContent = models || (summaries.size > 0 ? "Results" : "No results");
  document.getElementById("subject").textContent = [
    plural(order.tasks.length, "task"),
    span,
    plural(order.methods.length, "method"),
    is_number(run.settings?.samples) ? `${plural(run.settings.samples, "sample")} each` : "",
    format_date(run.created),
  ].filter(Boolean).join(" · ");
  document.title = [
    `fathom eval: ${cut(models, 60)}`, plural(order.tasks.length, "task"), plural(order.methods.length, "method")
  ].join(", ");
}

function format_date(text) {
  return typeof text === "string" ? text.replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*Z$/, "$1 $2 UTC") : "";
}

// The summary: the means of each method at each length, compared with the baseline.

function finding_sentence(subject, model) {
  const length = order.lengths.filter(l => subject.at(model, l, baseline)).pop();
  if (length === undefined) return null;
  const base = subject.at(model, length, baseline);
  const others = order.methods.slice(1)
                     .map(method => ({method, summary: subject.at(model, length, method)}))
                     .filter(o => o.summary);
  others.sort((a, b) => (subject.higher ? 1 : -1) * (b.summary.score - a.summary.score));
  const where = `${order.models.length > 1 ? model + ", " : ""}${format_length(length)} tokens: `;
  return element(
      "p", {class: "lead"}, `${where}${short_name(baseline)} scores ${format_score(base.score)}`,
      subject.higher ? ". " : ` ${subject.measure} (lower is better). `, compared(others, base));
}

// others: [{method, summary}], best first.
function compared(others, base) {
  const label_of = o => `${short_name(o.method)} (${format_score(o.summary.score)})`;
  const alike = others.filter(o => !are_disjoint(o.summary, base)).length;
  if (others.length === 0) return "";
  if (others.length === 1) {
    return `The 95 % interval of ${label_of(others[0])} ${alike ? "overlaps" : "does not overlap"} the baseline's.`;
  }
  const agree = `${alike || "None"} of the ${others.length} other methods ${alike > 1 ? "have" : "has"} a 95 % interval`;
  const ends = `The best is ${label_of(others[0])}, the worst ${label_of(others[others.length - 1])}.`;
  return `${agree} that overlaps the baseline's. ${ends}`;
}

// rows: {model, method}; at: (row, length) → summary; last: additional columns [{title, text: row → string}].
function length_table(rows, at, last) {
  const columns = 1 + order.lengths.length + last.length, lines = [];
  let model = null;
  for (const row of rows) {
    if (order.models.length > 1 && row.model !== model) {
      model = row.model;
      lines.push(
          element("tr", {class: "model"}, element("th", {colspan: columns, scope: "rowgroup"}, model || kNothing)));
    }
    lines.push(element(
        "tr", {class: row.method === baseline ? "baseline" : null}, method_head(row.method),
        order.lengths.map(length => {
          const summary = at(row, length);
          return element(
              "td", {title: summary ? tip_of(row.method, summary) : null}, format_score(summary?.score),
              summary && change(summary, at({...row, method: baseline}, length)));
        }),
        last.map(c => element("td", {}, c.text(row)))));
  }
  return element(
      "div", {class: "wide", tabindex: 0, role: "region", "aria-label": "Means by method and length"},
      element(
          "table", {},
          element(
              "thead", {},
              element(
                  "tr", {}, element("th", {class: "text", scope: "col"}, "method"),
                  order.lengths.map(l => element("th", {scope: "col"}, format_length(l))),
                  last.map(c => element("th", {scope: "col"}, c.title)))),
          element("tbody", {}, lines)));
}

function model_methods(has) {
  return order.models.flatMap(model => order.methods.map(method => ({model, method}))).filter(has);
}

function effective_column() {
  return {
    title: "effective length",
    text: row => {
      const length = effective_lengths.get(key_of(row.model, row.method));
      return is_number(length) ? format_length(length) : kNothing;
    },
  };
}

function make_finding(section) {
  if (all_means.length === 0) return null;
  const kRulerTasks = 13, has_ruler = ruler_means.size > 0,
        only_ruler = has_ruler && order.tasks.length === kRulerTasks;
  const longest = order.lengths[order.lengths.length - 1];
  for (const subject of all_means) {
    const cost = (title, field, format) =>
        ({title, text: row => format(subject.at(row.model, longest, row.method)?.[field])});
    const costs = [
      cost("keys", "keys_attended_share", format_share), cost("decode/s", "decode_tokens_per_second", format_size),
      cost("cache", "cache_bytes", format_bytes)
    ];
    const rows = model_methods(r => order.lengths.some(l => subject.at(r.model, l, r.method)));
    section.append(
        element("h3", {}, only_ruler ? "RULER, " + subject.title : subject.title),
        ...order.models.map(model => finding_sentence(subject, model)).filter(Boolean),
        length_table(
            rows, (row, length) => subject.at(row.model, length, row.method),
            only_ruler ? [effective_column(), ...costs] : costs));
  }
  section.append(element(
      "p", {class: "note"},
      order.methods.length > 1 &&
          "Below each score: the difference to the baseline; * marks 95 % intervals that do not overlap. ",
      `Keys attended, decoding speed and cache size are measured at ${format_length(longest)} tokens.`));
  if (has_ruler && !only_ruler) {
    const at = (row, length) => ruler_means.get(key_of(row.model, length, row.method));
    section.append(
        element("h3", {}, "RULER, mean of its 13 tasks"),
        length_table(model_methods(r => order.lengths.some(l => at(r, l))), at, [effective_column()]));
  }
  if (has_ruler)
    section.append(element(
        "p", {class: "note"},
        "Effective length: the largest length at which the mean of RULER's tasks is at least 0.856."));
  return () => {};
}

// Score by length.

function make_curves(section) {
  if (all_subjects.length === 0) return null;
  const draw = order.lengths.length > 1 ? curve_chart : interval_chart;
  if (order.lengths.length === 1)
    section.querySelector("h2").textContent = `Scores at ${format_length(order.lengths[0])} tokens`;
  const large = element("div"), small = element("div", {class: "charts"});
  section.append(
      large,
      element(
          "p", {class: "note"}, "Bands and bars are 95 % intervals; with more than five methods only the baseline has a band."),
      small);
  const figure = (subject, labelled) => element(
      "figure", {},
      element("figcaption", {title: task_facts.get(subject.title)?.summary}, element("b", {}, subject.title)),
      chart_box(width => draw(width, subject, state.model, shown_methods(), labelled)));
  return () => {
    const available =
        all_subjects.filter(s => order.lengths.some(l => order.methods.some(m => s.at(state.model, l, m))));
    const first = available.filter(s => s.key.startsWith("mean")).length || (available.length === 1 ? 1 : 0);
    replace_figures(large, available.slice(0, first).map(s => figure(s, true)));
    replace_figures(small, available.slice(first).map(s => figure(s, false)));
  };
}

// Depth and length.

function make_depths(section) {
  const tasks = order.tasks.filter(t => run.cells.some(c => c.task === t));
  if (tasks.length === 0) return null;
  let task = tasks[0];
  const maps = element("div", {class: "charts"});
  const update = () => {
    const cells = run.cells.filter(c => c.task === task && c.model === state.model);
    const rows =
        [...new Map(run.cells.filter(c => c.task === task).map(c => [c.from, [c.from, c.to]])).values()].sort(
            (a, b) => a[0] - b[0]);
    replace_figures(
        maps,
        shown_methods()
            .filter(m => cells.some(c => c.method === m))
            .map(
                method => element(
                    "figure", {}, element("figcaption", {title: method}, element("b", {}, broken_name(method))),
                    depth_map(cells, rows, order.lengths, method))));
  };
  const shade = value => {
    const box = element("i");
    box.style.setProperty("--score", value);
    return box;
  };
  section.append(
      element(
          "div", {class: "choices"},
          choice(
              "Task", tasks.map(t => ({value: t, text: t})), task,
              value => {
                task = value;
                update();
              }),
          tasks.length === 1 && element("span", {class: "muted"}, task),
          element(
              "span", {class: "scale", role: "img", "aria-label": "Colour scale from score 0 (pale) to 1 (strong)"}, "0",
              [0, 0.25, 0.5, 0.75, 1].map(shade), "1")),
      maps);
  return update;
}

// Quality and cost.

function make_costs(section) {
  const costs = [
    {
      field: "decode_tokens_per_second",
      title: "decoding, tokens per second",
      more: true,
      format: format_size,
      binary: false
    },
    {field: "cache_bytes", title: "cache memory", more: false, format: format_bytes, binary: true},
  ].filter(cost => [...summaries.values()].some(s => s[cost.field] > 0));
  if (costs.length === 0) return null;
  let subject = all_subjects[0], length = order.lengths[order.lengths.length - 1];
  const pair = element("div", {class: "pair"});
  const update = () => replace_figures(
      pair,
      costs.map(
          cost => element(
              "figure", {}, element("figcaption", {}, element("b", {}, `${subject.title} by ${cost.title}`)),
              chart_box(width => cost_chart(width, subject, state.model, length, shown_methods(), cost)))));
  section.append(
      element(
          "div", {class: "choices"},
          choice(
              "Length", length_options(), length,
              value => {
                length = value;
                update();
              }),
          choice(
              "Score", all_subjects.map(s => ({value: s, text: s.title})), subject,
              value => {
                subject = value;
                update();
              })),
      pair,
      element(
          "p", {class: "note"},
          "The dashed line is the Pareto front: methods for which no other method is better in both score and cost. ",
          "For means over tasks, speed and memory are medians."));
  return update;
}

// The tasks.

function make_tasks(section) {
  const described = [...task_facts.values()];
  const placed = described.filter(t => is_number(t.scope)), summarised = described.filter(t => t.summary);
  if (placed.length + summarised.length === 0) return null;
  if (placed.length > 0) {
    section.append(
        element(
            "p", {class: "note"},
            "The share of the text on which an answer depends (scope) and how scattered it is (spread) together indicate ",
            "difficulty better than length alone. The area of a dot is the number of separate spans."),
        element("figure", {}, chart_box(width => taxonomy_chart(Math.min(width, 760), placed))));
  }
  if (summarised.length > 0) {
    section.append(element(
        "details", {}, element("summary", {}, "Task descriptions"),
        element(
            "dl", {class: "facts"},
            summarised.map(t => [element("dt", {}, t.name), element("dd", {}, String(t.summary))]))));
  }
  return () => {};
}

// The bar above the sections.

function dim_all_but(method) {
  if (method === state.picked) return;
  state.picked = method;
  for (const node of document.querySelectorAll("main svg[role=img] .series")) {
    node.classList.toggle("dim", method !== null && node.dataset.method !== method);
  }
}

function pick_under_pointer(event) {
  dim_all_but(event.target.closest("svg[role=img] .series")?.dataset.method ?? null);
}

function make_controls(update) {
  const chips = element("div", {class: "chips"});
  const set_shown = (methods) => {
    state.shown = new Set(methods);
    for (const chip of chips.querySelectorAll("button[data-method]"))
      chip.ariaPressed = String(state.shown.has(chip.dataset.method));
    update();
  };
  const chip = method => element(
      "button", {
        type: "button",
        title: method,
        "data-method": method,
        "aria-pressed": "true",
        onclick: () => set_shown(order.methods.filter(m => state.shown.has(m) !== (m === method))),
        onpointerenter: () => dim_all_but(state.shown.has(method) ? method : null),
        onpointerleave: () => dim_all_but(null),
      },
      swatch(method), cut(short_name(method), 40));
  if (order.methods.length > 1) {
    chips.append(...order.methods.map(chip));
    if (order.methods.length > 3) {
      chips.prepend(
          element("button", {class: "all", type: "button", onclick: () => set_shown(order.methods)}, "All"),
          element(
              "button", {class: "all", type: "button", onclick: () => set_shown([baseline])}, "Only the baseline"));
    }
  }
  const models = choice("Model", order.models.map(m => ({value: m, text: m || kNothing})), state.model, value => {
    state.model = value;
    update();
  });
  const controls = document.getElementById("controls");
  controls.append(...[models, chips.childElementCount > 0 && chips].filter(Boolean));
  document.querySelector("main").addEventListener("pointerover", pick_under_pointer);
  controls.hidden = controls.childElementCount === 0;
}

function make_page() {
  write_heading();
  const makers = {
    finding: make_finding,
    curves: make_curves,
    depths: make_depths,
    costs: make_costs,
    table: make_table,
    tasks: make_tasks,
    answers: make_answers,
    details: make_details,
  };
  const updates = [];
  for (const [id, make] of Object.entries(makers)) {
    const section = document.getElementById(id), update = make(section);
    if (!update) {
      section.remove();
      continue;
    }
    updates.push(update);
    document.getElementById("contents")
        .append(element("a", {href: "#" + id}, section.querySelector("h2").textContent));
  }
  const update = () => updates.forEach(u => u());
  make_controls(update);
  update();
}

make_page();
