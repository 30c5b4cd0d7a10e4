// Tests the page in headless Chromium.
//
//   node page_test.mjs [--url URL] [--screenshots FOLDER] [--only TEXT] [--bytes 120000]
//
// Without --url the mock server is started. Checks that need the mock are skipped for other servers. Those get
// contexts of --bytes whose names begin with "page-test"; the checks delete them.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createRequire } from 'node:module';
import puppeteer from 'puppeteer-core';
import { createMock } from './mock_server.mjs';
import { sampleText } from './sample_text.mjs';

const option = (name, fallback = '') => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
};

const kTimeout = 60000;
const kBook = 'page-test-log';
const kBytes = Number(option('bytes', '120000'));
const kQuestion = 'What did the sealed letter of captain Thorne ask for?';

const folder = await mkdtemp(path.join(tmpdir(), 'fathom-page-'));
const screenshots = option('screenshots');
if (screenshots) await mkdir(screenshots, { recursive: true });
const server = option('url') ? null : createMock();
if (server) await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = option('url') || `http://127.0.0.1:${server.address().port}/`;
const mocked = server !== null || (await fetch(new URL('mock', url))).ok;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  userDataDir: path.join(folder, 'profile'),
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--force-prefers-reduced-motion'],
});

const axeSource = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let page;
let problems = [];

async function mock(options) {
  return (await fetch(new URL('mock', url), { method: 'POST', body: JSON.stringify(options) })).json();
}

async function file(name, content) {
  const where = path.join(folder, name);
  await writeFile(where, content);
  return where;
}

/** Opens the page in a new browser context, so that no storage is shared. */
async function openPage({ width = 1600, height = 900, dark = false, hash = '', bypass = false } = {}) {
  const context = await browser.createBrowserContext();
  page = await context.newPage();
  page.setDefaultTimeout(kTimeout);
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
  if (bypass) await page.setBypassCSP(true);
  problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => {
    // The browser reports failed requests as errors; the checks cause some of them.
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) problems.push(message.text());
  });
  await page.goto(url + hash);
  await page.waitForSelector('body[data-ready]');
  return page;
}

const text = (selector) => page.$eval(selector, (element) => element.textContent);
const visible = (selector) => page.waitForSelector(selector, { visible: true });
const wait = (f, ...values) => page.waitForFunction(f, { polling: 50 }, ...values);
const waitText = (selector, pattern) => wait((s, p) => new RegExp(p).test(document.querySelector(s)?.textContent ?? ''), selector, pattern);
const shoot = async (name) => { if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name}.png`) }); };

async function upload(where) {
  const input = await page.$('#file');
  await input.uploadFile(where);
}

/** Puts a text on the server without the page. */
async function put(name, content) {
  const response = await fetch(new URL(`v1/contexts/${name}`, url), { method: 'PUT', headers: { 'Content-Type': 'text/plain' }, body: content });
  assert.ok(response.ok, await response.text());
}

const removeBook = (name) => fetch(new URL(`v1/contexts/${name}`, url), { method: 'DELETE' });

async function ask(question) {
  await visible('#question');
  await page.focus('#question');
  await page.keyboard.type(question);
  await page.keyboard.press('Enter');
}

async function answered() {
  await page.waitForFunction(() => document.querySelector('#stop').hidden && document.querySelector('.answer:last-child:not([aria-busy])'), { polling: 50 });
}

const openBook = () => put(kBook, sampleText(kBytes)).then(() => openPage({ hash: `#${kBook}/` })).then(() => wait(() => document.querySelector('#text').textContent.length > 1000));

async function axe(name) {
  await page.evaluate(axeSource);
  const result = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
  const serious = result.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const describe = ({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`;
  for (const violation of result.violations) if (!serious.includes(violation)) console.log(`  note, axe, ${name}: ${describe(violation)}`);
  assert.deepEqual(serious.map(describe), [], name);
}

const checks = [];
const check = (name, run, { mockOnly = false } = {}) => checks.push({ name, run, mockOnly });

check('a dropped file is read with progress, and opens', async () => {
  await openPage();
  assert.match(await text('#model'), /context of [\d,]+ tokens/);
  if (mocked) await mock({ speed: 0.5 });
  const content = sampleText(kBytes);
  await page.evaluate((name, body) => {
    const data = new DataTransfer();
    data.items.add(new File([body], name, { type: 'text/plain' }));
    for (const type of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  }, `${kBook}.txt`, content);
  await visible('#document-status progress');
  await waitText('#document-status .figures', '[\\d,]+ of [\\d,]+ tokens · [\\d.,]+ tokens/s · .* left');
  assert.equal(await page.$eval('#send', (button) => button.disabled), true, 'no question while the text is read');
  await wait(() => document.querySelector('#document-status progress').value > 0.4);
  await shoot('reading');
  if (mocked) await mock({ speed: 4 });
  await page.waitForSelector('#edit', { visible: true });
  assert.equal(await page.$eval('#send', (button) => button.disabled), false);
  assert.match(await text('#contexts .current'), new RegExp(`${kBook}[\\d,]+ tokens`));
  assert.equal(await text('#text'), content, 'the view shows the whole text');
  await waitText('#announcer', 'is read');
  await removeBook(kBook);
});

check('reading can be cancelled and started again', async () => {
  await openPage();
  await mock({ speed: 0.3 });
  await upload(await file('page-test-cancel.txt', sampleText(20000)));
  await visible('#document-status progress');
  await (await page.waitForSelector('#document-status ::-p-text(Cancel)')).click();
  await waitText('#document-status', 'was cancelled');
  await wait(() => !document.querySelector('#document-status progress'));
  for (let i = 0; (await mock({})).cancelled !== 1; i++) {
    assert.ok(i < 40, 'the server notices that the connection was closed');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await mock({ speed: 10 });
  await (await page.waitForSelector('#document-status ::-p-text(Read again)')).click();
  await visible('#edit');
}, { mockOnly: true });

check('a pasted text is read under its name; deleting asks first', async () => {
  await openPage();
  await page.click('#paste');
  await visible('dialog[open]');
  await page.$eval('#paste-name', (field) => { field.value = ''; });
  await page.type('#paste-name', 'page-test-pasted');
  await page.type('#paste-text', 'The code of the vault is 4711.');
  await page.click('dialog button[type=submit]');
  await visible('#edit');
  await waitText('#document-title', 'page-test-pasted');
  await page.click('#contexts .current .remove');
  await visible('dialog[open]');
  await page.keyboard.press('Escape');
  await wait(() => !document.querySelector('dialog'));
  assert.match(await text('#contexts'), /page-test-pasted/);
  await page.click('#contexts .current .remove');
  await visible('dialog[open]');
  await page.click('dialog button.danger');
  await wait(() => !/page-test-pasted/.test(document.querySelector('#contexts').textContent));
  assert.equal((await fetch(new URL('v1/contexts/page-test-pasted', url))).status, 404);
  assert.equal(await page.$eval('#document', (element) => element.hidden), true);
});

check('an answer streams in, with figures, passages and the strip', async () => {
  await openBook();
  await ask(kQuestion);
  await visible('#stop');
  await wait(() => document.querySelector('.answer .markdown')?.textContent.length > 0);
  if (mocked) assert.equal(await page.$eval('.answer', (element) => element.getAttribute('aria-busy')), 'true', 'text is shown before the end');
  await visible('.passages button');
  await shoot('answering');
  await answered();
  assert.match(await text('.stats'), /tokens\/s · .*generated · .*cached · .*read/);
  await waitText('#announcer', '^Answer: ');
  const cells = await page.$$eval('.cell', (all) => all.map((cell) => Number(cell.style.opacity)));
  assert.equal(cells.length, 256);
  assert.ok(Math.max(...cells) > 0.9, 'the strip shows attention');
  assert.match(await text('#strip-summary'), /Most attention: /);
  if (mocked) {
    // The mock's passages are the sentences with words of the question: offsets are checked by their text.
    const marked = await page.$$eval('mark', (marks) => marks.map((mark) => mark.textContent).join('\n'));
    assert.match(marked, /sealed letter was opened today/);
    assert.match(await text('.passages'), /burn green|sealed letter/);
    assert.ok((await mock({})).chats.at(-1).name === kBook);
  }
  const top = () => page.$eval('#text', (element) => element.scrollTop);
  await page.$$eval('.passages button', (buttons) => buttons[0].click());
  await wait(() => {
    const mark = document.querySelector('mark.current')?.getBoundingClientRect();
    const view = document.querySelector('#text').getBoundingClientRect();
    return mark && mark.top >= view.top && mark.bottom <= view.bottom;
  });
  await shoot('passages');
  await axe('answer with passages');
  const before = await top();
  const strip = await (await page.$('#strip')).boundingBox();
  await page.mouse.click(strip.x + strip.width * 0.95, strip.y + strip.height / 2);
  await wait((y) => document.querySelector('#text').scrollTop > y + 200, before);
  await page.focus('#strip');
  await page.keyboard.press('Home');
  await wait(() => document.querySelector('#text').scrollTop < 100);
  assert.equal(await page.$eval('#strip', (element) => element.getAttribute('aria-valuenow')), '1');
  await page.$eval('mark', (mark) => mark.click());
  await visible('mark.current');
  await removeBook(kBook);
});

check('the text is edited in place, and the question asked again', async () => {
  await openBook();
  await ask(kQuestion);
  await answered();
  await page.click('#edit');
  await visible('#editor-text');
  await page.$eval('#editor-text', (field) => {
    const at = field.value.indexOf('burn green');
    field.focus();
    field.setSelectionRange(at + 5, at + 10);
    field.scrollTop = (at / field.value.length) * field.scrollHeight - 200;
  });
  await page.keyboard.type('crimson');
  await shoot('editing');
  await axe('editing');
  await page.click('#edit-save');
  await waitText('#edit-result', '1 change saved: [\\d,]+ tokens read again, .*[\\d,]+ kept');
  await shoot('edited');
  assert.match(await text('#text'), /the lamp burn crimson on the night/);
  const server = await (await fetch(new URL(`v1/contexts/${kBook}/text`, url))).text();
  assert.equal(server, sampleText(kBytes).replace('burn green', 'burn crimson'));
  if (mocked) {
    const { edits } = await mock({});
    assert.equal(edits.length, 1);
    assert.ok(edits[0].text.length <= 'crimson'.length, 'only the change is sent');
  }
  await (await page.waitForSelector('#document-status ::-p-text(Ask the last question again)')).click();
  await wait(() => document.querySelector('.answer .footer details summary')?.checkVisibility());
  await answered();
  assert.equal(await page.$$eval('.answer', (all) => all.length), 1);
  if (mocked) assert.match(await text('.answer .markdown'), /crimson/);
  await page.click('#edit');
  await page.focus('#editor-text');
  await page.keyboard.type('x');
  await page.click('#edit-cancel');
  await visible('dialog[open]');
  await page.click('dialog button.danger');
  await wait(() => document.querySelector('#editor').hidden);
  await removeBook(kBook);
});

check('an edit keeps CR LF line ends, BOM and characters of several bytes', async () => {
  const content = '\ufefferste Zeile äöü\r\nzweite 🌍 Zeile\r\ndritte\r\n';
  await put('page-test-crlf', content);
  await openPage({ hash: '#page-test-crlf/' });
  await waitText('#text', 'dritte');
  await page.click('#edit');
  await page.$eval('#editor-text', (field) => {
    const at = field.value.indexOf('🌍');
    field.setSelectionRange(at, at + 2);
  });
  await page.keyboard.type('neue\nWelt');
  await page.click('#edit-save');
  await visible('#edit-result');
  const response = await fetch(new URL('v1/contexts/page-test-crlf/text', url));
  assert.equal(Buffer.from(await response.arrayBuffer()).toString(), content.replace('🌍', 'neue\r\nWelt'));
  await removeBook('page-test-crlf');
});

check('an edit of a text that another client changed is refused, not lost', async () => {
  await openBook();
  await page.click('#edit');
  await page.focus('#editor-text');
  await page.keyboard.type('Mine. ');
  await put(kBook, 'Another text.');
  await page.click('#edit-save');
  await waitText('#document-status .error', 'changed by another client');
  assert.match(await page.$eval('#editor-text', (field) => field.value), /Mine\. /);
  await page.click('#document-status .error button');
  await waitText('#text', '^Another text.$');
  assert.equal(await (await fetch(new URL(`v1/contexts/${kBook}/text`, url))).text(), 'Another text.');
}, { mockOnly: true });

check('a text pasted under the name of the open text replaces it', async () => {
  await put('page-test-pasted', 'The old text.');
  await openPage({ hash: '#page-test-pasted/' });
  await waitText('#text', 'The old text');
  await page.click('#paste');
  await page.$eval('#paste-name', (field) => { field.value = ''; });
  await page.type('#paste-name', 'page-test-pasted');
  await waitText('dialog', 'will be replaced');
  await page.type('#paste-text', 'The new text.');
  await page.click('dialog button[type=submit]');
  await waitText('#text', '^The new text.$');
  await visible('#edit');
  await removeBook('page-test-pasted');
});

check('Stop and Escape end an answer; what arrived stays', async () => {
  await openPage();
  await ask('Give me a long answer.');
  await wait(() => document.querySelector('.answer .markdown')?.textContent.length > 60);
  await page.click('#stop');
  await waitText('.answer:last-child', 'Stopped');
  await ask('And a long one again.');
  await wait(() => document.querySelectorAll('.answer')[1]?.querySelector('.markdown').textContent.length > 60);
  await page.keyboard.press('Escape');
  await waitText('.answer:last-child', 'Stopped');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'question');
  assert.equal((await mock({})).chats.at(-1).messages.length, 3, 'the conversation so far is sent');
}, { mockOnly: true });

check('errors are shown at the answer, with what to do', async () => {
  await openPage();
  for (const [question, pattern] of [['busy', 'All slots are in use.*2 s'], ['fail now', 'engine stopped'], ['lost', 'closed before|was lost']]) {
    await ask(question);
    await waitText('.message:last-child .error', pattern);
  }
  await waitText('#banner', 'connection to the server is lost');
  await shoot('errors');
  await axe('errors');
  await wait(() => document.querySelector('#banner').hidden);
  assert.equal((await mock({})).requests.filter((request) => request.startsWith('POST')).length, 3, 'questions are not sent again by themselves');
  await page.click('.methods summary');
  await page.type('#method-attend', 'nosuch');
  await waitText('#method-attend-info', 'does not list');
  await ask('hello');
  await waitText('.message:last-child .error', 'no method “nosuch”');
  await (await page.waitForSelector('.message:last-child ::-p-text(Change the methods)')).click();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'method-attend');
}, { mockOnly: true });

check('errors of reading are shown at the text', async () => {
  await openPage();
  await upload(await file('page-test-memory.txt', 'MOCK-OUT-OF-MEMORY'));
  await waitText('#document-status .error', 'budget of memory is used up');
  await upload(await file('page-test-binary.bin', Buffer.from([1, 2, 0, 3])));
  await waitText('#library-error', 'not a text');
  await upload(await file('page-test-large.txt', 'x'.repeat(17 << 20)));
  await waitText('#library-error', 'at most 16.0 MiB');
  await openPage({ hash: '#page-test-missing/' });
  await waitText('#document-status', 'no text named');
}, { mockOnly: true });

check('requests that only read are repeated when the connection is lost', async () => {
  await put('page-test-retry', 'A short text.');
  await mock({ fail: { path: '/v1/contexts/page-test-retry/text', drop: true, times: 2 } });
  await openPage({ hash: '#page-test-retry/' });
  await waitText('#text', 'A short text');
  assert.equal((await mock({})).requests.filter((request) => request.endsWith('/text')).length, 3);
}, { mockOnly: true });

check('a 401 opens the key dialog; the key stays for the tab only', async () => {
  await mock({ key: 'secret' });
  const context = await browser.createBrowserContext();
  page = await context.newPage();
  page.setDefaultTimeout(kTimeout);
  await page.goto(url);
  await visible('#key');
  await shoot('key');
  await axe('key dialog');
  await page.type('#key', 'wrong');
  await page.keyboard.press('Enter');
  await waitText('dialog', 'did not accept');
  await page.type('#key', 'secret');
  await page.keyboard.press('Enter');
  await page.waitForSelector('body[data-ready]');
  await waitText('#model', 'mock-1b');
  await page.reload();
  await page.waitForSelector('body[data-ready]');
  assert.equal(await page.$('dialog'), null);
  assert.equal(await page.evaluate(() => Object.values({ ...localStorage }).some((value) => value.includes('secret'))), false);
}, { mockOnly: true });

check('text of the model and of documents never becomes markup', async () => {
  const hostile = '<img src=x onerror="window.hostile=1"><script>window.hostile=1</script>\n<b>bold</b> words of the question\n';
  await put('page-test-hostile', hostile.repeat(40));
  await openPage({ hash: '#page-test-hostile/' });
  await waitText('#text', 'onerror');
  await ask('hostile <img src=x onerror="window.hostile=1"> words of the question');
  await answered();
  const found = await page.evaluate(() => ({
    ran: window.hostile !== undefined,
    elements: document.querySelectorAll('#messages img, #messages script, #messages iframe, #messages b, #text img, #text script, #text b, #contexts img, #chats img').length,
    links: [...document.querySelectorAll('#messages a')].map((link) => link.href),
    rel: [...document.querySelectorAll('#messages a')].every((link) => link.rel.includes('noopener')),
    events: [...document.querySelectorAll('#messages *, #text *')].some((element) => [...element.attributes].some(({ name }) => name.startsWith('on'))),
  }));
  assert.equal(found.ran, false);
  assert.equal(found.elements, 0);
  assert.equal(found.events, false);
  assert.ok(found.rel);
  if (mocked) {
    assert.deepEqual(found.links, ['https://example.org/a?b=c']);
    assert.match(await text('.answer .markdown'), /<img src=x onerror="window.hostile=1">/);
  }
  assert.equal(await text('#text'), hostile.repeat(40));
  await removeBook('page-test-hostile');
});

check('conversations are kept after a reload and per text, exported and deleted', async () => {
  await openBook();
  await ask(kQuestion);
  await answered();
  const content = await text('.answer .markdown');
  await page.reload();
  await page.waitForSelector('body[data-ready]');
  await wait(() => document.querySelector('#text').textContent.length > 1000);
  assert.equal(await text('.answer .markdown'), content);
  assert.equal(await text('#chat-title'), kQuestion);
  await page.waitForSelector('mark');
  const client = await page.createCDPSession();
  await client.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: folder, browserContextId: page.browserContext().id });
  await page.click('#export-json');
  await page.click('#export-md');
  let exported;
  for (let i = 0; i < 100 && !exported?.every(Boolean); i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const names = await readdir(folder);
    exported = ['.json', '.md'].map((end) => names.find((name) => name.startsWith('What-did') && name.endsWith(end)));
  }
  assert.equal(JSON.parse(await readFile(path.join(folder, exported[0]), 'utf8')).messages.length, 2);
  assert.match(await readFile(path.join(folder, exported[1]), 'utf8'), /## Question\n\nWhat did/);
  await page.click('#new-chat');
  assert.equal(await page.$('.message'), null);
  await page.click('#contexts li:first-child .open');
  await waitText('#chats', 'None yet');
  await page.click('#contexts li:nth-child(2) .open');
  await visible('.answer');
  await page.click('#chats .remove');
  await visible('dialog[open]');
  await page.click('dialog button.danger');
  await waitText('#chats', 'None yet');
  assert.equal(await page.$('.message'), null);
  await removeBook(kBook);
});

check('methods are chosen with suggestions and sent', async () => {
  await openPage();
  await page.click('.methods summary');
  assert.ok((await page.$$eval('#method-attend-list option', (all) => all.map((one) => one.value))).includes('dense'));
  await page.type('#method-attend', 'quest');
  await (await page.waitForSelector('#method-attend-info .chip')).click();
  assert.match(await page.$eval('#method-attend', (field) => field.value), /^quest:\w+=/);
  await page.type('#method-draft', 'none');
  await page.type('#method-temperature', '0.7');
  await page.type('#method-tokens', '9');
  await shoot('methods');
  await axe('methods');
  await ask('Hello there');
  await answered();
  if (mocked) {
    const chat = (await mock({})).chats.at(-1);
    assert.deepEqual([chat.fathom.attend, chat.fathom.draft, chat.temperature, chat.max_completion_tokens], ['quest:share=0.25', 'none', 0.7, 9]);
  }
  await page.reload();
  await page.waitForSelector('body[data-ready]');
  assert.match(await text('#methods-summary'), /quest:.*draft none.*0.7.*9 tokens/);
});

check('Markdown of an answer: headings, table, lists, code, reasoning', async () => {
  await openPage();
  await ask('Show a table and think.');
  await answered();
  for (const selector of ['h5', 'strong', 'em', 'table td', 'ol li ul li code', 'pre code']) assert.ok(await page.$(`.answer .markdown ${selector}`), selector);
  assert.match(await text('.answer .reasoning'), /First I look/);
  await shoot('markdown');
}, { mockOnly: true });

check('dark and light follow the system, and the switch', async () => {
  const back = () => page.evaluate(() => getComputedStyle(document.querySelector('.chat')).backgroundColor);
  const bright = (colour) => colour.match(/[\d.]+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0) > 380;
  await put(kBook, sampleText(kBytes));
  await openPage({ dark: true, hash: `#${kBook}/` });
  assert.equal(bright(await back()), false);
  await wait(() => document.querySelector('#text').textContent.length > 1000);
  await ask(kQuestion);
  await answered();
  if (await page.$('.passages button')) await page.$$eval('.passages button', (buttons) => buttons[0].click());
  await shoot('dark');
  await axe('dark');
  await page.click('#theme');
  assert.equal(bright(await back()), true);
  await page.click('#theme');
  assert.equal(bright(await back()), false);
  await page.reload();
  await page.waitForSelector('body[data-ready]');
  assert.match(await text('#theme'), /dark/);
  await removeBook(kBook);
});

check('everything works with the keyboard alone', async () => {
  await put(kBook, sampleText(20000));
  await openPage();
  const active = () => page.evaluate(() => {
    const element = document.activeElement;
    return element.id || `${element.className} ${element.textContent}`.trim();
  });
  const tabTo = async (pattern) => {
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab');
      const where = await active();
      if (pattern.test(where)) return;
      const outlined = await page.evaluate(() => document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== 'none' ||
        document.activeElement.id === 'skip');
      assert.ok(outlined, `no visible focus at ${where}`);
    }
    assert.fail(`Tab does not reach ${pattern}`);
  };
  await tabTo(/^skip$/);
  await page.keyboard.press('Enter');
  assert.equal(await active(), 'question');
  await page.evaluate(() => document.activeElement.blur());
  await tabTo(new RegExp(`open ${kBook}`));
  await page.keyboard.press('Enter');
  await wait(() => document.querySelector('#text').textContent.length > 1000);
  await page.keyboard.press('/');
  assert.equal(await active(), 'question');
  await page.keyboard.type('sealed letter');
  await page.keyboard.down('Shift');
  await page.keyboard.press('Enter');
  await page.keyboard.up('Shift');
  await page.keyboard.type('of captain Thorne /');
  assert.equal(await page.$eval('#question', (field) => field.value), 'sealed letter\nof captain Thorne /');
  await page.keyboard.press('Enter');
  await answered();
  await page.evaluate(() => document.querySelector('#messages').focus());
  if (await page.$('.passages button')) {
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.closest('.passages') !== null), true);
    await page.keyboard.press('Enter');
    await visible('mark.current');
  }
  await tabTo(/^edit$/);
  await page.keyboard.press('Enter');
  assert.equal(await active(), 'editor-text');
  await page.keyboard.type('New. ');
  await page.keyboard.down('Shift');
  for (let i = 0; (await active()) !== 'edit-save'; i++) {
    assert.ok(i < 10);
    await page.keyboard.press('Tab');
  }
  await page.keyboard.up('Shift');
  await page.keyboard.press('Enter');
  await visible('#edit-result');
  assert.equal(await active(), 'edit');
  await tabTo(/remove/);
  await page.keyboard.press('Enter');
  await visible('dialog[open]');
  assert.equal(await active(), 'Cancel', 'the safe choice has the focus');
  await page.keyboard.press('Escape');
  await removeBook(kBook);
});

check('360 pixels are enough', async () => {
  await put(kBook, sampleText(kBytes));
  await openPage({ width: 360, height: 740, hash: `#${kBook}/` });
  const fits = async (name) => {
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: nothing is wider than the page`);
    assert.deepEqual(await page.$$eval('button, input, textarea, h2', (all) => all.filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1) && !element.matches('.hidden-text');
    }).map((element) => element.outerHTML.slice(0, 80))), [], name);
  };
  await ask(kQuestion);
  await answered();
  await fits('chat');
  await shoot('narrow-chat');
  if (await page.$('.passages button')) {
    await page.click('.passages button');
    assert.equal(await page.evaluate(() => document.body.dataset.view), 'document');
    await visible('mark.current');
  } else await page.click('#views [data-view=document]');
  await fits('document');
  await shoot('narrow-document');
  await page.click('#edit');
  await fits('editor');
  await page.click('#edit-cancel');
  await page.click('#views [data-view=library]');
  await visible('#contexts');
  await fits('library');
  await shoot('narrow-library');
  await axe('narrow');
  await removeBook(kBook);
});

check('a text of 5 MB stays responsive', async () => {
  await mock({ speed: 20 });
  await openPage();
  await page.evaluate(() => {
    window.longTasks = [];
    new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((entry) => entry.duration))).observe({ entryTypes: ['longtask'] });
  });
  const content = `${sampleText(5 << 20)}${'A very long line without an end. '.repeat(8000)}\n`;
  await upload(await file('page-test-big.txt', content));
  await visible('#edit');
  assert.equal(await page.$eval('#text', (element) => element.textContent.length), content.length);
  await ask(kQuestion);
  await answered();
  const strip = await (await page.$('#strip')).boundingBox();
  for (const share of [0.9, 0.1, 0.5, 0.999]) {
    await page.mouse.click(strip.x + strip.width * share, strip.y + 10);
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  const view = await page.$eval('#strip .view', (rect) => Number(rect.getAttribute('x')) / 256);
  assert.ok(view > 0.985, `the strip scrolls to its cell (${view})`);
  await page.click('#edit');
  await visible('#editor-text');
  await page.$eval('#editor-text', (field) => field.setSelectionRange(field.value.length, field.value.length));
  await page.keyboard.type('The end.');
  await page.click('#edit-save');
  await visible('#edit-result');
  await shoot('large');
  const tasks = await page.evaluate(() => window.longTasks);
  console.log(`  long tasks with 5 MB: ${tasks.length}, longest ${Math.round(Math.max(0, ...tasks))} ms, all ${Math.round(tasks.reduce((a, b) => a + b, 0))} ms`);
  assert.ok(Math.max(0, ...tasks) < 2500, 'no task blocks the page for long');
}, { mockOnly: true });

check('the page keeps to its Content-Security-Policy and has no errors', async () => {
  const response = await fetch(url);
  const policy = response.headers.get('Content-Security-Policy') ?? '';
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]) assert.ok(policy.includes(part), part);
  await openPage();
  const outside = [];
  page.on('request', (request) => { if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) outside.push(request.url()); });
  await page.reload();
  await page.waitForSelector('body[data-ready]');
  assert.deepEqual(outside, []);
  await axe('empty page');
  await shoot('empty');
});

let failed = 0;
let passed = 0;
let skipped = 0;
for (const { name, run, mockOnly } of checks) {
  if (option('only') && !name.includes(option('only'))) continue;
  if (mockOnly && !mocked) {
    skipped++;
    console.log(`skipped  ${name}`);
    continue;
  }
  if (mocked) await mock({ reset: true, speed: 4 });
  try {
    await run();
    assert.deepEqual(problems, [], 'errors of the page');
    passed++;
    console.log(`passed   ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED   ${name}\n${error.stack}\n  errors of the page: ${problems.join('; ') || 'none'}`);
    if (screenshots && page) await page.screenshot({ path: path.join(screenshots, `failed-${passed + failed}.png`) }).catch(() => {});
  }
  await page?.browserContext().close().catch(() => {});
}
await browser.close();
server?.closeAllConnections();
server?.close();
await rm(folder, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
