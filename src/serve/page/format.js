// Numbers, sizes and times as text.

export const count = (n) => Math.round(n).toLocaleString('en-US');

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export function rate(tokensPerSecond) {
  return `${tokensPerSecond >= 100 ? count(tokensPerSecond) : tokensPerSecond.toFixed(1)} tokens/s`;
}

export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function age(unixSeconds, now = Date.now() / 1000) {
  const seconds = Math.max(0, now - unixSeconds);
  if (seconds < 90) return 'now';
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export const percent = (share) => `${share > 0 && share < 0.1 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;

/** Shortens a text to at most `length` characters and replaces white space by single spaces. */
export function excerpt(text, length) {
  const flat = text.slice(0, 4 * length).replace(/\s+/g, ' ').trim();
  return flat.length <= length ? flat : `${flat.slice(0, length - 1).replace(/[\ud800-\udbff]$/, '').trimEnd()}…`;
}

/** A context name for a file name: allowed characters only, at most 64, not in `taken`. */
export function contextName(fileName, taken = []) {
  const base = fileName.normalize('NFKD').replace(/\.(txt|text|md|log)$/i, '').replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[-.]+|[-.]+$/g, '').slice(0, 60) || 'text';
  let name = base;
  for (let i = 2; taken.includes(name); i++) name = `${base}-${i}`;
  return name;
}
