'use strict';
// A histogram with a range to drag, and a scatter of two columns.

class Histogram {
  // host: an element; changed([low, high] or null) is called while the range is dragged.
  constructor(host, changed) {
    this.host = host;
    this.changed = changed;
    this.bins = 50;
    this.range = null;
    [this.low, this.high] = [0, 1]; // of the values
    const { svg, make } = Page;
    this.all = svg('path', { class: 'all' });
    this.some = svg('path', { class: 'some' });
    this.outside = [svg('rect', { class: 'outside' }), svg('rect', { class: 'outside' })];
    const bars = svg('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    bars.append(this.all, this.some, ...this.outside);
    this.handles = [0, 1].map((side) => {
      const handle = make('div', { className: 'handle', role: 'slider', tabIndex: 0 });
      handle.addEventListener('keydown', (event) => this.key(event, side));
      return handle;
    });
    this.area = make('div', { className: 'histogram-area' }, bars, ...this.handles);
    this.ends = [make('span'), make('span')];
    host.append(this.area, make('div', { className: 'histogram-ends soft' }, ...this.ends));
    this.area.addEventListener('pointerdown', (event) => this.press(event));
  }

  // values: of the column, NaN where there are none; mask: which are shown by the other filters.
  show(values, mask, name) {
    const [low, high] = ([this.low, this.high] = Histogram.extent(values));
    const [all, some] = Histogram.counts(values, mask, [low, high], this.bins);
    const most = Math.max(...all, 1);
    const width = 100 / this.bins;
    // square roots, so that rare values are seen
    const draw = (counts) =>
      counts
        .map((n, i) => (n ? `M${i * width} 100V${100 - 100 * Math.sqrt(n / most)}H${(i + 0.9) * width}V100Z` : ''))
        .join('');
    this.all.setAttribute('d', draw(all));
    this.some.setAttribute('d', draw(some));
    this.ends.forEach((end, side) => (end.textContent = Page.number([low, high][side])));
    ['lowest', 'highest'].forEach((end, side) => this.handles[side].setAttribute('aria-label', `${end} ${name} shown`));
    this.area.title = `${name}: heights are square roots of counts`;
    this.place();
  }

  // Least and greatest value, apart; NaN is skipped.
  static extent(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  }

  // How many values are in each of `bins` equal parts of the range: of all, and of those in the mask.
  static counts(values, mask, [low, high], bins) {
    const all = new Array(bins).fill(0);
    const some = new Array(bins).fill(0);
    values.forEach((value, i) => {
      if (Number.isNaN(value)) return;
      // multiplied first: whole numbers on the edges of bins stay exact
      const bin = Math.min(Math.floor(((value - low) * bins) / (high - low)), bins - 1);
      all[bin]++;
      if (mask[i]) some[bin]++;
    });
    return [all, some];
  }

  set(range) {
    this.range = range;
    this.place();
  }

  place() {
    const range = this.range ?? [this.low, this.high];
    const places = range.map((value) =>
      Math.min(Math.max((100 * (value - this.low)) / (this.high - this.low), 0), 100),
    );
    this.handles.forEach((handle, side) => {
      handle.style.left = `${places[side]}%`;
      Page.set(handle, { 'aria-valuemin': this.low, 'aria-valuemax': this.high, 'aria-valuenow': range[side] });
      handle.setAttribute('aria-valuetext', Page.number(range[side]));
    });
    const edges = [
      [0, places[0]],
      [places[1], 100],
    ];
    this.outside.forEach((rect, side) => {
      const [start, end] = edges[side];
      for (const [name, value] of Object.entries({ x: start, y: 0, width: Math.max(end - start, 0), height: 100 })) {
        rect.setAttribute(name, value);
      }
    });
  }

  move(range) {
    const [low, high] = range.map((value) => Math.min(Math.max(value, this.low), this.high));
    this.range = low <= this.low && high >= this.high ? null : [Math.min(low, high), Math.max(low, high)];
    this.place();
    this.changed(this.range);
  }

  press(event) {
    const box = this.area.getBoundingClientRect();
    const value = (e) => this.low + ((e.clientX - box.left) / box.width) * (this.high - this.low);
    const range = this.range ?? [this.low, this.high];
    const distances = this.handles.map((handle) => {
      const rect = handle.getBoundingClientRect();
      return Math.abs((rect.left + rect.right) / 2 - event.clientX);
    });
    // a handle, if one is near; else a new range begins here
    const nearest = distances[0] < distances[1] ? 0 : 1;
    const fixed = distances[nearest] < 12 ? range[1 - nearest] : value(event);
    const drag = (e) => this.move([Math.min(fixed, value(e)), Math.max(fixed, value(e))]);
    const end = () => {
      this.area.removeEventListener('pointermove', drag);
      this.area.removeEventListener('pointerup', end);
      this.area.removeEventListener('pointercancel', end);
      if (this.range && this.range[0] === this.range[1]) this.move([this.low, this.high]); // a click, not a range
    };
    event.preventDefault();
    this.area.setPointerCapture(event.pointerId);
    this.area.addEventListener('pointermove', drag);
    this.area.addEventListener('pointerup', end);
    this.area.addEventListener('pointercancel', end);
    this.handles[nearest].focus();
  }

  key(event, side) {
    const step = (this.high - this.low) / 100;
    const range = [...(this.range ?? [this.low, this.high])];
    const moves = {
      ArrowLeft: -step,
      ArrowDown: -step,
      ArrowRight: step,
      ArrowUp: step,
      PageDown: -10 * step,
      PageUp: 10 * step,
    };
    if (event.key in moves) range[side] += moves[event.key];
    else if (event.key === 'Home') range[side] = this.low;
    else if (event.key === 'End') range[side] = this.high;
    else return;
    event.preventDefault();
    event.stopPropagation();
    range[side] = side ? Math.max(range[1], range[0]) : Math.min(range[0], range[1]);
    this.move(range);
  }
}

class Scatter {
  // canvas: where it is drawn; picked(row) is called with the row of a point that is clicked.
  constructor(canvas, picked) {
    this.canvas = canvas;
    this.points = [];
    canvas.addEventListener('click', (event) => {
      const box = canvas.getBoundingClientRect();
      const row = this.near(event.clientX - box.left, event.clientY - box.top);
      if (row >= 0) picked(row);
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  // rows: to draw; x and y: [name, values] of columns; current: a row to mark.
  show(rows, x, y, current) {
    [this.x, this.y, this.current] = [x, y, current];
    this.rows = rows.filter((row) => !Number.isNaN(x[1][row]) && !Number.isNaN(y[1][row]));
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !this.rows) return;
    const ratio = devicePixelRatio;
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const context = canvas.getContext('2d');
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const [ink, line, accent, mark] = ['--ink', '--line', '--accent', '--reject'].map((name) =>
      style.getPropertyValue(name),
    );
    context.font = `13px ${style.fontFamily}`;
    const [left, right, top, bottom] = [62, 14, 14, 44];
    const spans = [this.x[1], this.y[1]].map((values) => Histogram.extent(this.rows.map((row) => values[row])));
    const across = (value) => left + ((value - spans[0][0]) / (spans[0][1] - spans[0][0])) * (width - left - right);
    const up = (value) =>
      height - bottom - ((value - spans[1][0]) / (spans[1][1] - spans[1][0])) * (height - top - bottom);
    context.fillStyle = ink;
    context.strokeStyle = line;
    context.textAlign = 'center';
    for (const value of Scatter.ticks(...spans[0], width / 80)) {
      context.strokeRect(across(value), top, 0, height - top - bottom);
      context.fillText(String(value), across(value), height - bottom + 18);
    }
    context.fillText(this.x[0], (left + width - right) / 2, height - 6);
    context.textAlign = 'right';
    for (const value of Scatter.ticks(...spans[1], height / 60)) {
      context.strokeRect(left, up(value), width - left - right, 0);
      context.fillText(String(value), left - 6, up(value) + 4);
    }
    context.save();
    context.translate(13, (top + height - bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = 'center';
    context.fillText(this.y[0], 0, 0);
    context.restore();
    const size = this.rows.length > 5000 ? 2 : this.rows.length > 500 ? 4 : 7;
    context.fillStyle = accent;
    context.globalAlpha = this.rows.length > 500 ? 0.5 : 0.75;
    this.points = this.rows.map((row) => [across(this.x[1][row]), up(this.y[1][row])]);
    for (const [x, y] of this.points) context.fillRect(x - size / 2, y - size / 2, size, size);
    const place = this.rows.indexOf(this.current);
    if (place < 0) return;
    context.globalAlpha = 1;
    context.strokeStyle = mark;
    context.lineWidth = 2;
    context.strokeRect(this.points[place][0] - 6, this.points[place][1] - 6, 12, 12);
  }

  near(x, y) {
    let [best, least] = [-1, 20 ** 2];
    this.points.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [this.rows[i], distance];
    });
    return best;
  }

  // Round numbers between low and high, about `count` of them.
  static ticks(low, high, count) {
    const rough = (high - low) / Math.max(count, 2);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const ticks = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(Number((i * step).toPrecision(12)));
    return ticks;
  }

  // Spearman's rank correlation of the points, with mean ranks for ties.
  static correlation(rows, x, y) {
    const some = rows.filter((row) => !Number.isNaN(x[row]) && !Number.isNaN(y[row]));
    if (some.length < 3) return NaN;
    const [a, b] = [x, y].map((values) => {
      const order = some.map((row, i) => i).sort((i, j) => values[some[i]] - values[some[j]]);
      const ranks = new Float64Array(some.length);
      for (let i = 0; i < order.length;) {
        let j = i;
        while (j < order.length && values[some[order[j]]] === values[some[order[i]]]) j++;
        for (let k = i; k < j; k++) ranks[order[k]] = (i + j - 1) / 2;
        i = j;
      }
      return ranks;
    });
    const mean = (some.length - 1) / 2;
    let [ab, aa, bb] = [0, 0, 0];
    a.forEach((rank, i) => {
      ab += (rank - mean) * (b[i] - mean);
      aa += (rank - mean) ** 2;
      bb += (b[i] - mean) ** 2;
    });
    return ab / Math.sqrt(aa * bb);
  }
}
