'use strict';
// A list of any length in a box that scrolls: only the entries in sight, and a few around them, are elements.

class LongList {
  // box: the element that scrolls. Options: entry(position) makes an element; height of entries in pixels; width: their
  // least width, for several side by side, or 0 for one a line.
  constructor(box, { entry, height, width = 0 }) {
    this.box = box;
    this.entry = entry;
    this.height = height;
    this.width = width;
    this.count = 0;
    this.columns = 1;
    this.drawn = new Map(); // position -> element
    this.space = Page.make('div', { className: 'space', role: 'presentation' });
    box.append(this.space);
    box.addEventListener('scroll', () => this.draw(), { passive: true });
    new ResizeObserver(() => this.arrange()).observe(box);
  }

  // Shows `count` entries, all made anew.
  show(count) {
    this.count = count;
    for (const element of this.drawn.values()) element.remove();
    this.drawn.clear();
    this.arrange();
  }

  arrange() {
    const columns = this.width ? Math.max(Math.floor(this.box.clientWidth / this.width), 1) : 1;
    if (columns !== this.columns) {
      this.columns = columns;
      for (const element of this.drawn.values()) element.remove();
      this.drawn.clear();
    }
    this.space.style.height = `${Math.ceil(this.count / columns) * this.height}px`;
    this.draw();
  }

  draw() {
    if (!this.box.clientHeight) return; // hidden
    const top = this.box.scrollTop - this.space.offsetTop;
    const [first, last] = LongList.inSight(top, this.box.clientHeight, this.height, this.columns, this.count);
    for (const [position, element] of this.drawn) {
      if (position < first || position >= last) {
        element.remove();
        this.drawn.delete(position);
      }
    }
    for (let position = last - 1; position >= first; position--) this.drawn.has(position) || this.place(position);
  }

  // Positions to draw, [first, one past the last]: entries of a height, some side by side in a line, of which `seen`
  // pixels from `top` on are in sight, and two lines more at each end.
  static inSight(top, seen, height, columns, count) {
    const first = Math.max(Math.floor(top / height) - 2, 0) * columns;
    return [first, Math.min((Math.ceil((top + seen) / height) + 2) * columns, count)];
  }

  place(position) {
    const element = this.entry(position);
    element.style.top = `${Math.floor(position / this.columns) * this.height}px`;
    element.style.height = `${this.height}px`;
    if (this.width) {
      element.style.left = `${((position % this.columns) * 100) / this.columns}%`;
      element.style.width = `${100 / this.columns}%`;
    }
    // in order, for those who read the elements rather than see them
    this.space.insertBefore(element, this.drawn.get(position + 1) ?? null);
    this.drawn.set(position, element);
  }

  // Makes an entry anew, if it is drawn.
  redraw(position) {
    const element = this.drawn.get(position);
    if (!element) return;
    element.remove();
    this.place(position);
  }

  // Scrolls so that an entry can be seen whole.
  reveal(position) {
    const top = Math.floor(position / this.columns) * this.height + this.space.offsetTop;
    const head = this.space.offsetTop; // of what stays at the top
    if (top - head < this.box.scrollTop) this.box.scrollTop = top - head;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + this.height - this.box.clientHeight;
    }
    this.draw();
  }
}
