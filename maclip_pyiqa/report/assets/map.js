'use strict';
// Quality maps, drawn from the values of an image's windows, as maclip_pyiqa.Analysis.quality_map computes them:
// overlapping windows fade into each other by raised cosines.
//
// `windows` is what maclip_pyiqa.report.pictures.window_values gives: size [height, width], rows and columns as
// [start, end] in pixels of the image, values by name in 1/10000, row by row.

const QualityMap = (() => {
  const FLOOR = 1e-3; // of a window's weight at its rim, as in analysis.py
  // viridis at ten places: even steps of lightness, so colour-blind people can read it
  const COLOURS = [
    [68, 1, 84],
    [72, 40, 120],
    [62, 74, 137],
    [49, 104, 142],
    [38, 130, 142],
    [31, 158, 137],
    [53, 183, 121],
    [110, 206, 88],
    [181, 222, 43],
    [253, 231, 37],
  ];

  // The colour of a number from 0 (low) to 1 (high), [red, green, blue].
  function colour(t) {
    const place = Math.min(Math.max(t, 0), 1) * (COLOURS.length - 1);
    const first = Math.min(Math.floor(place), COLOURS.length - 2);
    return COLOURS[first].map((c, i) => Math.round(c + (place - first) * (COLOURS[first + 1][i] - c)));
  }

  // Weight of each span on each of `count` pixels, the whole of `length`; [span][pixel], summing to 1 over the spans.
  function weights(spans, length, count) {
    const rise = (edge, [start, end]) => {
      const t = Math.min(Math.max((edge - start) / (end - start), 0), 1);
      return FLOOR * t + (1 - FLOOR) * (t - Math.sin(2 * Math.PI * t) / (2 * Math.PI));
    };
    const all = spans.map((span) =>
      Float64Array.from(
        { length: count },
        (_, i) => rise(((i + 1) * length) / count, span) - rise((i * length) / count, span),
      ),
    );
    const sums = Array.from({ length: count }, (_, i) => all.reduce((sum, row) => sum + row[i], 0));
    // pixels in no window take the value of the nearest one that is
    const seen = sums.map((sum, i) => (sum > 0 ? i : -1)).filter((i) => i >= 0);
    const nearest = sums.map((sum, i) => {
      if (sum > 0) return i;
      return seen.reduce((best, j) => (Math.abs(j - i) < Math.abs(best - i) ? j : best));
    });
    return all.map((row) => nearest.map((i) => row[i] / sums[i]));
  }

  // The map in `width` x `height` points, row by row.
  function values(windows, name, width, height) {
    const [rows, columns] = [
      weights(windows.rows, windows.size[0], height),
      weights(windows.columns, windows.size[1], width),
    ];
    const grid = windows.values[name];
    const map = new Float64Array(width * height);
    columns.forEach((column, c) => {
      for (let y = 0; y < height; y++) {
        let value = 0;
        rows.forEach((row, r) => (value += row[y] * grid[r * columns.length + c]));
        for (let x = 0; x < width; x++) map[y * width + x] += (value * column[x]) / 10000;
      }
    });
    return map;
  }

  // Least and greatest value of the windows; of several images' windows, for maps to be compared.
  function range(name, ...all) {
    const found = all.flatMap((windows) => windows.values[name]);
    const [low, high] = [Math.min(...found) / 10000, Math.max(...found) / 10000];
    return high - low > 0.01 ? [low, high] : [(low + high) / 2 - 0.005, (low + high) / 2 + 0.005];
  }

  // Draws a map over the whole of a canvas, whose size on the page is up to CSS. Colours span `range`.
  function draw(canvas, windows, name, [low, high] = range(name, windows)) {
    const scale = 160 / Math.max(...windows.size);
    [canvas.height, canvas.width] = windows.size.map((side) => Math.max(Math.round(side * scale), 1));
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(canvas.width, canvas.height);
    values(windows, name, canvas.width, canvas.height).forEach((value, i) => {
      pixels.data.set([...colour((value - low) / (high - low)), 255], 4 * i);
    });
    context.putImageData(pixels, 0, 0);
    return [low, high];
  }

  // Draws the colours from low (left) to high (right) over a canvas.
  function legend(canvas) {
    [canvas.width, canvas.height] = [128, 1];
    const context = canvas.getContext('2d');
    for (let x = 0; x < 128; x++) {
      context.fillStyle = `rgb(${colour(x / 127).join(' ')})`;
      context.fillRect(x, 0, 1, 1);
    }
  }

  return { colour, draw, legend, range, values };
})();

// Which map is drawn, how strong it is, and what its colours mean: the elements of map.html.
class MapControls {
  // title(name): title of a map; none: whether no map can be chosen too.
  constructor({ title, none }) {
    this.title = title;
    this.none = none;
    this.maps = [];
    Page.byId('map-of').addEventListener('change', () => this.draw());
    Page.byId('map-strength').addEventListener('input', () => this.draw());
    QualityMap.legend(Page.byId('map-colours'));
  }

  // maps: [canvas, windows] of each image, null for windows that are not known. All are drawn on one scale of colours.
  show(maps) {
    this.maps = maps;
    const known = maps.map(([, windows]) => windows).find(Boolean);
    Page.byId('map-controls').hidden = !known;
    if (known) {
      const pairs = Object.keys(known.values).map((name) => [name, this.title(name)]);
      const select = Page.byId('map-of');
      Page.options(select, this.none ? [['', 'none'], ...pairs] : pairs, select.value);
    }
    this.draw();
  }

  draw() {
    const name = Page.byId('map-of').value;
    const strength = Page.byId('map-strength');
    const known = name ? this.maps.filter(([, windows]) => windows) : [];
    for (const [canvas] of this.maps) canvas.hidden = true;
    strength.setAttribute('aria-valuetext', `${Math.round(100 * strength.value)} %`);
    Page.byId('map-legend').hidden = strength.disabled = !known.length;
    if (!known.length) return;
    const range = QualityMap.range(name, ...known.map(([, windows]) => windows));
    const [low, high] = range.map(Page.number);
    for (const [canvas, windows] of known) {
      canvas.hidden = false;
      canvas.style.opacity = strength.value;
      canvas.setAttribute('aria-label', `quality map of ${this.title(name)}, colours from ${low} to ${high}`);
      QualityMap.draw(canvas, windows, name, range);
    }
    [Page.byId('map-low').textContent, Page.byId('map-high').textContent] = [low, high];
  }
}
