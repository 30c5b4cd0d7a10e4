// Differences between an old and a new text as a short list of replaced ranges.

import { isPairAt } from './offsets.js';

const kMaxEdits = 600;  // above this many changed lines the whole changed region is one edit

/** Splits a text into lines. Each has the range [begin, end) with its line end and a key without it. */
export function splitLines(text) {
  const lines = [];
  const pattern = /\r\n|\r|\n/g;
  let begin = 0;
  for (let match; (match = pattern.exec(text)) !== null;) {
    lines.push({ begin, end: pattern.lastIndex, key: text.slice(begin, match.index), ends: true });
    begin = pattern.lastIndex;
  }
  lines.push({ begin, end: text.length, key: text.slice(begin), ends: false });
  return lines;
}

/** The line end that occurs most often in a text. */
export function lineEnd(text) {
  let crlf = 0;
  let lf = 0;
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) {
    if (text[i - 1] === '\r') crlf++;
    else lf++;
  }
  return crlf > lf ? '\r\n' : '\n';
}

/**
 * Edits that change `before` into `after`: ascending [{begin, end, text}] with string indices of `before`.
 * Line ends are compared as equal, because an HTML text field changes them all to LF; inserted lines
 * take the most frequent line end of `before`. Time: O(lines × changed lines), bounded by kMaxEdits.
 */
export function diffText(before, after) {
  if (before === after) return [];
  const newline = lineEnd(before);
  const a = splitLines(before);
  const b = splitLines(after);
  const same = (x, y) => x.key === y.key && x.ends === y.ends;
  let head = 0;
  while (head < a.length && head < b.length && same(a[head], b[head])) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && same(a[a.length - 1 - tail], b[b.length - 1 - tail])) tail++;
  const hunks = diffLines(a, b, head, a.length - tail, head, b.length - tail, same);
  const edits = [];
  for (const [a0, a1, b0, b1] of hunks) {
    const begin = a0 < a.length ? a[a0].begin : before.length;
    const end = a1 > a0 ? a[a1 - 1].end : begin;
    let text = '';
    for (let i = b0; i < b1; i++) text += b[i].key + (b[i].ends ? newline : '');
    const edit = trimEdit(before, begin, end, text);
    if (edit.end > edit.begin || edit.text !== '') edits.push(edit);
  }
  return edits;
}

/** Shortens an edit by the common prefix and suffix of both texts, without cutting a character. */
export function trimEdit(before, begin, end, text) {
  const old = before.slice(begin, end);
  const limit = Math.min(old.length, text.length);
  let head = 0;
  while (head < limit && old[head] === text[head]) head++;
  if (head > 0 && (isPairAt(old, head - 1) || isPairAt(text, head - 1))) head--;
  let tail = 0;
  while (tail < limit - head && old[old.length - 1 - tail] === text[text.length - 1 - tail]) tail++;
  const cuts = (s) => tail > 0 && s.length > tail && isPairAt(s, s.length - tail - 1);
  if (cuts(old) || cuts(text)) tail--;
  return { begin: begin + head, end: end - tail, text: text.slice(head, text.length - tail) };
}

/** Applies ascending edits to a text. */
export function applyEdits(text, edits) {
  const parts = [];
  let at = 0;
  for (const edit of edits) {
    parts.push(text.slice(at, edit.begin), edit.text);
    at = edit.end;
  }
  parts.push(text.slice(at));
  return parts.join('');
}

// Changed ranges [a0, a1, b0, b1] of lines, by the greedy O(ND) algorithm (Myers, 1986).
function diffLines(a, b, a0, a1, b0, b1, same) {
  const n = a1 - a0;
  const m = b1 - b0;
  if (n === 0 && m === 0) return [];
  if (n === 0 || m === 0) return [[a0, a1, b0, b1]];
  const limit = Math.min(n + m, kMaxEdits);
  const trace = [];
  let furthest = new Int32Array(2 * limit + 3);
  const zero = limit + 1;
  for (let d = 0; d <= limit; d++) {
    trace.push(furthest.slice(zero - d - 1, zero + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest[zero + k - 1] < furthest[zero + k + 1]);
      let x = down ? furthest[zero + k + 1] : furthest[zero + k - 1] + 1;
      let y = x - k;
      while (x < n && y < m && same(a[a0 + x], b[b0 + y])) x++, y++;
      furthest[zero + k] = x;
      if (x >= n && y >= m) return tracePath(trace, d, n, m, a0, b0);
    }
  }
  return [[a0, a1, b0, b1]];
}

function tracePath(trace, d, n, m, a0, b0) {
  const hunks = [];
  let x = n;
  let y = m;
  for (; d > 0; d--) {
    const furthest = trace[d];  // index d + 1 is diagonal 0
    const k = x - y;
    const at = (diagonal) => furthest[d + 1 + diagonal];
    const down = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const previous = down ? k + 1 : k - 1;
    const px = at(previous);
    const py = px - previous;
    const next = down ? [px, px, py, py + 1] : [px, px + 1, py, py];
    const last = hunks[hunks.length - 1];
    if (last && last[0] === next[1] && last[2] === next[3]) {
      last[0] = next[0];
      last[2] = next[2];
    } else hunks.push(next);
    x = px;
    y = py;
  }
  return hunks.reverse().map(([p, q, r, s]) => [a0 + p, a0 + q, b0 + r, b0 + s]);
}
