// The findings and pictures that a page has in itself.
"use strict";

limner.EmbeddedSource = class {
  constructor(figure, place, { header, arrays }) {
    Object.assign(this, { place, labels: header.labels, columns: header.columns, count: header.listed });
    const first = figure.querySelector("img");
    const others = [...figure.querySelectorAll("script.slice")].map((one) => one.textContent);
    this.pictures = [first ? first.src : "", ...others];
    const parts = [...figure.querySelectorAll("script.part")];
    this.parts = new Map(parts.flatMap((one) => one.dataset.rows.split(" ").map((row) => [Number(row), one.textContent])));
    this.findings = new limner.Layer(this.count, arrays);
    this.counts = this.labels.map(() => 0);
    for (const code of this.findings.label) this.counts[code]++;
    this.query = { hidden: [], from: 0, to: 1, text: "", column: -1, down: false };
    const [some, all] = [this.count, header.count].map((value) => limner.grouped(String(value)));
    this.note = header.count > this.count ? `${some} of ${all} findings are in this page; all are in findings.csv.` : "";
  }

  picture(at) {
    return this.pictures[at] ? { type: "image", url: this.pictures[at] } : null;
  }

  /** All findings, of which those that are shown are visible. */
  async layer(view, row, changed) {
    this.filter();
    const drawn = this.drawn && !changed;
    this.drawn = true;
    return drawn ? null : this.findings;
  }

  async rows(start, count) {
    this.filter();
    return { total: this.sorted.length, rows: this.sorted.slice(start, start + count).map((row) => this.finding(row)) };
  }

  async words(start, count) {
    this.filter();
    const column = this.columns.findIndex((one) => one.name === "text");
    const said = column < 0 ? [] : this.sorted.filter((row) => this.value(column, row));
    return { total: said.length, rows: said.slice(start, start + count).map((row) => this.finding(row)) };
  }

  async step(row, by) {
    const at = this.sorted.indexOf(row);
    if (!by) return { ...this.finding(row), place: at };
    const { length } = this.sorted;
    if (!length) return null;
    const place = at < 0 ? (by > 0 ? 0 : length - 1) : (at + by + length) % length;
    return { ...this.finding(this.sorted[place]), place };
  }

  async at() {
    return -1; // all that is visible is drawn
  }

  finding(row) {
    const { number, label, plane, score, bounds } = this.findings;
    return {
      row,
      number: number[row],
      label: label[row],
      plane: plane[row],
      score: score[row],
      bounds: bounds.subarray(4 * row, 4 * row + 4),
      cells: this.columns.map((_, column) => this.value(column, row)),
    };
  }

  /** A number or text of a column, as it is; null where it is not known. */
  value(column, row) {
    const value = this.findings["column" + column][row];
    const { type, decimals, texts } = this.columns[column];
    if (type === "text") return texts[value] || null;
    if (decimals === null) return Number.isFinite(value) ? value : null;
    return value === -(2 ** 31) ? null : value / 10 ** decimals;
  }

  /** Find what the query leaves, and its order, where the query has changed. */
  filter() {
    const query = JSON.stringify(this.query);
    if (query === this.answered) return;
    this.answered = query;
    const { hidden, from, to, text } = this.query;
    const chosen = this.labels.map((_, code) => !hidden.includes(code));
    const hit = this.labels.map(({ label }) => !text || label.toLowerCase().includes(text));
    const searched = this.columns.flatMap(({ type, texts }, column) =>
      type === "text" ? [[column, texts.map((one) => one.toLowerCase().includes(text))]] : [],
    );
    const { label, number, score, visible } = this.findings;
    const matches = (row) =>
      hit[label[row]] ||
      String(number[row]) === text ||
      searched.some(([column, hits]) => hits[this.findings["column" + column][row]]);
    for (let row = 0; row < this.count; row++) {
      const scored = score[row] < 0 ? from <= 0 : score[row] >= from - 1e-6 && score[row] <= to + 1e-6;
      visible[row] = chosen[label[row]] && scored && (!text || matches(row)) ? 1 : 0;
    }
    this.sort();
  }

  sort() {
    const { column, down } = this.query;
    const { visible, label } = this.findings;
    const rows = [];
    for (let row = 0; row < this.count; row++) if (visible[row]) rows.push(row);
    const sign = down ? -1 : 1;
    if (column >= 0) {
      const isText = this.columns[column].type === "text";
      const values = rows.map((row) => this.value(column, row));
      const compare = isText ? (a, b) => (a < b ? -1 : a > b ? 1 : 0) : (a, b) => a - b;
      const places = rows.map((_, at) => at);
      places.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is not known comes last
        return sign * compare(x, y) || a - b;
      });
      this.sorted = places.map((at) => rows[at]);
    } else if (column === -2) {
      this.sorted = rows.sort((a, b) => sign * (label[a] - label[b]) || a - b);
    } else {
      this.sorted = down ? rows.reverse() : rows;
    }
  }

  /** Its part of the image, read from it or cut from the picture, and which. */
  thumbnail({ row, number, plane, bounds: [x0, y0, x1, y1] }) {
    const own = this.parts.get(row);
    const source = own || this.pictures[this.place.planes.indexOf(plane + 1)];
    if (!source) return "";
    const ends = [this.place.toPicture(x0, y0), this.place.toPicture(x1, y1)];
    const [left, top] = [0, 1].map((axis) => Math.min(ends[0][axis], ends[1][axis]));
    const [width, height] = [0, 1].map((axis) => Math.max(Math.abs(ends[1][axis] - ends[0][axis]), 1));
    const zoom = Math.min(480 / width, 320 / height);
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: Math.ceil(width * zoom), height: Math.ceil(height * zoom) });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Part of the image with finding ${number}`);
    const note = Object.assign(document.createElement("p"), { className: "note" });
    const picture = new Image();
    picture.addEventListener("load", () => {
      const [across, down] = own ? [picture.naturalWidth, picture.naturalHeight] : [width, height];
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = canvas.width < across;
      pen.drawImage(picture, own ? 0 : left, own ? 0 : top, across, down, 0, 0, canvas.width, canvas.height);
      const pixels = limner.plain(Math.max(x1 - x0, y1 - y0) / Math.max(across, down), 2);
      note.textContent = `${own ? "Read from the image" : "Cut from the picture above"}: 1 px for ${pixels} px of the image.`;
    });
    picture.src = source;
    const both = document.createDocumentFragment();
    both.append(canvas, note);
    return both;
  }
};

limner.ready = limner.start(async (figure, place) => {
  const data = await limner.readBlock(figure.querySelector("script.found").textContent);
  return new limner.EmbeddedSource(figure, place, data);
});
