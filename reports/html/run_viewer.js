// The picture of an image with its findings: OpenSeadragon shows the pixels, a canvas above them the findings.
"use strict";

/** How an image lies: between level-0 pixels, the picture's, the map, and longitude and latitude. */
limner.Place = class {
  constructor({ header, arrays }) {
    Object.assign(this, header);
    this.lengths = arrays.lengths;
    this.directions = arrays.directions;
    const [a, b, , d, e] = this.affine;
    this.determinant = a * e - b * d;
  }

  toPicture(x, y) {
    const [a, b, c, d, e, f] = this.affine;
    return [a * x + b * y + c, d * x + e * y + f];
  }

  toLevel0(px, py) {
    const [a, b, c, d, e, f] = this.affine;
    const [u, v] = [px - c, py - f];
    return [(e * u - b * v) / this.determinant, (a * v - d * u) / this.determinant];
  }

  /** Coordinates in the image's reference system; null where it has none. */
  toWorld(x, y) {
    if (!this.world) return null;
    const { matrix, warp } = this.world;
    if (!warp) return matrix.map(([a, b, c]) => a * x + b * y + c);
    const [u, v] = [(x - warp.centre[0]) / warp.scale, (y - warp.centre[1]) / warp.scale];
    const sum = (factors) => warp.terms.reduce((total, [p, q], i) => total + factors[i] * u ** p * v ** q, 0);
    return [sum(warp.x), sum(warp.y)];
  }

  /** Longitude and latitude in degrees, by cubics through the nodes of the grid; null where they are not known. */
  toLonLat(x, y) {
    if (!this.directions) return null;
    const count = Math.round(Math.sqrt(this.directions.length / 3));
    const [column, across] = limner.cubic(x / this.size[0], count);
    const [row, down] = limner.cubic(y / this.size[1], count);
    const sum = [0, 0, 0];
    for (let i = 0; i < 4; i++) {
      for (let j = 0; j < 4; j++) {
        for (let k = 0; k < 3; k++) {
          sum[k] += down[i] * across[j] * this.directions[3 * ((row + i) * count + column + j) + k];
        }
      }
    }
    if (!sum.every(Number.isFinite)) return null;
    const degrees = 180 / Math.PI;
    return [Math.atan2(sum[1], sum[0]) * degrees, Math.atan2(sum[2], Math.hypot(sum[0], sum[1])) * degrees];
  }

  /** Metres per pixel of the picture along its x, at a level-0 point; NaN where they are not known. */
  metresAcross(x, y) {
    if (!this.lengths) return NaN;
    const count = Math.round(Math.sqrt(this.lengths.length / 2));
    const [a, b] = this.affine;
    const axis = Math.abs(a) >= Math.abs(b) ? 0 : 1;
    const at = [x / this.size[0], y / this.size[1]].map((share) => Math.min(Math.max(share, 0), 1) * (count - 1));
    const [i, j] = at.map((value) => Math.min(Math.floor(value), count - 2));
    const [s, t] = [at[0] - i, at[1] - j];
    const node = (row, column) => this.lengths[2 * (row * count + column) + axis];
    const top = node(j, i) * (1 - s) + node(j, i + 1) * s;
    const low = node(j + 1, i) * (1 - s) + node(j + 1, i + 1) * s;
    return (top * (1 - t) + low * t) / Math.abs(axis ? b : a);
  }

  /** A point in words. */
  describe(x, y) {
    const parts = [`x ${limner.grouped(x.toFixed(1))}, y ${limner.grouped(y.toFixed(1))} px`];
    const world = this.toWorld(x, y);
    if (world) {
      const unit = { m: " m", deg: "°", um: " µm", mm: " mm" }[this.world.unit] || "";
      const text = world.map((value) => value.toFixed(this.world.unit === "deg" ? 7 : 2)).join(", ");
      parts.push(`${this.world.crs || "map"}: ${text}${unit}`);
    } else if (this.kind === "slide" && this.lengths) {
      parts.push(`${[x * this.lengths[0], y * this.lengths[1]].map((m) => limner.grouped((m * 1e6).toFixed(1))).join(", ")} µm`);
    }
    const degrees = this.toLonLat(x, y);
    if (degrees) parts.push(`longitude, latitude: ${degrees.map((value) => value.toFixed(7)).join(", ")}°`);
    return parts.join("  ·  ");
  }
};

/** The first of four nodes around a share of a grid's side, and their weights. */
limner.cubic = (share, count) => {
  const position = Math.min(Math.max(share, 0), 1) * (count - 1);
  const first = Math.min(Math.max(Math.floor(position) - 1, 0), count - 4);
  const [a, b, c, d] = [0, 1, 2, 3].map((node) => position - first - node);
  return [first, [(-b * c * d) / 6, (a * c * d) / 2, (-a * b * d) / 2, (a * b * c) / 6]];
};

limner.Viewer = class {
  static FAST = 20; // ms: a drawing that takes longer is moved as a whole while the picture moves
  static SMALL = 3; // px: what is smaller on the screen is drawn as a dot
  static CLOSEST = 16; // screen pixels per pixel of the picture
  static NUMBERED = 40; // findings in view that get their number
  static OUTCOMES = [
    { dash: [], alpha: 1, fill: true }, // not reviewed
    { dash: [], alpha: 1, fill: true }, // accepted
    { dash: [3, 4], alpha: 0.6, fill: false }, // rejected
    { dash: [8, 3], alpha: 1, fill: true }, // relabelled
  ]; // how outlines are drawn, by the code of a reviewer's outcome

  constructor(element, handlers) {
    this.handlers = handlers;
    this.filled = true;
    this.layer = new limner.Layer(0, {});
    this.labels = [];
    this.selected = null; // a finding: its row, plane and bounds
    this.hovered = -1; // a row
    this.taken = new Set("rRfF"); // keys that OpenSeadragon would turn or mirror the picture with
    this.osd = OpenSeadragon({
      element,
      showNavigationControl: false,
      drawer: "canvas",
      animationTime: 0.4,
      maxZoomPixelRatio: limner.Viewer.CLOSEST,
      minZoomImageRatio: 0.5,
      visibilityRatio: 0.3,
      imageSmoothingEnabled: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
      keyboardNavEnabled: true,
    });
    const { canvas } = this.osd;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Picture with findings. Arrows move, plus and minus zoom, n and p lead to findings.");
    this.outlines = canvas.appendChild(document.createElement("canvas"));
    this.marks = canvas.appendChild(document.createElement("canvas"));
    for (const one of [this.outlines, this.marks]) one.className = "layer";
    this.osd.addHandler("open", () => this.draw());
    this.osd.addHandler("update-viewport", () => this.moved());
    this.osd.addHandler("resize", () => this.draw());
    this.osd.addHandler("canvas-click", (event) => {
      if (event.quick && this.view() && !this.handlers.click(this.toLevel0(event.position))) this.choose(event.position);
    });
    this.osd.addHandler("canvas-key", (event) => this.key(event));
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => {
      this.hovered = -1;
      this.pointer = null;
      this.report();
      this.mark();
    });
  }

  /** Show a plane of an image: `picture` is a source of tiles of OpenSeadragon, or null where there is none. */
  show(place, plane, picture) {
    this.osd.preserveViewport = this.place === place;
    Object.assign(this, { place, plane, selected: null, hovered: -1, drawn: null });
    this.osd.open(picture || limner.emptySource(...place.picture));
  }

  /** Screen pixels per picture pixel, and the screen position of the picture's corner. */
  view() {
    const item = this.osd.world.getItemAt(0);
    if (!item) return null;
    const corner = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0), true);
    const far = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(...this.place.picture), true);
    return { zoom: (far.x - corner.x) / this.place.picture[0], x: corner.x, y: corner.y };
  }

  /** What of the image is on the screen: its box in level-0 pixels, and level-0 pixels per screen pixel; or null. */
  extent() {
    const view = this.view();
    if (!view) return null;
    const size = this.osd.viewport.getContainerSize();
    const corners = [[0, 0], [size.x, 0], [0, size.y], [size.x, size.y]].map(([x, y]) => this.toLevel0({ x, y }));
    const [xs, ys] = [0, 1].map((axis) => corners.map((corner) => corner[axis]));
    const step = 1 / view.zoom / Math.sqrt(Math.abs(this.place.determinant));
    return { box: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)], step };
  }

  toLevel0(point) {
    const { zoom, x, y } = this.view();
    return this.place.toLevel0((point.x - x) / zoom, (point.y - y) / zoom);
  }

  /** Level-0 pixels of three screen pixels. */
  near(view) {
    return 3 / view.zoom / Math.sqrt(Math.abs(this.place.determinant));
  }

  /** The row of the smallest visible finding at a screen point, with three pixels around small ones; -1 for none. */
  at(point) {
    const view = this.view();
    if (!view) return -1;
    const [x, y] = this.toLevel0(point);
    const near = this.near(view);
    const { bounds, size, count, plane, visible, row } = this.layer;
    let best = -1;
    for (let i = 0; i < count; i++) {
      const b = 4 * i;
      if (!visible[i] || plane[i] !== this.plane) continue;
      if (x < bounds[b] - near || x > bounds[b + 2] + near || y < bounds[b + 1] - near || y > bounds[b + 3] + near) continue;
      const small = bounds[b + 2] - bounds[b] < 2 * near || bounds[b + 3] - bounds[b + 1] < 2 * near;
      if ((best < 0 || size[i] <= size[best]) && (small || this.layer.contains(i, x, y))) best = i;
    }
    return best < 0 ? -1 : row[best];
  }

  /** Number and label of a row that is drawn. */
  nameOf(row) {
    const at = this.layer.find(row);
    return at < 0 ? "" : `${this.layer.number[at]}: ${this.labels[this.layer.label[at]].label}`;
  }

  choose(point) {
    const view = this.view();
    if (view) this.handlers.choose(this.at(point), this.toLevel0(point), this.near(view));
  }

  hover(event) {
    const box = this.osd.canvas.getBoundingClientRect();
    this.pointer = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    if (!this.view()) return;
    const found = event.buttons ? -1 : this.at(this.pointer);
    this.report();
    if (found !== this.hovered) {
      this.hovered = found;
      this.mark();
      this.handlers.hover(found);
    }
  }

  key(event) {
    const { key } = event.originalEvent;
    if (this.taken.has(key)) event.preventDefaultAction = true;
    if (key === "n" || key === "p") this.handlers.step(key === "n" ? 1 : -1);
    if (key === "Enter") this.choose(this.osd.viewport.getContainerSize().divide(2));
  }

  /** Tell where the pointer is, or the middle of the view. */
  report() {
    const view = this.view();
    if (!view) return;
    const middle = this.osd.viewport.getContainerSize().divide(2);
    const [x, y] = this.toLevel0(this.pointer || middle);
    const { size } = this.place;
    const inside = x >= 0 && y >= 0 && x <= size[0] && y <= size[1];
    const name = this.pointer ? "" : "Middle of the view: ";
    this.handlers.position(inside ? name + this.place.describe(x, y) : "");
    const [cx, cy] = this.toLevel0(middle);
    this.handlers.scale(this.place.metresAcross(cx, cy) / view.zoom);
  }

  moved() {
    const view = this.view();
    if (!view) return;
    const same = this.drawn && ["zoom", "x", "y"].every((name) => Math.abs(view[name] - this.drawn[name]) < 1e-6);
    if (same) return;
    if (!(this.cost > limner.Viewer.FAST) || !this.drawn) {
      this.draw();
      return;
    }
    const factor = view.zoom / this.drawn.zoom;
    const [left, top] = [view.x - factor * this.drawn.x, view.y - factor * this.drawn.y];
    this.outlines.style.transform = `translate(${left}px, ${top}px) scale(${factor})`;
    this.mark();
    this.report();
    clearTimeout(this.later);
    this.later = setTimeout(() => this.draw(), 120);
  }

  /** A cleared canvas in screen pixels. */
  cleared(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.style.transform = "";
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return { pen, width, height };
  }

  /** The function from level-0 pixels to the screen. */
  projection(view) {
    const [a, b, c, d, e, f] = this.place.affine.map((value) => value * view.zoom);
    return { a, b, c: c + view.x, d, e, f: f + view.y };
  }

  trace(pen, row, { a, b, c, d, e, f }) {
    const { xy, rings, first } = this.layer.shapes;
    for (let ring = first[row]; ring < first[row + 1]; ring++) {
      const end = rings[ring + 1];
      for (let i = rings[ring]; i < end; i += 2) {
        const x = a * xy[i] + b * xy[i + 1] + c;
        const y = d * xy[i] + e * xy[i + 1] + f;
        if (i === rings[ring]) pen.moveTo(x, y);
        else pen.lineTo(x, y);
      }
      pen.closePath();
    }
  }

  /** A box in level-0 pixels on the screen: x0, y0, x1, y1. */
  box([x0, y0, x1, y1], { a, b, c, d, e, f }) {
    const [u0, v0] = [a * x0 + b * y0 + c, d * x0 + e * y0 + f];
    const [u1, v1] = [a * x1 + b * y1 + c, d * x1 + e * y1 + f];
    return [Math.min(u0, u1), Math.min(v0, v1), Math.max(u0, u1), Math.max(v0, v1)];
  }

  draw() {
    const view = this.view();
    if (!view) return;
    const started = performance.now();
    const { pen, width, height } = this.cleared(this.outlines);
    const to = this.projection(view);
    const { bounds, label, plane, area, bySize, visible, outcome } = this.layer;
    const { labels } = this;
    const dots = labels.map(() => []);
    const named = [];
    const [across, down] = [Math.abs(to.a) + Math.abs(to.d), Math.abs(to.b) + Math.abs(to.e)];
    let [current, isArea, decided, open, inView] = [-1, 0, 0, 0, 0];
    const flush = () => {
      if (!open) return;
      const { dash, alpha, fill } = limner.Viewer.OUTCOMES[decided];
      pen.setLineDash(dash);
      if (this.filled && isArea && fill) {
        pen.globalAlpha = 0.3;
        pen.fill("evenodd");
      }
      pen.globalAlpha = alpha;
      pen.stroke();
      pen.globalAlpha = 1;
      pen.setLineDash([]);
      open = 0;
    };
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    for (const i of bySize) {
      if (!visible[i] || plane[i] !== this.plane) continue;
      const q = 4 * i;
      const x0 = to.a * bounds[q] + to.b * bounds[q + 1] + to.c;
      const y0 = to.d * bounds[q] + to.e * bounds[q + 1] + to.f;
      const x1 = to.a * bounds[q + 2] + to.b * bounds[q + 3] + to.c;
      const y1 = to.d * bounds[q + 2] + to.e * bounds[q + 3] + to.f;
      if (Math.max(x0, x1) < 0 || Math.max(y0, y1) < 0 || Math.min(x0, x1) > width || Math.min(y0, y1) > height) continue;
      inView++;
      if (Math.max((bounds[q + 2] - bounds[q]) * across, (bounds[q + 3] - bounds[q + 1]) * down) < limner.Viewer.SMALL) {
        dots[label[i]].push((x0 + x1) / 2, (y0 + y1) / 2);
        continue;
      }
      if (named.length <= limner.Viewer.NUMBERED) named.push(i);
      if (label[i] !== current || open >= 200 || area[i] !== isArea || outcome[i] !== decided || (this.filled && isArea)) {
        flush();
        current = label[i];
        isArea = area[i];
        decided = outcome[i];
        pen.strokeStyle = pen.fillStyle = labels[current].colour;
        pen.beginPath();
      }
      this.trace(pen, i, to);
      open++;
    }
    flush();
    for (let i = 0; i < this.layer.dot_label.length; i++) {
      const [x, y] = [this.layer.dots[2 * i], this.layer.dots[2 * i + 1]];
      dots[this.layer.dot_label[i]].push(to.a * x + to.b * y + to.c, to.d * x + to.e * y + to.f);
    }
    dots.forEach((points, code) => {
      pen.fillStyle = labels[code].colour;
      for (let i = 0; i < points.length; i += 2) pen.fillRect(points[i] - 1, points[i + 1] - 1, 2, 2);
    });
    if (inView <= limner.Viewer.NUMBERED) this.numbers(pen, named, to, width);
    this.inView = this.layer.inView ?? inView;
    this.drawn = view;
    this.cost = performance.now() - started;
    this.mark();
    this.report();
    this.handlers.viewed();
  }

  /** Where the number of a finding stands: above the highest of its vertices that is in view. */
  top(row, { a, b, c, d, e, f }, width) {
    const { xy, rings, first } = this.layer.shapes;
    let [left, top] = [0, Infinity];
    for (let i = rings[first[row]]; i < rings[first[row + 1]]; i += 2) {
      const x = a * xy[i] + b * xy[i + 1] + c;
      const y = d * xy[i] + e * xy[i + 1] + f;
      if (x < 0 || x > width - 30 || y < 0) continue;
      if (y < top - 0.5 || (y < top + 0.5 && x < left)) [left, top] = [x, y];
    }
    return [left, Math.max(15, top - 1)];
  }

  /** The view as one canvas with its scale bar, for paper, whose width may differ from the screen's. */
  printed(bar) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: this.outlines.width, height: this.outlines.height, className: "printed" });
    const pen = canvas.getContext("2d");
    for (const one of [this.osd.drawer.canvas, this.outlines, this.marks]) pen.drawImage(one, 0, 0, canvas.width, canvas.height);
    if (!bar) return canvas;
    const ratio = window.devicePixelRatio || 1;
    pen.scale(ratio, ratio);
    const bottom = canvas.height / ratio - 14;
    pen.fillStyle = "rgba(0, 0, 0, .65)";
    pen.fillRect(10, bottom - 32, bar.pixels + 20, 40);
    pen.strokeStyle = pen.fillStyle = "#fff";
    pen.lineWidth = 2;
    pen.strokeRect(20, bottom - 4, bar.pixels, 4);
    pen.font = "14px system-ui, sans-serif";
    pen.fillText(bar.text, 20, bottom - 10);
    return canvas;
  }

  numbers(pen, rows, to, width) {
    pen.font = "600 13px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    pen.lineWidth = 3;
    for (const i of rows) {
      const [x, y] = this.top(i, to, width);
      pen.strokeStyle = "#000";
      pen.fillStyle = "#fff";
      if (y === Infinity) continue;
      pen.strokeText(this.layer.number[i], x, y);
      pen.fillText(this.layer.number[i], x, y);
    }
  }

  /** Draw what is selected, and what the pointer is over. */
  mark() {
    const view = this.view();
    if (!view) return;
    const { pen } = this.cleared(this.marks);
    const to = this.projection(view);
    const one = this.selected;
    for (const [row, thick, known] of [[this.hovered, 2, null], [one ? one.row : -1, 3, one]]) {
      const at = row < 0 ? -1 : this.layer.find(row);
      const drawn = at >= 0 && this.layer.plane[at] === this.plane;
      if (!drawn && !(known && known.plane === this.plane)) continue;
      const [x0, y0, x1, y1] = this.box(known ? known.bounds : this.layer.bounds.subarray(4 * at, 4 * at + 4), to);
      pen.beginPath();
      if (drawn) this.trace(pen, at, to);
      if (Math.max(x1 - x0, y1 - y0) < 24) pen.ellipse((x0 + x1) / 2, (y0 + y1) / 2, 16, 16, 0, 0, 7);
      const { colour } = this.labels[known ? known.label : this.layer.label[at]] || { colour: "#fff" };
      for (const [width, shade] of [[thick + 4, "#000"], [thick + 2, "#fff"], [thick - 1, colour]]) {
        pen.lineWidth = width;
        pen.strokeStyle = shade;
        pen.stroke();
      }
    }
    this.handlers.marked(pen, to);
  }

  /** Bring a finding into the middle, with room around it. */
  goTo({ bounds: [x0, y0, x1, y1] }) {
    const item = this.osd.world.getItemAt(0);
    if (!item) return;
    const corners = [this.place.toPicture(x0, y0), this.place.toPicture(x1, y1)];
    const [left, top] = [0, 1].map((axis) => Math.min(corners[0][axis], corners[1][axis]));
    const [width, height] = [0, 1].map((axis) => Math.abs(corners[1][axis] - corners[0][axis]));
    const nearest = this.osd.viewport.getContainerSize().x / limner.Viewer.CLOSEST;
    const side = Math.max(width * 3, height * 3, Math.max(...this.place.picture) / 8, nearest);
    const box = new OpenSeadragon.Rect(left + width / 2 - side / 2, top + height / 2 - side / 2, side, side);
    this.osd.viewport.fitBounds(item.imageToViewportRectangle(box));
  }
};

/** A picture of one blank tile, for an image whose pixels cannot be shown. */
limner.emptySource = (width, height) => ({
  width,
  height,
  tileSize: Math.max(width, height),
  minLevel: 0,
  maxLevel: 0,
  getTileUrl: () => "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
});
