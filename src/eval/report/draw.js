// Elements, scales, axes, the marks of methods, and the tooltip.

const kSvg = document.getElementById("namespace").namespaceURI;

function fill_node(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

function element(tag, attributes = {}, ...children) {
  return fill_node(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return fill_node(document.createElementNS(kSvg, tag), attributes, children);
}

// A select with a label, or null with fewer than two options.
function choice(label, options, value, on_change) {
  if (options.length < 2) return null;
  const select = element(
      "select", {onchange: () => on_change(options[select.selectedIndex].value)},
      options.map(o => element("option", {selected: o.value === value}, o.text)));
  return element("label", {}, label, select);
}

// For each box with a chart: the function that draws it and the width for which it was drawn.
const drawings = new WeakMap();

function draw_box(box, width) {
  const drawing = drawings.get(box);
  if (width === 0 || width === drawing.width) return;
  drawing.width = width;
  box.replaceChildren(drawing.draw(width));
}

const width_observer = new ResizeObserver(entries => requestAnimationFrame(() => {
                                            for (const {target} of entries) {
                                              if (target.isConnected)
                                                draw_box(target, target.clientWidth);
                                              else
                                                width_observer.unobserve(target);
                                            }
                                          }));

// A box with the chart draw(width), which is redrawn when the width changes.
function chart_box(draw) {
  const box = element("div", {class: "chart"});
  drawings.set(box, {draw, width: 0});
  width_observer.observe(box);
  return box;
}

// Replaces figures in a visible part of the page. The charts are drawn immediately so that the page does not
// scroll.
function replace_figures(holder, figures) {
  holder.style.minHeight = `${holder.offsetHeight}px`;
  holder.replaceChildren(...figures);
  const boxes = [...holder.querySelectorAll(".chart")], widths = boxes.map(box => box.clientWidth);
  boxes.forEach((box, i) => draw_box(box, widths[i]));
  holder.style.minHeight = "";
}

function linear_scale(from, to, start, end) {
  return value => start + (value - from) / (to - from || 1) * (end - start);
}

function log_scale(from, to, start, end) {
  const scale = linear_scale(Math.log(from), Math.log(to), start, end);
  return value => scale(Math.log(Math.max(from, value)));
}

// Round numbers within [from, to], about `count` of them.
function linear_ticks(from, to, count) {
  const rough = (to - from) / count, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(m => m * unit).find(s => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; ++i)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

// 1, 2 and 5 of each power of ten, or the powers of two, within [from, to].
function log_ticks(from, to, binary) {
  let ticks = [];
  if (binary) {
    for (let e = Math.ceil(Math.log2(from)); 2 ** e <= to; ++e) ticks.push(2 ** e);
  } else {
    for (let e = Math.floor(Math.log10(from)); 10 ** e <= to; ++e) ticks.push(10 ** e, 2 * 10 ** e, 5 * 10 ** e);
  }
  ticks = ticks.filter(t => t >= from && t <= to);
  const stride = Math.ceil(ticks.length / 6);
  return ticks.filter((_, i) => i % stride === 0);
}

// The range of an axis: 0 to 1 for scores if `whole` is set, else the range of the values.
function value_range(subject, found, whole) {
  if (subject.higher && whole) return [0, 1];
  const low = Math.min(...found.map(low_of)), high = Math.max(...found.map(high_of));
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return subject.higher ? [Math.max(0, low - room), Math.min(1, high + room)] : [low - room, high + room];
}

function tick_text(value, ticks) {
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  return value.toFixed(
      Math.min(4, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (String(step).includes("25") ? 1 : 0))));
}

// Omits labels that would overlap the next one; the last label is kept.
function thinned(ticks, at, room) {
  const kept = [];
  for (const tick of [...ticks].reverse()) {
    if (kept.length === 0 || Math.abs(at(kept[kept.length - 1]) - at(tick)) >= room) kept.push(tick);
  }
  return kept;
}

// Axes and grid of a chart. area: {left, right, top, bottom}; x, y: {at, ticks, text, title}.
function plane(area, x, y) {
  const group = shape("g");
  for (const tick of y.ticks) {
    const at = y.at(tick);
    group.append(
        shape("line", {class: "grid", x1: area.left, x2: area.right, y1: at, y2: at}),
        shape("text", {x: area.left - 6, y: at + 4, "text-anchor": "end"}, y.text(tick)));
  }
  group.append(shape("line", {class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom}));
  for (const tick of thinned(x.ticks, x.at, x.room ?? 34)) {
    const at = x.at(tick);
    group.append(
        shape("line", {class: "axis", x1: at, x2: at, y1: area.bottom, y2: area.bottom + 4}),
        shape("text", {x: at, y: area.bottom + 16, "text-anchor": "middle"}, x.text(tick)));
  }
  if (x.title) group.append(shape("text", {x: area.right, y: area.bottom + 31, "text-anchor": "end"}, x.title));
  if (y.title) group.append(shape("text", {x: 0, y: 10}, y.title));
  return group;
}

const kMarks = [
  r => `M${- r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${- 2 * r} 0`,
  r => `M${- r} ${- r}h${2 * r}v${2 * r}h${- 2 * r}z`,
  r => `M0 ${- 1.2 * r}l${1.2 * r} ${2.1 * r}h${- 2.4 * r}z`,
  r => `M0 ${- 1.35 * r}l${1.35 * r} ${1.35 * r}l${- 1.35 * r} ${1.35 * r}l${- 1.35 * r} ${- 1.35 * r}z`,
  r => `M0 ${1.2 * r}l${1.2 * r} ${- 2.1 * r}h${- 2.4 * r}z`,
];
const kDashes = [null, "6 3", "2 3"];
const kColours = 7;

// The style of a method: the baseline in ink, the others by colour, mark and dash.
function style_of(method) {
  const index = order.methods.indexOf(method) - 1;
  if (index < 0) return {colour: "var(--ink)", mark: kMarks[0], dash: null};
  return {
    colour: `var(--m${index % kColours})`,
    mark: kMarks[(index + 1) % kMarks.length],
    dash: kDashes[Math.floor(index / kColours) % kDashes.length],
  };
}

function series(method, ...children) {
  const group =
      shape("g", {class: method === baseline ? "series baseline" : "series", "data-method": method}, ...children);
  group.style.color = style_of(method).colour;
  return group;
}

function mark(method, x, y, radius, tip) {
  return shape(
      "path", {class: "mark", d: style_of(method).mark(radius), transform: `translate(${x} ${y})`, "data-tip": tip});
}

function line(method, points) {
  return shape(
      "path",
      {class: "line", d: "M" + points.map(p => p.join(" ")).join("L"), "stroke-dasharray": style_of(method).dash});
}

// The short name with possible line breaks.
function broken_name(method) {
  return short_name(method).split(/(?<=[,:])/).flatMap((part, i) => i > 0 ? [element("wbr"), part] : [part]);
}

function swatch(method) {
  return shape(
      "svg", {width: 26, height: 12, "aria-hidden": "true"},
      series(method, line(method, [[0, 6], [26, 6]]), mark(method, 13, 6, 4, null)));
}

function chart(width, height, label, ...children) {
  return shape(
      "svg", {
        viewBox: `0 0 ${width} ${height}`,
        width,
        height,
        role: "img",
        tabindex: 0,
        "aria-label": `${label}. Use the arrow keys to step through the values.`,
      },
      ...children);
}

const tip = document.getElementById("tip");

function show_tip(node) {
  document.querySelector(".current")?.classList.remove("current");
  tip.hidden = !node;
  if (!node) return;
  tip.textContent = node.dataset.tip;
  const box = node.getBoundingClientRect();
  const left = Math.min(box.right + 10, window.innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 0 ? above : box.bottom + 8}px`;
}

document.addEventListener("pointerover", event => show_tip(event.target.closest?.("[data-tip]")));
document.addEventListener("focusout", () => show_tip(null));
document.addEventListener("scroll", () => show_tip(null), {passive: true});
document.addEventListener("keydown", event => {
  if (event.key === "Escape") return show_tip(null);
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  const holder = event.target.closest?.("[tabindex]");
  const marks = step && holder ? [...holder.querySelectorAll("[data-tip]")] : [];
  if (marks.length === 0) return;
  event.preventDefault();
  const at = marks.findIndex(m => m.classList.contains("current"));
  const next = marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length];
  show_tip(next);
  next.classList.add("current");
});
