// A small Markdown renderer for untrusted text. `parse` gives a tree; `render` builds DOM nodes from it with
// text nodes only. HTML in the text stays text. Links may be http, https or mailto.

const kMaxDepth = 6;       // of nested lists, quotes and emphasis; deeper ones stay text
const kMaxInline = 20000;  // a longer paragraph is shown without inline formatting

/** The address if it may be linked to, otherwise null. */
export function safeHref(address) {
  let url;
  try {
    url = new URL(address.trim());
  } catch {
    return null;
  }
  return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
}

/** Parses a text into blocks: heading, paragraph, code, list, quote, table, rule. */
export function parse(text) {
  return parseLines(text.replace(/\r\n?/g, '\n').split('\n'), 0);
}

const kFence = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const kHeading = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const kRule = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const kItem = /^( {0,8})(?:([-*+])|(\d{1,9})[.)])(?:\s+(.*)|)$/;
const kQuote = /^ {0,3}>\s?(.*)$/;
const kDivider = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

function parseLines(lines, depth) {
  const blocks = [];
  let paragraph = [];
  const flush = () => {
    if (paragraph.length > 0) blocks.push({ type: 'paragraph', inlines: parseInline(paragraph.join('\n').trim()) });
    paragraph = [];
  };
  for (let i = 0; i < lines.length;) {
    const line = lines[i];
    let match;
    if (line.trim() === '') {
      flush();
      i++;
    } else if ((match = kFence.exec(line))) {
      flush();
      i = takeFence(lines, i, match, blocks);
    } else if ((match = kHeading.exec(line))) {
      flush();
      blocks.push({ type: 'heading', level: match[1].length, inlines: parseInline(match[2] ?? '') });
      i++;
    } else if (kRule.test(line)) {
      flush();
      blocks.push({ type: 'rule' });
      i++;
    } else if (depth < kMaxDepth && kQuote.test(line)) {
      flush();
      const inner = [];
      for (; i < lines.length && (match = kQuote.exec(lines[i])); i++) inner.push(match[1]);
      blocks.push({ type: 'quote', blocks: parseLines(inner, depth + 1) });
    } else if (depth < kMaxDepth && (match = kItem.exec(line)) && (paragraph.length === 0 || match[4])) {
      flush();
      i = takeList(lines, i, blocks, depth);
    } else if (line.includes('|') && i + 1 < lines.length && lines[i + 1].includes('-') && kDivider.test(lines[i + 1]) &&
               cells(line).length === cells(lines[i + 1]).length) {
      flush();
      i = takeTable(lines, i, blocks);
    } else {
      paragraph.push(line);
      i++;
    }
  }
  flush();
  return blocks;
}

function takeFence(lines, i, open, blocks) {
  const code = [];
  const fence = open[1];
  const closed = (line) => {
    const trimmed = line.trim();
    return trimmed.length >= fence.length && trimmed === fence[0].repeat(trimmed.length);
  };
  for (i++; i < lines.length && !closed(lines[i]); i++) code.push(lines[i]);
  blocks.push({ type: 'code', language: open[2].trim().split(/\s+/)[0], text: code.join('\n') });
  return i + 1;
}

function takeList(lines, i, blocks, depth) {
  const first = kItem.exec(lines[i]);
  const ordered = first[3] !== undefined;
  const indent = first[1].length;
  const list = { type: 'list', ordered, start: ordered ? Number(first[3]) : 1, items: [] };
  while (i < lines.length) {
    const match = kItem.exec(lines[i]);
    if (!match || match[1].length > indent + 1 || match[1].length < indent || (match[3] !== undefined) !== ordered ||
        kRule.test(lines[i])) break;
    const inner = [match[4] ?? ''];
    const width = indent + 2;
    for (i++; i < lines.length; i++) {
      const line = lines[i];
      if (line.trim() === '') {
        // A blank line belongs to the item if an indented line or another item of the list follows.
        let next = i + 1;
        while (next < lines.length && lines[next].trim() === '') next++;
        if (next === lines.length || lines[next].search(/\S/) < width) break;
        inner.push('');
      } else if (line.search(/\S/) >= width) {
        inner.push(line.slice(Math.min(line.search(/\S/), ordered ? indent + 3 : width)));
      } else if (kItem.test(line) || kFence.test(line) || kHeading.test(line) || kQuote.test(line) ||
                 inner[inner.length - 1] === '') {
        break;
      } else {
        inner.push(line.trim());
      }
    }
    list.items.push(parseLines(inner, depth + 1));
    let next = i;
    while (next < lines.length && lines[next].trim() === '') next++;
    if (next < lines.length && kItem.test(lines[next])) i = next;
  }
  blocks.push(list);
  return i;
}

function cells(line) {
  const trimmed = line.trim().replace(/^\|/, '').replace(/\|$/, '');
  return trimmed.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
}

function takeTable(lines, i, blocks) {
  const head = cells(lines[i]).map(parseInline);
  const align = cells(lines[i + 1]).map((cell) => (cell.endsWith(':') ? (cell.startsWith(':') ? 'center' : 'right') : 'left'));
  const rows = [];
  for (i += 2; i < lines.length && lines[i].includes('|') && lines[i].trim() !== ''; i++) {
    const row = cells(lines[i]).slice(0, head.length).map(parseInline);
    while (row.length < head.length) row.push([]);
    rows.push(row);
  }
  blocks.push({ type: 'table', align, head, rows });
  return i;
}

/** Parses inline code, emphasis, links and line breaks of one paragraph. */
export function parseInline(text, depth = 0) {
  if (text.length > kMaxInline) return [{ type: 'text', text }];
  const out = [];
  const missing = new Set();  // delimiters without a closing one in the rest: not searched again
  let plain = '';
  const push = (node) => {
    if (plain !== '') out.push({ type: 'text', text: plain });
    plain = '';
    out.push(node);
  };
  for (let i = 0; i < text.length;) {
    const c = text[i];
    if (c === '\\' && i + 1 < text.length && /[!-/:-@[-`{-~]/.test(text[i + 1])) {
      plain += text[i + 1];
      i += 2;
      continue;
    }
    if (c === '\n') {
      plain = plain.trimEnd();
      push({ type: 'break' });
      i++;
      while (text[i] === ' ') i++;
      continue;
    }
    const found = c === '`' ? takeCode(text, i, missing)
      : c === '*' || c === '_' || c === '~' ? takeEmphasis(text, i, missing, depth)
      : c === '[' ? takeLink(text, i, missing, depth)
      : c === 'h' ? takeAddress(text, i) : null;
    if (found) {
      push(found.node);
      i = found.end;
    } else {
      // A run of the same delimiter that opens nothing stays text as a whole.
      let end = i + 1;
      if ('`*_~'.includes(c)) while (text[end] === c) end++;
      plain += text.slice(i, end);
      i = end;
    }
  }
  if (plain !== '') out.push({ type: 'text', text: plain });
  return out;
}

function takeCode(text, i, missing) {
  let size = 1;
  while (text[i + size] === '`') size++;
  const fence = '`'.repeat(size);
  if (missing.has(fence)) return null;
  for (let k = text.indexOf(fence, i + size); k >= 0;) {
    let end = k + size;
    while (text[end] === '`') end++;
    if (end - k === size) {
      const code = text.slice(i + size, k).replaceAll('\n', ' ');
      const padded = code.startsWith(' ') && code.endsWith(' ') && code.trim() !== '';
      return { node: { type: 'code', text: padded ? code.slice(1, -1) : code }, end };
    }
    k = text.indexOf(fence, end);
  }
  missing.add(fence);
  return null;
}

const isWord = (c) => c !== undefined && /[\p{L}\p{N}]/u.test(c);
const isSpace = (c) => c === undefined || /\s/.test(c);

function takeEmphasis(text, i, missing, depth) {
  const c = text[i];
  const double = text[i + 1] === c;
  if ((c === '~' && !double) || depth >= kMaxDepth) return null;
  const mark = double ? c + c : c;
  const begin = i + mark.length;
  if (missing.has(mark) || isSpace(text[begin]) || (c === '_' && isWord(text[i - 1]))) return null;
  for (let k = text.indexOf(mark, begin + 1); k >= 0; k = text.indexOf(mark, k)) {
    let end = k;
    while (text[end] === c) end++;
    const run = end - k;
    const fits = double ? run >= 2 : run === 1 || run === 3;
    if (fits && !isSpace(text[k - 1]) && text[k - 1] !== '\\' && !(c === '_' && isWord(text[end]))) {
      const close = double ? end - 2 : end - 1;  // the inner delimiter of a run closes first
      const type = c === '~' ? 'del' : double ? 'strong' : 'em';
      return { node: { type, children: parseInline(text.slice(begin, close), depth + 1) }, end: close + mark.length };
    }
    k = end;
  }
  missing.add(mark);
  return null;
}

function takeLink(text, i, missing, depth) {
  if (missing.has('](') || depth >= kMaxDepth) return null;
  const middle = text.indexOf('](', i + 1);
  const limit = middle < 0 ? -1 : text.indexOf(')', middle);
  if (limit < 0) {
    missing.add('](');
    return null;
  }
  const match = /\]\(\s*<?((?:[^\s()<>]|\([^\s()]*\))*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/y;
  match.lastIndex = middle;
  const found = match.exec(text);
  const label = text.slice(i + 1, middle);
  if (!found || label.includes('[')) return null;
  const href = safeHref(found[1]);
  if (href === null) return null;
  const children = parseInline(label, depth + 1).map((node) => (node.type === 'link' ? { type: 'text', text: node.href } : node));
  return { node: { type: 'link', href, children }, end: match.lastIndex };
}

function takeAddress(text, i) {
  if (isWord(text[i - 1]) || !(text.startsWith('http://', i) || text.startsWith('https://', i))) return null;
  const match = /https?:\/\/[^\s<>"'`|*]+/y;
  match.lastIndex = i;
  const found = match.exec(text);
  if (!found) return null;
  let address = found[0].replace(/[.,;:!?\]}_~]+$/, '');
  if (address.endsWith(')') && !address.includes('(')) address = address.slice(0, -1);
  const href = safeHref(address);
  return href === null ? null : { node: { type: 'link', href, children: [{ type: 'text', text: address }] }, end: i + address.length };
}

/** Builds DOM nodes from the tree of `parse`. */
export function render(blocks, doc = document) {
  return blocks.map((block) => renderBlock(block, doc));
}

function element(doc, tag, children = []) {
  const node = doc.createElement(tag);
  node.append(...children);
  return node;
}

function renderBlock(block, doc) {
  switch (block.type) {
    // Headings of an answer are below the page's own headings.
    case 'heading': return element(doc, `h${Math.min(6, block.level + 3)}`, renderInline(block.inlines, doc));
    case 'paragraph': return element(doc, 'p', renderInline(block.inlines, doc));
    case 'rule': return element(doc, 'hr');
    case 'quote': return element(doc, 'blockquote', render(block.blocks, doc));
    case 'code': {
      const pre = element(doc, 'pre', [element(doc, 'code', [block.text])]);
      pre.setAttribute('tabindex', '0');
      return pre;
    }
    case 'list': {
      const list = element(doc, block.ordered ? 'ol' : 'ul', block.items.map((item) => {
        const tight = item.length > 0 && item[0].type === 'paragraph';
        const first = tight ? renderInline(item[0].inlines, doc) : [];
        return element(doc, 'li', [...first, ...render(tight ? item.slice(1) : item, doc)]);
      }));
      if (block.ordered && block.start !== 1) list.setAttribute('start', String(block.start));
      return list;
    }
    default: {
      const row = (inlines, tag) => element(doc, 'tr', inlines.map((cell, i) => {
        const node = element(doc, tag, renderInline(cell, doc));
        if (block.align[i] !== 'left') node.style.textAlign = block.align[i];
        return node;
      }));
      const table = element(doc, 'table', [
        element(doc, 'thead', [row(block.head, 'th')]), element(doc, 'tbody', block.rows.map((cells) => row(cells, 'td')))]);
      const frame = element(doc, 'div', [table]);
      frame.className = 'table';
      frame.setAttribute('tabindex', '0');
      return frame;
    }
  }
}

function renderInline(inlines, doc) {
  return inlines.map((node) => {
    switch (node.type) {
      case 'text': return doc.createTextNode(node.text);
      case 'break': return element(doc, 'br');
      case 'code': return element(doc, 'code', [node.text]);
      case 'link': {
        const link = element(doc, 'a', renderInline(node.children, doc));
        link.setAttribute('href', node.href);
        link.setAttribute('rel', 'noopener noreferrer');
        link.setAttribute('target', '_blank');
        return link;
      }
      default: return element(doc, node.type, renderInline(node.children, doc));
    }
  });
}

/**
 * End of the part of a growing text that later text cannot change: the start of the last block that follows
 * a blank line outside of fenced code, and that is neither indented nor a list item. At least `from`.
 */
export function stableEnd(text, from) {
  let fence = null;
  let blank = false;
  let stable = from;
  for (let i = from; i < text.length;) {
    let end = text.indexOf('\n', i);
    if (end < 0) end = text.length;
    const line = text.slice(i, end);
    const match = kFence.exec(line);
    if (fence === null && blank && line !== '' && /^\S/.test(line) && !kItem.test(line)) stable = i;
    if (match && fence === null) fence = match[1];
    else if (fence !== null && line.trim().startsWith(fence) && line.trim() === fence[0].repeat(line.trim().length)) fence = null;
    blank = line.trim() === '';
    i = end + 1;
  }
  return stable;
}

/** Renders a growing text into an element. Only the last blocks are built again at each update. */
export class MarkdownStream {
  #stable = 0;
  #tail = [];

  constructor(container) {
    this.container = container;
  }

  update(text) {
    for (const node of this.#tail) node.remove();
    const end = stableEnd(text, this.#stable);
    if (end > this.#stable) this.container.append(...render(parse(text.slice(this.#stable, end))));
    this.#stable = end;
    this.#tail = render(parse(text.slice(end)));
    this.container.append(...this.#tail);
  }

  finish(text) {
    this.container.replaceChildren(...render(parse(text)));
  }
}
