// The panel that chooses methods and sampling.

import { h, byId } from './dom.js';

const kFields = { attend: '', draft: '', temperature: '', tokens: '' };

export class MethodsPanel {
  constructor(store) {
    this.store = store;
    this.methods = { attend: [], draft: [] };
    this.values = { ...kFields, ...store.get('methods', {}) };
    for (const name of Object.keys(kFields)) {
      const field = byId(`method-${name}`);
      field.value = this.values[name];
      field.addEventListener('input', () => {
        this.values[name] = field.value.trim();
        this.store.set('methods', this.values);
        this.#update();
      });
    }
    byId('methods-reset').addEventListener('click', () => {
      this.values = { ...kFields };
      for (const name of Object.keys(kFields)) byId(`method-${name}`).value = '';
      this.store.set('methods', this.values);
      this.#update();
    });
    this.#update();
  }

  setMethods(methods) {
    this.methods = { attend: withParameters(methods?.attend), draft: withParameters(methods?.draft) };
    this.#update();
  }

  /** Adds what was chosen to a chat request. Empty fields leave the choice to the server. */
  apply(request) {
    const { attend, draft, temperature, tokens } = this.values;
    if (temperature !== '') request.temperature = Number(temperature);
    if (tokens !== '') request.max_completion_tokens = Number(tokens);
    if (attend !== '') request.fathom.attend = attend;
    if (draft !== '') request.fathom.draft = draft;
    return request;
  }

  /** Opens the panel and focuses the field that an error is about, if its text says so. */
  open(message = '') {
    byId('methods').open = true;
    byId(/draft/i.test(message) ? 'method-draft' : /temperature/i.test(message) ? 'method-temperature' : 'method-attend').focus();
  }

  /** False if a field has a value that the browser rejects. */
  valid() {
    const wrong = ['method-temperature', 'method-tokens'].map(byId).find((field) => !field.checkValidity());
    if (wrong) {
      byId('methods').open = true;
      wrong.reportValidity();
    }
    return !wrong;
  }

  #update() {
    for (const kind of ['attend', 'draft']) this.#describe(kind);
    const { attend, draft, temperature, tokens } = this.values;
    const parts = [attend, draft && `draft ${draft}`, temperature !== '' && `temperature ${temperature}`, tokens !== '' && `at most ${tokens} tokens`];
    byId('methods-summary').textContent = parts.filter(Boolean).join(' · ') || 'defaults of the server';
  }

  // Suggestions for a field, and what its method does.
  #describe(kind) {
    const value = this.values[kind];
    const name = value.split(':')[0];
    const methods = this.methods[kind];
    const method = methods.find((candidate) => candidate.name === name);
    const options = methods.map((candidate) => h('option', { value: candidate.name }, candidate.summary));
    for (const parameter of method?.parameters ?? []) {
      if (!value.includes(`${parameter.name}=`)) {
        options.push(h('option', { value: extend(value, parameter) }, parameter.summary));
      }
    }
    byId(`method-${kind}-list`).replaceChildren(...options);
    const info = byId(`method-${kind}-info`);
    const field = byId(`method-${kind}`);
    if (method) {
      info.replaceChildren(method.summary, h('div', { class: 'chips' }, method.parameters.map((parameter) => h('button', { type: 'button', class: 'chip',
        title: parameter.summary, on: { click: () => {
          field.value = extend(field.value.trim(), parameter);
          field.dispatchEvent(new Event('input'));
          field.focus();
        } } }, `${parameter.name}=${parameter.default}`))));
    } else {
      info.replaceChildren(value !== '' && methods.length > 0 ? `The server does not list a method “${name}”.` : '');
    }
  }
}

const withParameters = (methods) => (methods ?? []).map((method) => ({ ...method, parameters: method.parameters ?? [] }));

// Adds a parameter to a method as text, unless it is there.
function extend(value, parameter) {
  if (value.includes(`${parameter.name}=`)) return value;
  return `${value}${value.includes(':') ? ',' : ':'}${parameter.name}=${parameter.default}`;
}
