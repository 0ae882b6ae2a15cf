'use strict';
// One image in a dialog: its picture with the quality map over it, its choice, and all that the table says of it.

class Detail {
  // What the dialog asks the list for: around(row), whether there is an image before and one after it; step(by), go to
  // another image; choose(choice), for this image; closed(), after the dialog.
  constructor(scores, pictures, choices, { around, step, choose, closed }) {
    const { byId } = Page;
    Object.assign(this, { scores, pictures, choices, around, closed });
    this.dialog = byId('detail');
    this.map = new MapControls({ title: (name) => scores.title(name), none: true });
    byId('previous').addEventListener('click', () => step(-1));
    byId('next').addEventListener('click', () => step(1));
    byId('keep').addEventListener('click', () => choose(Choices.KEEP));
    byId('reject').addEventListener('click', () => choose(Choices.REJECT));
    byId('detail-close').addEventListener('click', () => this.close());
    this.dialog.addEventListener('click', (event) => event.target === this.dialog && this.close());
  }

  get isOpen() {
    return this.dialog.open;
  }

  open(row) {
    this.show(row);
    if (!this.isOpen) this.dialog.showModal();
  }

  close() {
    this.dialog.close();
    this.closed();
  }

  show(row) {
    Page.byId('detail-path').textContent = this.scores.path(row);
    this.showPicture(row);
    this.showColumns(row);
    const [before, after] = this.around(row);
    Page.neighbours(before, after);
    Page.byId('keep').setAttribute('aria-pressed', this.choices.of[row] === Choices.KEEP);
    Page.byId('reject').setAttribute('aria-pressed', this.choices.of[row] === Choices.REJECT);
  }

  showPicture(row) {
    const { byId } = Page;
    const picture = this.pictures[row];
    byId('detail-picture').hidden = !picture;
    if (picture) Page.set(byId('detail-image'), { src: Page.jpeg(picture.jpeg), alt: this.scores.name(row) });
    byId('detail-none').textContent = !picture
      ? 'No picture of this image is on this page.'
      : picture.windows
        ? ''
        : 'No map: the values of its windows are not on this page.';
    this.map.show([[byId('detail-map'), picture?.windows ?? null]]);
  }

  // Qualities as bars, the rank below them, flags as words, all other columns by their names.
  showColumns(row) {
    const { byId, make } = Page;
    const bars = this.scores.columns.filter(({ role, text }) => role === 'quality' && !text);
    const rest = this.scores.columns.filter(
      (each) => each.role !== 'key' && each.kind !== 'words' && !bars.includes(each),
    );
    byId('detail-bars').replaceChildren(
      ...bars.flatMap(({ title, meaning, values }) => {
        const bar = make('span', { className: 'bar' }, make('i'));
        bar.firstChild.style.width = `${100 * Math.min(Math.max(values[row] || 0, 0), 1)}%`;
        const value = make('span', { className: 'number' }, Page.number(values[row]));
        return [make('span', { title: meaning }, title), bar, value];
      }),
    );
    const rank = this.scores.rank(row);
    Page.set(byId('detail-rank'), { textContent: rank, hidden: !rank });
    byId('detail-flags').replaceChildren(...Scores.badges(this.scores.flags(row)));
    byId('detail-columns').replaceChildren(
      ...rest.flatMap((each) => {
        const text = Scores.text(each, row);
        return text ? [make('dt', { title: each.meaning }, each.title), make('dd', {}, text)] : [];
      }),
    );
  }
}
