'use strict';
// Images that are shown or chosen, saved as a list of paths, as paths with choices, or as a table.

class Export {
  // shown() and sorted(): rows that are shown, and all rows with a score, in the order of the page; say(text).
  constructor(scores, choices, { shown, sorted, say }) {
    Object.assign(this, { scores, choices, shown, sorted, say });
    Page.byId('export').addEventListener('click', () => this.save());
  }

  // Rows of 'shown', 'kept', 'rejected' or 'chosen'.
  rows(which) {
    if (which === 'shown') return this.shown();
    const chosen = this.sorted().filter((row) => this.choices.of[row]);
    return which === 'chosen' ? chosen : chosen.filter((row) => this.choices.word(row) === which);
  }

  save() {
    const which = Page.byId('export-what').value;
    const as = Page.byId('export-as').value;
    const rows = this.rows(which);
    let left = 0;
    if (as === 'table') Page.save(`${which}.csv`, Rows.csv(rows, this.scores.columns, this.scores.folder), 'text/csv');
    else if (as === 'choices') {
      const lines = rows.map((row) => `${Page.cell(this.scores.path(row))},${this.choices.word(row)}\n`);
      Page.save(`${which}-choices.csv`, `path,choice\n${lines.join('')}`, 'text/csv');
    } else {
      const paths = rows.map((row) => this.scores.path(row)).filter((path) => !/[\r\n]/.test(path));
      left = rows.length - paths.length;
      Page.save(`${which}.txt`, paths.map((path) => `${path}\n`).join(''));
    }
    this.say(
      `${Page.count(rows.length - left)} images saved` +
        (left ? `; ${Page.count(left)} are left out, as their paths have line breaks: save .csv` : ''),
    );
  }
}
