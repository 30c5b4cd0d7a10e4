// Byte offsets in UTF-8 and the indices of JavaScript strings (UTF-16 code units).

const kStep = 1024;  // code units between two samples: 20 KB of samples for 5 MB of text

/** Number of UTF-8 bytes of text[begin, end). A lone surrogate counts 3 bytes, as U+FFFD does. */
export function utf8Length(text, begin = 0, end = text.length) {
  let bytes = 0;
  for (let i = begin; i < end; i++) {
    const c = text.charCodeAt(i);
    if (c < 0x80) bytes += 1;
    else if (c < 0x800) bytes += 2;
    else if (isPairAt(text, i) && i + 1 < end) {
      bytes += 4;
      i++;
    } else bytes += 3;
  }
  return bytes;
}

/** True if a surrogate pair begins at index i. */
export function isPairAt(text, i) {
  return (text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00;
}

/** Maps between byte offsets and string indices of one text in O(log n). */
export class TextIndex {
  constructor(text) {
    this.text = text;
    this.starts = [];  // index of the first code unit of each sample; never inside a surrogate pair
    this.sums = [];    // bytes before it
    let bytes = 0;
    for (let i = 0; i < text.length;) {
      let end = Math.min(i + kStep, text.length);
      if (end < text.length && isPairAt(text, end - 1)) end++;
      this.starts.push(i);
      this.sums.push(bytes);
      bytes += utf8Length(text, i, end);
      i = end;
    }
    this.bytes = bytes;
  }

  /** Byte offset of a string index. */
  toByte(index) {
    if (index <= 0) return 0;
    if (index >= this.text.length) return this.bytes;
    const sample = lastNotAbove(this.starts, index);
    return this.sums[sample] + utf8Length(this.text, this.starts[sample], index);
  }

  /** String index of a byte offset; an offset inside a character gives the start of that character. */
  toIndex(byte) {
    if (!(byte > 0)) return 0;
    if (byte >= this.bytes) return this.text.length;
    const sample = lastNotAbove(this.sums, byte);
    let at = this.sums[sample];
    let i = this.starts[sample];
    for (;;) {
      const pair = isPairAt(this.text, i);
      const c = this.text.charCodeAt(i);
      const size = c < 0x80 ? 1 : c < 0x800 ? 2 : pair ? 4 : 3;
      if (at + size > byte) return i;
      at += size;
      i += pair ? 2 : 1;
    }
  }
}

/** Index of the last element of an ascending array that is at most value; 0 if there is none. */
export function lastNotAbove(array, value) {
  let low = 0;
  let high = array.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (array[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
