'use strict';
// The table of scores: its columns, and what they say of a row. Columns are known by their kinds and roles (see
// scoring/schema.py); only `path`, `score` and `percentile` are known by their names.

class Scores {
  // id, folder, columns: as page.py writes them.
  constructor({ id, folder, columns }) {
    this.id = id; // the same for the same images
    this.folder = folder; // what all paths begin with
    this.columns = Rows.columns(columns);
    this.names = new Map(this.columns.map((column) => [column.name, column]));
    this.paths = this.column('path').values; // without the folder
    this.values = this.column('score').values;
    this.numbers = this.columns.filter(({ text, values }) => !text && values.some((value) => !Number.isNaN(value)));
    this.flagged = this.columns.filter(({ kind }) => kind === 'words');
    this.explained = this.columns.filter(({ role }) => role === 'error');
    const rows = Array.from(this.paths.keys());
    this.scored = rows.filter((row) => !Number.isNaN(this.values[row]));
    this.failed = rows.filter((row) => Number.isNaN(this.values[row]) || this.error(row));
  }

  get size() {
    return this.paths.length;
  }

  column(name) {
    return this.names.get(name);
  }

  // Title of a column; of another quantity, its name.
  title(name) {
    return this.column(name)?.title ?? name;
  }

  path(row) {
    return this.folder + this.paths[row];
  }

  name(row) {
    return Rows.fileName(this.path(row), this.folder);
  }

  flags(row) {
    return this.flagged.flatMap(({ values }) => Rows.words(values[row]));
  }

  error(row) {
    return this.explained
      .map(({ values }) => values[row])
      .filter(Boolean)
      .join('; ');
  }

  // Where the score of a row lies among those of the page, to read; '' where there is none, or where percentiles of a
  // reference say more.
  rank(row) {
    const place = Rows.rank(this.values, row);
    if (Number.isNaN(place) || this.numbers.includes(this.column('percentile'))) return '';
    return `rank ${Page.count(place)} of ${Page.count(this.scored.length)} on this page`;
  }

  // A cell to read.
  static text({ text, values }, row) {
    return text ? values[row] : Page.number(values[row]);
  }

  // Elements of words that a row is flagged with.
  static badges(words) {
    return words.map((word) => Page.make('span', { className: 'flag' }, word));
  }
}
