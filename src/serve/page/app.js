// Starts the page and connects its parts. The address after # holds the open text and conversation.

import { h, byId, announce } from './dom.js';
import { Api } from './api.js';
import { Store, toMarkdown } from './store.js';
import { ChatView, errorBox } from './chat_view.js';
import { Conversation, locate, newChat } from './conversation.js';
import { DocumentPane } from './document_pane.js';
import { MethodsPanel } from './methods_panel.js';
import { Reader } from './reader.js';
import { confirmDialog, keyDialog, pasteDialog } from './dialogs.js';
import { showChats, showContexts } from './library.js';
import { bytes, count, excerpt } from './format.js';

const kPollDelay = 2500;       // ms, while another client reads a text
const kReconnectDelay = 3000;  // ms

const store = new Store();
let contexts = [];
let current = null;     // name of the open text; null for a plain chat
let shownMessage = null;  // the answer whose passages are marked

const api = new Api({ askKey: keyDialog, onConnection: showConnection });
const methods = new MethodsPanel(store);

const pane = new DocumentPane(api, {
  onEdited(context) {
    contexts = contexts.map((other) => (other.name === context.name ? context : other));
    shownMessage = null;
    showLists();
    loadMemory();
  },
  onAskAgain: () => (conversation.lastAnswer ? () => askAgain(conversation.lastAnswer) : null),
  onPassage: (number) => announce(`Passage ${number + 1}`),
});

const chatView = new ChatView(byId('messages'), {
  onPassage: showPassage,
  onAgain: askAgain,
  onMethods: (error) => methods.open(error.message),
});

const conversation = new Conversation(api, chatView, () => (current === null || pane.text === '' ? null : pane.index), {
  request: (messages) => methods.apply({ messages, ...(current !== null && { context: current }), stream: true,
    stream_options: { include_usage: true }, fathom: { progress: true, attention: current !== null } }),
  onChange: saveChat,
  onAttention: showAttention,
  onBusy(busy) {
    byId('stop').hidden = !busy;
    byId('send').hidden = busy;
  },
  onFinished: loadMemory,
});

const reader = new Reader(api, {
  onStart(job) {
    if (job.name === current) {
      showJob(job);
      showLists();
      showComposer();
    } else open(job.name);
    setView('document');
    announce(`Reading ${job.name}.`);
  },
  onProgress(job) {
    const share = job.progress.total > 0 ? job.progress.processed / job.progress.total : 0;
    const quarter = Math.floor(4 * share);
    if (quarter > (job.quarter ?? 0) && quarter < 4) announce(`${25 * quarter} percent of ${job.name} is read.`);
    job.quarter = quarter;
    showLists();
    if (job.name === current) pane.setProgress(`Reading ${job.name}`, job.progress, () => reader.cancel(job.name));
  },
  onDone(job) {
    contexts = [job.context, ...contexts.filter((context) => context.name !== job.name)];
    announce(`${job.name} is read: ${count(job.context.tokens)} tokens. You can ask about it.`);
    if (job.name === current) {
      pane.setContext(job.context);
      pane.setStatus(null);
      pane.strip.setRead(null);
    }
    showLists();
    showComposer();
    loadContexts();
    loadMemory();
  },
  onEnd(job) {
    if (job.name === current) showJob(job);
    announce(job.status === 'cancelled' ? `Reading ${job.name} was cancelled.` : `${job.name} was not read: ${job.error.message}`);
    showLists();
    showComposer();
  },
});

// ---- Texts ----

async function loadContexts() {
  try {
    contexts = await api.contexts();
    byId('library-error').replaceChildren();
  } catch (error) {
    byId('library-error').replaceChildren(errorBox(error, [['Try again', loadContexts]]));
  }
  showLists();
  if (contexts.some((context) => context.status === 'reading' && !reader.jobs.has(context.name))) pollContexts();
}

let polling = 0;
function pollContexts() {
  clearTimeout(polling);
  polling = setTimeout(async () => {
    await loadContexts();
    const context = find(current);
    if (context?.status === 'ready' && pane.context?.name === current && pane.context.status === 'reading' && !reader.jobs.has(current)) {
      pane.open(context);
      showComposer();
    }
  }, kPollDelay);
}

const find = (name) => contexts.find((context) => context.name === name);

function showLists() {
  showContexts(contexts, reader.jobs, current, { open, remove: removeContext, removeJob });
  showChats(store.list(current), conversation.chat.id, { open: (id) => open(current, id), remove: removeChat });
}

/** Opens a text (null: none) and one of its conversations: `id`, or the newest. */
async function open(name, id = null, { view = true } = {}) {
  if (name !== current || !pane.context) {
    if (pane.editing && !(await pane.cancelEdit())) return;
    current = name;
    shownMessage = null;
    showText();
  }
  const chat = store.load(id ?? store.list(name)[0]?.id) ?? newChat(name);
  openChat(chat.context === name ? chat : newChat(name));
  if (view && document.body.dataset.view === 'library') setView('chat');
}

function showText() {
  const job = reader.jobs.get(current);
  const context = find(current);
  if (current === null) pane.close();
  else if (job) showJob(job);
  else if (context?.status === 'ready') pane.open(context).then(showShownMessage);
  else if (context) {
    pane.show(context, '');
    pane.setStatus(h('p', {}, 'Another client is reading this text. It opens when it is ready.'));
    pollContexts();
  } else {
    pane.show({ name: current, bytes: 0, status: 'missing' }, '');
    pane.setStatus(errorBox({ message: `The server has no text named “${current}”.`, hint: 'It may have been deleted.' },
      [['Show the texts', () => setView('library')]]));
  }
  byId('library').classList.toggle('with-text', current !== null);
  document.body.classList.toggle('with-text', current !== null);
  showComposer();
}

// Shows a text that this page is reading, or failed to read.
function showJob(job) {
  const context = { name: job.name, bytes: job.bytes, status: job.status };
  if (pane.context?.name !== job.name || pane.text !== job.text) pane.show(context, job.text);
  pane.setContext(context);
  if (job.status === 'reading') {
    pane.strip.setRead(0);
    pane.setProgress(`Reading ${job.name}`, job.progress, () => reader.cancel(job.name));
    return;
  }
  pane.strip.setRead(null);
  const again = ['Read again', () => reader.start(job.name, job.text)];
  const remove = ['Remove', () => removeJob(job)];
  if (job.status === 'cancelled') pane.setStatus(h('div', { class: 'row' }, h('p', {}, 'Reading was cancelled.'), button(again), button(remove)));
  else pane.setStatus(errorBox(job.error, [again, remove]));
}

const button = ([label, handler]) => h('button', { type: 'button', on: { click: handler } }, label);

async function removeJob(job) {
  if (job.status === 'reading') {
    reader.cancel(job.name);
    return;
  }
  reader.jobs.delete(job.name);
  if (job.name === current) open(null);
  else showLists();
}

async function removeContext(context) {
  const chats = store.list(context.name);
  const agreed = await confirmDialog({ title: `Delete ${context.name}?`,
    text: `The text and what was computed from it (${bytes(context.file_bytes ?? context.bytes)}) are deleted from the server. This cannot be undone.`,
    action: 'Delete', option: chats.length > 0 ? `Delete its ${chats.length} conversation${chats.length === 1 ? '' : 's'} in this browser, too` : null });
  if (!agreed) return;
  try {
    await api.remove(context.name);
  } catch (error) {
    if (error.status !== 404) {
      byId('library-error').replaceChildren(errorBox(error, [['Try again', () => removeContext(context)]]));
      return;
    }
  }
  if (agreed.checked) for (const chat of chats) store.remove(chat.id);
  announce(`${context.name} is deleted.`);
  contexts = contexts.filter((other) => other.name !== context.name);
  if (context.name === current) open(null);
  else showLists();
  loadMemory();
}

async function readFiles(files) {
  for (const file of files) {
    try {
      const encoding = await reader.readFile(file, contexts.map((context) => context.name));
      byId('library-error').replaceChildren();
      if (encoding !== 'UTF-8') byId('library-error').replaceChildren(h('p', { class: 'note' }, `“${file.name}” was converted from ${encoding}.`));
    } catch (error) {
      setView('library');
      byId('library-error').replaceChildren(errorBox(error));
      announce(error.message);
    }
  }
}

async function pasteText(text = '') {
  const taken = contexts.map((context) => context.name);
  const pasted = await pasteDialog([...taken, ...reader.jobs.keys()], text);
  if (!pasted) return;
  try {
    reader.start(pasted.name, pasted.text);
  } catch (error) {
    byId('library-error').replaceChildren(errorBox(error));
  }
}

// ---- Conversations ----

function openChat(chat) {
  conversation.open(chat, current === null
    ? h('div', {}, h('p', { class: 'lead' }, 'Read a text once, ask many questions.'),
      h('p', {}, 'Drop a text file anywhere on this page, or choose one of the list. Without a text this is a plain chat with the model.'),
      button(['Choose a text file', () => byId('file').click()]))
    : h('div', {}, h('p', { class: 'lead' }, `Ask about ${current}.`), h('p', {}, 'The passages that an answer attended to are marked in the text.')));
  byId('chat-title').textContent = chat.messages.length > 0 ? chat.title : 'New conversation';
  shownMessage = null;
  showShownMessage();
  history.replaceState(null, '', address(current, chat.messages.length > 0 ? chat.id : ''));
  showLists();
  showComposer();
}

const address = (name, id) => `#${[name ?? '', id].map(encodeURIComponent).join('/')}`;

function readAddress() {
  try {
    return location.hash.slice(1).split('/').map(decodeURIComponent);
  } catch {
    return [];  // not an address of this page
  }
}

function saveChat(chat) {
  const { saved, deleted } = store.save(chat);
  const note = byId('store-note');
  if (!saved) note.textContent = 'The storage of the browser is full: this conversation is not saved. Export it to keep it.';
  else note.textContent = deleted > 0 ? `The storage of the browser was full: the oldest conversations were deleted (${deleted}).` : '';
  if (chat === conversation.chat) {
    byId('chat-title').textContent = chat.title;
    history.replaceState(null, '', address(current, chat.id));
  }
  showLists();
  showComposer();
}

async function removeChat(meta) {
  const agreed = await confirmDialog({ title: 'Delete this conversation?', text: `“${meta.title}” is deleted from this browser.`, action: 'Delete' });
  if (!agreed) return;
  store.remove(meta.id);
  if (meta.id === conversation.chat.id) openChat(store.load(store.list(current)[0]?.id) ?? newChat(current));
  else showLists();
}

function exportChat(type, extension, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h('a', { href: url, download: `${conversation.chat.title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 60)}.${extension}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// ---- Attention ----

function showAttention(message) {
  if (!pane.index || pane.editing || !message.attention) return;
  shownMessage = message;
  const { values, passages } = locate(message.attention, pane.index);
  pane.setAttention(values, passages);
}

// After a text or a conversation was opened: shows the passages of its last answer.
function showShownMessage() {
  if (current === null || pane.text === '') return;
  const message = conversation.chat.messages.findLast((candidate) => candidate.attention);
  if (message) showAttention(message);
  else pane.setAttention(null, []);
}

async function showPassage(message, number) {
  if (pane.editing && !(await pane.cancelEdit())) return;
  showAttention(message);
  setView('document');
  const found = locate(message.attention, pane.index).passages.findIndex((passage) => passage.number === number);
  if (found >= 0) pane.scrollToPassage(found);
  announce(found >= 0 ? `Passage ${number + 1}: ${excerpt(message.attention.passages[number].excerpt, 200)}` : 'This passage is not in the text any more.');
}

// ---- Asking ----

const kKeys = 'Enter asks, Shift+Enter starts a line, Escape stops, / focuses this field.';

// Why no question can be asked now; an empty text if one can.
function obstacle() {
  if (current === null) return '';
  if (pane.saving) return 'The changes of the text are being read.';
  const job = reader.jobs.get(current);
  if (job?.status === 'reading') return 'The text is being read. You can ask when it is done.';
  if (job) return 'The text was not read. Read it again, or choose “No text”.';
  const context = find(current);
  return context?.status === 'reading' ? 'Another client is reading this text.' : '';
}

function showComposer() {
  const reason = obstacle();
  byId('send').disabled = reason !== '';
  const note = byId('composer-note');
  note.textContent = reason || kKeys;
  note.classList.toggle('keys', reason === '');
  byId('question').placeholder = current === null ? 'Ask a question' : `Ask about ${current}`;
  const empty = conversation.chat.messages.length === 0;
  for (const id of ['export-label', 'export-md', 'export-json']) byId(id).hidden = empty;
}

function mayAsk() {
  const reason = obstacle();
  if (reason !== '') announce(reason);
  return reason === '' && !conversation.busy && methods.valid();
}

function send() {
  const field = byId('question');
  const question = field.value.trim();
  if (question === '' || !mayAsk()) return;
  field.value = '';
  fitQuestion();
  conversation.ask(question);
}

function askAgain(message) {
  if (!mayAsk()) return;
  setView('chat');
  byId('question').focus();
  conversation.askAgain(message);
}

function fitQuestion() {
  const field = byId('question');
  field.style.height = 'auto';
  field.style.height = `${Math.min(field.scrollHeight + 2, 220)}px`;
}

// ---- Server ----

let reconnecting = 0;
function showConnection(connected) {
  const banner = byId('banner');
  if (connected) {
    clearTimeout(reconnecting);
    reconnecting = 0;
    if (!banner.hidden) announce('Connected again.');
    banner.hidden = true;
    return;
  }
  if (banner.hidden) {
    banner.replaceChildren(h('p', {}, 'The connection to the server is lost. Trying to connect again …'));
    banner.hidden = false;
  }
  if (reconnecting === 0) reconnecting = setTimeout(reconnect, kReconnectDelay);
}

async function reconnect() {
  reconnecting = 0;
  if (await loadProps()) loadContexts();
}

async function loadProps() {
  try {
    const props = await api.props();
    byId('model').textContent = `${props.model.name} · context of ${count(props.model.context_length)} tokens`;
    byId('model').title = `${props.name} ${props.version}, ${props.model.architecture}, ${count(props.model.parameters)} parameters, cache ${props.cache}`;
    reader.limit = props.limits?.max_upload_bytes ?? Infinity;
    methods.setMethods(props.methods);
    showMemory(props.memory);
    return true;
  } catch (error) {
    byId('model').textContent = error.status === 401 ? 'no access: reload the page to enter an API key' : 'not connected';
    return false;
  }
}

async function loadMemory() {
  try {
    showMemory((await api.props()).memory);
  } catch {
    // The figure stays old; a lost connection is shown by showConnection.
  }
}

function showMemory(memory) {
  byId('memory').textContent = memory ? `${bytes(memory.used_bytes)} of ${bytes(memory.budget_bytes)}` : '';
  byId('memory').title = 'Memory of keys, values and states: used and allowed';
}

// ---- Page ----

function setView(name) {
  document.body.dataset.view = name;
  for (const other of byId('views').children) other.setAttribute('aria-pressed', String(other.dataset.view === name));
}

const kThemes = ['system', 'light', 'dark'];
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId('theme').textContent = `Theme: ${theme}`;
  store.set('theme', theme);
}

function isField(element) { return element.matches('input, textarea, select, [contenteditable]'); }

function onKey(event) {
  if (document.querySelector('dialog[open]') || event.isComposing) return;
  if (event.key === 'Escape' && conversation.busy) {
    event.preventDefault();
    conversation.stop();
    byId('question').focus();
  } else if (event.key === '/' && !event.ctrlKey && !event.metaKey && !event.altKey && !isField(event.target)) {
    event.preventDefault();
    setView('chat');
    byId('question').focus();
  }
}

function connectDrop() {
  const overlay = byId('drop-here');
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes('Files');
  const show = (on) => { overlay.hidden = !on; };
  addEventListener('dragenter', (event) => {
    if (!hasFiles(event)) return;
    depth++;
    show(true);
  });
  addEventListener('dragleave', (event) => {
    if (hasFiles(event) && --depth <= 0) show(false);
  });
  addEventListener('dragover', (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener('drop', (event) => {
    depth = 0;
    show(false);
    if (!hasFiles(event)) return;
    event.preventDefault();
    readFiles(event.dataTransfer.files);
  });
  addEventListener('paste', (event) => {
    if (isField(event.target) || document.querySelector('dialog[open]')) return;
    const text = event.clipboardData?.getData('text/plain');
    if (event.clipboardData?.files.length) readFiles(event.clipboardData.files);
    else if (text) pasteText(text);
  });
}

function connect() {
  const on = (id, event, handler) => byId(id).addEventListener(event, handler);
  on('choose', 'click', () => byId('file').click());
  on('file', 'change', () => {
    readFiles([...byId('file').files]);
    byId('file').value = '';
  });
  on('paste', 'click', () => pasteText());
  on('new-chat', 'click', () => {
    openChat(newChat(current));
    setView('chat');
    byId('question').focus();
  });
  on('export-md', 'click', () => exportChat('text/markdown', 'md', toMarkdown(conversation.chat)));
  on('export-json', 'click', () => exportChat('application/json', 'json', JSON.stringify(conversation.chat, null, 2)));
  on('theme', 'click', () => setTheme(kThemes[(kThemes.indexOf(store.get('theme', 'system')) + 1) % kThemes.length]));
  on('views', 'click', (event) => { if (event.target.dataset.view) setView(event.target.dataset.view); });
  on('skip', 'click', (event) => {
    event.preventDefault();
    setView('chat');
    byId('question').focus();
  });
  on('stop', 'click', () => {
    conversation.stop();
    byId('question').focus();
  });
  on('question', 'input', fitQuestion);
  on('question', 'keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  on('composer', 'submit', (event) => {
    event.preventDefault();
    send();
  });
  addEventListener('keydown', onKey);
  addEventListener('beforeunload', (event) => {
    const reading = [...reader.jobs.values()].some((job) => job.status === 'reading');
    if (reading || (pane.editing && pane.editor.dirty)) event.preventDefault();
  });
  connectDrop();
}

async function start() {
  setTheme(store.get('theme', 'system'));
  connect();
  const [name, id] = readAddress();
  openChat(newChat(null));
  await loadProps();
  await loadContexts();
  await open(name || null, id || null, { view: false });
  document.body.dataset.ready = 'yes';
}

start();
