'use strict';
// Which images are kept and which are rejected: stored by the browser, and found again on pages of the same images.

class Choices {
  static KEEP = 1;
  static REJECT = 2;
  static SIGNS = ['', '\u2713', '\u2717'];
  static WORDS = ['undecided', 'kept', 'rejected'];

  // notStored() is called where the browser does not store them.
  constructor(scores, notStored) {
    this.paths = scores.paths;
    this.notStored = notStored;
    this.storageKey = `maclip-choices-${scores.id}`;
    this.of = new Uint8Array(scores.size); // choice of each row
    this.before = []; // [row, its choice before], for undo
    this.timer = 0;
    this.restore();
    addEventListener('pagehide', () => this.timer && this.store());
  }

  restore() {
    const stored = Page.store.read(this.storageKey);
    if (!stored) return;
    const rows = new Map(this.paths.map((path, row) => [path, row]));
    [stored.kept, stored.rejected].forEach((paths, i) =>
      paths?.forEach?.((path) => rows.has(path) && (this.of[rows.get(path)] = i + 1)),
    );
  }

  store() {
    clearTimeout(this.timer);
    this.timer = 0;
    const [kept, rejected] = [Choices.KEEP, Choices.REJECT].map((choice) =>
      this.paths.filter((_, row) => this.of[row] === choice),
    );
    if (!Page.store.write(this.storageKey, { kept, rejected })) this.notStored();
  }

  set(row, choice) {
    this.before.push([row, this.of[row]]);
    this.change(row, choice);
  }

  // The row whose last choice is undone; undefined where there is none.
  undo() {
    if (!this.before.length) return undefined;
    const [row, choice] = this.before.pop();
    this.change(row, choice);
    return row;
  }

  change(row, choice) {
    this.of[row] = choice;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.store(), 200);
  }

  word(row) {
    return Choices.WORDS[this.of[row]];
  }

  sign(row) {
    const [sign, word] = [Choices.SIGNS[this.of[row]], this.word(row)];
    const heard = sign ? { role: 'img', 'aria-label': word } : {};
    return Page.make('span', { className: `sign ${word}`, title: word, ...heard }, sign);
  }

  // How many of the rows have each choice, to read.
  counts(rows) {
    const counts = [0, 0, 0];
    for (const row of rows) counts[this.of[row]]++;
    return counts.map((n, choice) => `${Choices.SIGNS[choice]} ${Choices.WORDS[choice]} ${Page.count(n)}`.trim());
  }
}
