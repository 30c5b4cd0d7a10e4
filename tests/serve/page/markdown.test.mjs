import test from 'node:test';
import assert from 'node:assert/strict';
import { parse, parseInline, render, safeHref, stableEnd } from '../../../src/serve/page/markdown.js';

// The part of the DOM that the renderer uses. Markup written to it would throw.
class Node {
  constructor(tag) { Object.assign(this, { tag, children: [], attributes: {}, style: {} }); }
  append(...nodes) { this.children.push(...nodes); }
  setAttribute(name, value) { this.attributes[name] = value; }
  set innerHTML(_) { throw new Error('innerHTML'); }
}
const fake = { createElement: (tag) => new Node(tag), createTextNode: (text) => text };
const escape = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const html = (node) => (typeof node === 'string' ? escape(node)
  : `<${node.tag}${node.attributes.href ? ` href=${node.attributes.href}` : ''}${node.attributes.start ? ` start=${node.attributes.start}` : ''}>${node.children.map(html).join('')}</${node.tag}>`);
const show = (text) => render(parse(text), fake).map(html).join('');

const kCases = [
  ['paragraphs', 'one\n\ntwo', '<p>one</p><p>two</p>'],
  ['line break', 'one\ntwo', '<p>one<br></br>two</p>'],
  ['headings', '# A\n### B ##', '<h4>A</h4><h6>B</h6>'],
  ['emphasis', '**bold** *it* __bold__ _it_ ~~del~~', '<p><strong>bold</strong> <em>it</em> <strong>bold</strong> <em>it</em> <del>del</del></p>'],
  ['nested emphasis', '**a *b* c**', '<p><strong>a <em>b</em> c</strong></p>'],
  ['three stars', '***x***', '<p><strong><em>x</em></strong></p>'],
  ['no emphasis', '2 * 3 * 4 and snake_case_name and a*', '<p>2 * 3 * 4 and snake_case_name and a*</p>'],
  ['inline code', 'use `a<b` and ``x`y``', '<p>use <code>a&lt;b</code> and <code>x`y</code></p>'],
  ['escapes', '\\*not\\* \\<b\\>', '<p>*not* &lt;b></p>'],
  ['code block', '```js\nlet a = "<b>";\n\n```\nafter', '<pre><code>let a = "&lt;b>";\n</code></pre><p>after</p>'],
  ['open code block', '```\nx', '<pre><code>x</code></pre>'],
  ['lists', '- a\n- b\n  - c\n- d', '<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>'],
  ['ordered list', '3. a\n4. b', '<ol start=3><li>a</li><li>b</li></ol>'],
  ['loose list', '1. a\n\n2. b\n\nend', '<ol><li>a</li><li>b</li></ol><p>end</p>'],
  ['list with code', '- a\n\n  ```\n  x\n  ```\n', '<ul><li>a<pre><code>x</code></pre></li></ul>'],
  ['ordered list with bullets', '1. Ask:\n   - x\n   - y\n2. b', '<ol><li>Ask:<ul><li>x</li><li>y</li></ul></li><li>b</li></ol>'],
  ['quote', '> a\n> b', '<blockquote><p>a<br></br>b</p></blockquote>'],
  ['rule', 'a\n\n---\n\nb', '<p>a</p><hr></hr><p>b</p>'],
  ['table', '| a | b |\n|---|--:|\n| 1 | x \\| y |\n| 2 |', '<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>x | y</td></tr><tr><td>2</td><td></td></tr></tbody></table></div>'],
  ['link', '[a *b*](https://example.org/x_(y) "t")', '<p><a href=https://example.org/x_(y)>a <em>b</em></a></p>'],
  ['address', 'see https://example.org/a_b.', '<p>see <a href=https://example.org/a_b>https://example.org/a_b</a>.</p>'],
  ['markup is text', '<img src=x onerror=alert(1)> &lt;', '<p>&lt;img src=x onerror=alert(1)> &amp;lt;</p>'],
  ['script link is text', '[a](javascript:alert(1))', '<p>[a](javascript:alert(1))</p>'],
];
for (const [name, text, expected] of kCases) test(name, () => assert.equal(show(text), expected));

test('only http, https and mailto addresses are links', () => {
  for (const bad of ['javascript:alert(1)', ' JaVaScRiPt:alert(1)', 'java\nscript:alert(1)', 'data:text/html,x', 'vbscript:x', '/relative', '//host', 'file:///etc', 'blob:x', '']) {
    assert.equal(safeHref(bad), null, bad);
  }
  for (const good of ['http://a/', 'https://a/', 'mailto:a@b']) assert.equal(safeHref(good), good);
});

test('all text of the source is kept as text', () => {
  const text = (node) => (typeof node === 'string' ? node : node.children.map(text).join(''));
  const source = 'a <b> [x](javascript:y) **un * closed `code and [open](';
  assert.equal(render(parse(source), fake).map(text).join(''), source);
});

// With quadratic time in the length of the text this would run for minutes.
test('adversarial texts are parsed in bounded time', { timeout: 60000 }, () => {
  for (const part of ['*a ', '**a', '_a ', '[', '[a](', '`a ``', '> ', '- ', '~~a ', '| a ', '![[](', '***', '`', '\\', '* * ', '[a](b']) {
    assert.ok(parse(part.repeat(19000 / part.length)).length > 0);
    assert.ok(parse(`${part}\n`.repeat(5000)).length > 0);
  }
});

test('deep nesting is bounded', () => {
  parse('> '.repeat(5000) + 'x');
  parseInline('*_'.repeat(5000) + 'x');
});

test('rendering in stable parts equals rendering the whole', () => {
  const source = '# A\n\ntext *x*\n\n```\ncode\n\nmore\n```\n\n- a\n\n- b\n\nlast | a\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nend';
  let stable = 0;
  const blocks = [];
  for (let end = 0; end <= source.length; end++) {
    const next = stableEnd(source.slice(0, end), stable);
    assert.ok(next >= stable);
    if (next > stable) blocks.push(...parse(source.slice(stable, next)));
    stable = next;
  }
  blocks.push(...parse(source.slice(stable)));
  assert.deepEqual(blocks, parse(source));
});
