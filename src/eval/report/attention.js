// The attention of one answer: pages from left to right, layers and key/value heads from top to bottom.

const trace = JSON.parse(document.getElementById("data").textContent);
const kMostColumns = 160, kMostRows = 160, kCell = 12;

function percent_text(share) {
  const percent = share * 100;
  return percent === 0 ? "0 %" : percent < 0.01 ? "< 0.01 %" : `${Number(percent.toPrecision(2))} %`;
}

function add(section, ...nodes) { document.getElementById(section).append(...nodes); }

// Joins neighbouring pages into columns: {begin, end, first, last, tokens, text}.
function columns_of(pages) {
  const each = Math.ceil(pages.length / kMostColumns);
  const columns = [];
  for (let begin = 0; begin < pages.length; begin += each) {
    const some = pages.slice(begin, begin + each);
    columns.push({
      begin, end: begin + some.length, first: some[0].first, last: some[some.length - 1].first + some[some.length - 1].tokens,
      tokens: some.reduce((sum, p) => sum + p.tokens, 0), text: some[0].text,
    });
  }
  return columns;
}

// A row for each head, or for each layer if there are too many heads.
function rows_of(heads) {
  if (heads.length <= kMostRows)
    return heads.map(head => ({name: `layer ${head.layer}, head ${head.head}`, short: `${head.layer}.${head.head}`, heads: [head]}));
  const layers = new Map();
  for (const head of heads) layers.set(head.layer, [...(layers.get(head.layer) ?? []), head]);
  return [...layers].map(([layer, own]) => ({name: `layer ${layer}, all heads`, short: `${layer}`, heads: own}));
}

function sum_over(row, column, key) {
  let sum = 0;
  for (const head of row.heads)
    for (let page = column.begin; page < column.end; ++page) sum += head[key][page];
  return sum / row.heads.length;
}

// Maps shares from 0.0001 to 1 to opacities from 0 to 1 on a logarithmic scale.
const strength = share => share <= 0 ? 0 : Math.max(0.04, Math.min(1, 1 + Math.log10(share) / 4));

function map_of(rows, columns) {
  return chart_box(width => {
    const area = {left: 44, right: width - 8, top: 8};
    const step = (area.right - area.left) / columns.length;
    const height = Math.max(4, Math.min(kCell, 720 / rows.length));
    const bottom = area.top + rows.length * height;
    const cells = rows.flatMap((row, r) => columns.map((column, c) => {
      const share = sum_over(row, column, "mass"), attended = sum_over(row, column, "seen");
      const range = `tokens ${column.first.toLocaleString("en")} to ${(column.last - 1).toLocaleString("en")}`;
      return shape("rect", {
        x: (area.left + c * step).toFixed(2), y: (area.top + r * height).toFixed(2), width: Math.max(step - 0.4, 0.5).toFixed(2),
        height: Math.max(height - 0.6, 0.5).toFixed(2), class: attended === 0 ? "unattended" : "cell",
        style: attended === 0 ? null : `fill-opacity: ${strength(share).toFixed(3)}`,
        "data-tip": attended === 0 ? `${row.name}\n${range}\nnot attended`
          : `${row.name}\n${range}\n${percent_text(share)} of the attention, ${percent_text(attended / column.tokens)} of the tokens attended\n${column.text}`,
      });
    }));
    const every = Math.ceil(14 / height);
    const names = rows.map((row, r) => r % every ? null : shape(
        "text", {x: area.left - 6, y: (area.top + (r + 0.5) * height + 4).toFixed(1), "text-anchor": "end", class: "tick"}, row.short));
    const ticks = linear_ticks(0, trace.tokens, 6).filter(t => t <= trace.tokens).map(t => shape(
        "text", {x: (area.left + t / trace.tokens * (area.right - area.left)).toFixed(1), y: bottom + 16, "text-anchor": "middle", class: "tick"},
        t.toLocaleString("en")));
    return chart(width, bottom + 24, "Attention by page, layer and head", cells, names, ticks);
  });
}

const rows = rows_of(trace.lanes), columns = columns_of(trace.pages);
document.getElementById("heading").textContent = `${trace.model}: ${trace.tokens.toLocaleString("en")} tokens under ${trace.attend}`;
const attended_share = trace.lanes.reduce((sum, head) => sum + head.seen.reduce((a, b) => a + b, 0), 0) / (trace.lanes.length * trace.tokens);
document.getElementById("subject").textContent = [
  `${trace.queries.toLocaleString("en")} queries of the answer`, `${percent_text(attended_share)} of the tokens attended per head`,
  trace.evict === "none" ? "" : `--evict ${trace.evict}`,
].filter(part => part).join(" · ");
add("map", element("p", {class: "note"},
    "Tokens of the context from left to right, in pages of 64; layers and key/value heads from top to bottom (layer.head). Darker: a larger ",
    "share of the attention of the answer's tokens, on a logarithmic scale from 0.01 % to 100 %. Grey: not attended by any of them."),
    map_of(rows, columns));

const totals = trace.pages.map((page, i) => ({
  page, share: trace.lanes.reduce((sum, head) => sum + head.mass[i], 0) / trace.lanes.length,
})).sort((a, b) => b.share - a.share).slice(0, 12);
add("top-pages", element("table", {class: "plain"},
    element("thead", {}, element("tr", {}, element("th", {}, "share"), element("th", {}, "tokens"), element("th", {}, "text"))),
    element("tbody", {}, totals.map(({page, share}) => element("tr", {},
        element("td", {}, percent_text(share)),
        element("td", {}, `${page.first.toLocaleString("en")} to ${(page.first + page.tokens - 1).toLocaleString("en")}`),
        element("td", {class: "text"}, page.text))))));
add("answer", element("pre", {class: "command"}, trace.answer || "(empty)"));
