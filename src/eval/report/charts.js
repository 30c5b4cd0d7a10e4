// The charts. Each function takes the available width and returns an element.

// The values of one method: [length, summary] for each length with a summary.
function values_of(subject, model, method) {
  return order.lengths.map(length => [length, subject.at(model, length, method)]).filter(([, summary]) => summary);
}

// Labels at the ends of lines, moved so that they do not overlap. labels: [{y, method}].
function end_labels(labels, x, area, most) {
  const kLine = 14;
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => {
    label.y = Math.max(label.y, i > 0 ? labels[i - 1].y + kLine : area.top);
  });
  for (let i = labels.length - 1, limit = area.bottom; i >= 0; --i, limit -= kLine)
    labels[i].y = Math.min(labels[i].y, limit);
  return labels.map(
      ({y, method}) => series(
          method,
          shape(
              "text", {x, y: y + 4, class: method === baseline ? "strong" : null},
              cut(short_name(method), most))));
}

// Score by length, a line for each method. labelled: lines have labels if there is enough space.
function curve_chart(width, subject, model, methods, labelled) {
  const lines =
      methods.map(method => ({method, values: values_of(subject, model, method)})).filter(l => l.values.length > 0);
  const names = labelled && width >= 640 && lines.length <= 14;
  const height = labelled ? Math.max(260, Math.min(380, width * 0.45)) : 190;
  const area = {left: 40, right: width - (names ? 230 : 14), top: 22, bottom: height - 36};
  const [low, high] = value_range(subject, lines.flatMap(l => l.values.map(v => v[1])), true);
  const lengths = order.lengths, ticks = linear_ticks(low, high, 4);
  const x =
      log_scale(Math.max(1, lengths[0]), Math.max(1, lengths[lengths.length - 1]), area.left + 10, area.right - 10);
  const y = linear_scale(low, high, area.bottom, area.top);
  const svg = chart(
      width, height, `${subject.title} by length for ${plural(lines.length, "method")}`,
      plane(
          area, {at: x, ticks: lengths, text: format_length, title: labelled ? "tokens" : null},
          {at: y, ticks, text: t => tick_text(t, ticks), title: axis_title(subject)}));
  // The baseline is drawn last, above the others.
  for (const {method, values} of [...lines].sort((a, b) => (a.method === baseline) - (b.method === baseline))) {
    const points = values.map(([length, s]) => [x(length), y(s.score)]);
    const edge = [
      ...values.map(([length, s]) => [x(length), y(high_of(s))]),
      ...values.map(([length, s]) => [x(length), y(low_of(s))]).reverse()
    ];
    const banded = lines.length <= 5 || method === baseline;  // more bands would cover each other
    svg.append(series(
        method, banded && shape("path", {class: "band", d: "M" + edge.map(p => p.join(" ")).join("L") + "Z"}),
        line(method, points),
        values.map(
            ([length, s], i) => mark(
                method, ...points[i],
                method === baseline               ? 4 :
                    labelled || lines.length <= 8 ? 3.5 :
                                                    2,
                tip_of(`${short_name(method)}, ${subject.title}, ${format_length(length)} tokens`, s)))));
  }
  if (names) {
    svg.append(...end_labels(
        lines.map(l => ({method: l.method, y: y(l.values[l.values.length - 1][1].score)})), area.right + 4, area,
        36));
  }
  return svg;
}

// For a single length: a row for each method with its score and interval.
function interval_chart(width, subject, model, methods, labelled) {
  const length = order.lengths[0], kRow = 20;
  const rows = methods.map(method => ({method, summary: subject.at(model, length, method)})).filter(r => r.summary);
  const names = Math.min(230, width * 0.45), height = rows.length * kRow + 50;
  const area = {left: names, right: width - 14, top: 8, bottom: height - 36};
  const [low, high] = value_range(subject, rows.map(r => r.summary), true);
  const ticks = linear_ticks(low, high, width > 500 ? 4 : 3), x = linear_scale(low, high, area.left, area.right);
  const svg = chart(
      width, height, `${subject.title} at ${format_length(length)} tokens for ${plural(rows.length, "method")}`,
      plane(
          area, {at: x, ticks, text: t => tick_text(t, ticks), title: labelled ? axis_title(subject) : null},
          {at: () => 0, ticks: [], text: String}));
  rows.forEach(({method, summary}, i) => {
    const y = area.top + (i + 0.5) * kRow;
    svg.append(series(
        method,
        shape(
            "text", {x: 0, y: y + 4, class: method === baseline ? "strong" : null},
            cut(short_name(method), Math.floor(names / 6.4))),
        shape("line", {class: "line", x1: x(low_of(summary)), x2: x(high_of(summary)), y1: y, y2: y}),
        mark(method, x(summary.score), y, 4, tip_of(`${short_name(method)}, ${subject.title}`, summary))));
  });
  return svg;
}

// Score by depth and length for one method: a table, so that screen readers, copying and printing work.
// cells: of one model and task; rows: [from, to] of the depths.
function depth_map(cells, rows, lengths, method) {
  const found = new Map(cells.filter(c => c.method === method).map(c => [key_of(c.from, c.length), c]));
  const percent = share => String(Math.round(share * 100));
  const name = ([from, to]) => from === to ? `${percent(from)} %` : `${percent(from)}–${percent(to)} %`;
  const cell = (depth, length) => {
    const c = found.get(key_of(depth[0], length));
    if (!c) return element("td", {class: "none"}, kNothing);
    const text = c.score.toFixed(2).replace(/^0\.00$/, "0").replace(/^0\./, ".").replace(/^1\.00$/, "1");
    const td = element(
        "td", {
          class: c.score > 0.55 ? "full" : null,
          "data-tip": tip_of(`${short_name(method)}\ndepth ${name(depth)}, ${format_length(length)} tokens`, c),
        },
        text);
    td.style.setProperty("--score", Math.min(1, Math.max(0, c.score)));
    return td;
  };
  return element(
      "table", {class: "depths", tabindex: 0, "aria-label": `Scores of ${method} by depth and length`},
      element(
          "thead", {},
          element(
              "tr", {}, element("th", {scope: "col"}, "depth"),
              lengths.map(l => element("th", {scope: "col"}, format_length(l))))),
      element(
          "tbody", {},
          rows.map(r => element("tr", {}, element("th", {scope: "row"}, name(r)), lengths.map(l => cell(r, l))))));
}

// Returns the Pareto front, best x first: points for which no other point is better in both coordinates.
// points: {x, y}; more: larger x is better; higher: larger y is better.
function pareto_front(points, more, higher) {
  const better_x = (a, b) => more ? b.x - a.x : a.x - b.x;
  const better_y = (a, b) => higher ? b.y - a.y : a.y - b.y;
  const front = [];
  for (const point of [...points].sort((a, b) => better_x(a, b) || better_y(a, b))) {
    if (front.length === 0 || better_y(point, front[front.length - 1]) < 0) front.push(point);
  }
  return front;
}

// Positions names next to their points where they overlap neither a point nor another name; omits the others.
// names: [{x, y, text, room}]; room: the radius of the point.
function placed_names(names, points, area) {
  const kCharacter = 6.6;  // pixels, at most
  const taken =
      points.map(({x, y, room = 5}) => ({left: x - room, right: x + room, top: y - room, bottom: y + room}));
  const placed = [];
  for (const name of names) {
    const width = name.text.length * kCharacter, gap = (name.room ?? 5) + 3;
    const boxes = [
      [name.x + gap, name.y], [name.x - gap - width, name.y], [name.x - width / 2, name.y - gap - 6],
      [name.x - width / 2, name.y + gap + 6]
    ].map(([left, y]) => ({left, right: left + width, top: y - 6, bottom: y + 6}));
    const box = boxes.find(
        b => b.left >= area.left && b.right <= area.right && b.top >= area.top && b.bottom <= area.bottom &&
            !taken.some(t => t.left < b.right && b.left < t.right && t.top < b.bottom && b.top < t.bottom));
    if (!box) continue;
    taken.push(box);
    placed.push({...name, left: box.left, base: box.bottom - 2});
  }
  return placed;
}

// Score by cost. cost: {field, title, more, format, binary}.
function cost_chart(width, subject, model, length, methods, cost) {
  const points = methods.map(method => ({method, summary: subject.at(model, length, method)}))
                     .filter(p => p.summary && p.summary[cost.field] > 0)
                     .map(p => ({...p, x: p.summary[cost.field], y: p.summary.score}));
  if (points.length === 0) return element("p", {class: "note"}, "Not measured for this selection.");
  const height = 330, area = {left: 44, right: width - 14, top: 24, bottom: height - 40};
  const range = [Math.min(...points.map(p => p.x)) / 1.25, Math.max(...points.map(p => p.x)) * 1.25];
  const [low, high] = value_range(subject, points.map(p => p.summary), false), ticks = linear_ticks(low, high, 5);
  const x = log_scale(...range, area.left, area.right), y = linear_scale(low, high, area.bottom, area.top);
  let x_ticks = log_ticks(...range, cost.binary);
  if (x_ticks.length < 2) x_ticks = linear_ticks(...range, 4);
  const svg = chart(
      width, height, `${subject.title} against ${cost.title} at ${format_length(length)} tokens`,
      plane(
          area, {at: x, ticks: x_ticks, text: cost.format, title: cost.title, room: 58},
          {at: y, ticks, text: t => tick_text(t, ticks), title: axis_title(subject)}));
  const front = pareto_front(points, cost.more, subject.higher);
  svg.append(shape("path", {
    class: "front",
    d: front.map((p, i) => i === 0 ? `M${x(p.x)} ${y(p.y)}` : `H${x(p.x)}V${y(p.y)}`).join("")
  }));
  const named = [...points.filter(p => front.includes(p)), ...points.filter(p => !front.includes(p))];
  const names = named.map(p => ({x: x(p.x), y: y(p.y), method: p.method, text: cut(short_name(p.method), 30)}));
  for (const name of placed_names(names, names, area)) {
    svg.append(series(name.method, shape("text", {x: name.left, y: name.base}, name.text)));
  }
  for (const p of points) {
    svg.append(series(
        p.method,
        shape("line", {class: "bar", x1: x(p.x), x2: x(p.x), y1: y(low_of(p.summary)), y2: y(high_of(p.summary))}),
        mark(
            p.method, x(p.x), y(p.y), 5,
            tip_of(
                `${short_name(p.method)}, ${subject.title}${front.includes(p) ? "\non the Pareto front" : ""}`,
                p.summary))));
  }
  return svg;
}

// Tasks by the share of the text that is evidence and its spread; the area is the number of spans.
function taxonomy_chart(width, tasks) {
  const height = 300, area = {left: 44, right: width - 14, top: 24, bottom: height - 40};
  const scopes = tasks.map(t => t.scope).filter(scope => scope > 0);
  const least = Math.min(0.001, ...scopes), highest = Math.max(0.3, ...tasks.map(t => t.spread ?? 0)) * 1.12;
  const x = log_scale(least, 1, area.left + 10, area.right),
        y = linear_scale(0, highest, area.bottom - 12, area.top);
  const ticks = linear_ticks(0, highest, 4), tenfold = [0.0001, 0.001, 0.01, 0.1, 1].filter(t => t >= least);
  const svg = chart(
      width, height, "Tasks by scope and spread of their evidence",
      plane(
          area, {at: x, ticks: tenfold, text: t => `${t * 100} %`, title: "scope: evidence as a share of the text"},
          {at: y, ticks, text: t => tick_text(t, ticks), title: "spread of the evidence"}));
  const dots = tasks.map(t => ({
                           task: t,
                           x: x(Math.min(1, Math.max(least, t.scope))),
                           y: y(t.spread ?? 0),
                           text: cut(t.name, 24),
                           room: Math.min(18, 3 + 1.6 * Math.sqrt(is_number(t.spans) ? t.spans : 1)),
                         }));
  for (const dot of [...dots].sort((a, b) => b.room - a.room)) {
    const {task} = dot, facts = [task.name, task.summary, `scope ${format_share(task.scope)}`];
    if (is_number(task.spans)) facts.push(`${Number(task.spans.toFixed(1))} spans`);
    if (is_number(task.spread)) facts.push(`spread ${task.spread.toFixed(2)}`);
    if (is_number(task.overlap)) facts.push(`words shared by question and evidence ${format_share(task.overlap)}`);
    svg.append(shape(
        "circle",
        {class: "bubble", cx: dot.x, cy: dot.y, r: dot.room, "data-tip": facts.filter(Boolean).join("\n")}));
  }
  svg.append(...placed_names(dots, dots, area).map(d => shape("text", {x: d.left, y: d.base}, d.text)));
  return svg;
}
