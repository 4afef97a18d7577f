// The findings and pictures that a server has: it filters and sorts, and sends what is in view.
"use strict";

/** The answer of the server to a path below the page's own. */
limner.ask = async (path, words = {}, how = {}) => {
  const query = new URLSearchParams(Object.entries(words).filter(([, value]) => value !== "")).toString();
  let answer = null;
  try {
    answer = await fetch(query ? `${path}?${query}` : path, { credentials: "omit", redirect: "error", ...how });
  } catch (error) {
    if (error.name !== "AbortError") limner.say("The server has ended. Give the command limner view again, and open the address that it prints.");
    throw error;
  }
  return answer;
};

/** Tell the reader of the page something, at its head. */
limner.say = (text) => (document.getElementById("served").textContent = text);

limner.ServerSource = class {
  static PAUSE = 80; // ms without a movement after which findings in view are asked for
  static AROUND = 0.25; // of the view, on each side, which are asked for too
  static FINER = 1.5; // the factor of zooming after which other outlines are asked for

  static async open(figure, place) {
    const number = Number(figure.dataset.image);
    const about = await (await limner.ask(`image/${number}`)).json();
    return new limner.ServerSource(number, place, about);
  }

  constructor(number, place, about) {
    Object.assign(this, { number, place, about, window: 0 });
    Object.assign(this, { labels: about.labels, counts: about.counts, columns: about.columns, count: about.count });
    this.note = "";
    this.query = { hidden: [], from: 0, to: 1, text: "", column: -1, down: false, outcomes: "" };
    this.asked = 0;
    this.has = null; // the view whose findings are drawn, or asked for
  }

  /** The query as words of a request. */
  asWords() {
    const { hidden, from, to, text, column, down, outcomes } = this.query;
    return { hide: hidden.join(","), from, to, search: text, order: column, down: down ? 1 : "", outcomes };
  }

  async json(what, words) {
    const answer = await limner.ask(`image/${this.number}/${what}`, { ...this.asWords(), ...words });
    if (!answer.ok) throw new Error(`${what}: ${answer.status}`);
    return answer.json();
  }

  picture(at) {
    const [width, height] = this.place.picture;
    if (!this.about.pictured) return null;
    const plane = this.place.planes[at] - 1;
    const getTileUrl = (level, x, y) => `tile/${this.number}/${plane}/${this.window}/${level}/${x}/${y}`;
    return { width, height, tileSize: this.about.tile, tileOverlap: 0, minLevel: 0, maxLevel: this.about.level, getTileUrl };
  }

  covers({ box, step, plane }) {
    const has = this.has;
    if (!has || has.plane !== plane || Math.abs(Math.log(step / has.step)) > Math.log(limner.ServerSource.FINER)) return false;
    const { size } = this.place;
    const inside = [Math.max(box[0], 0), Math.max(box[1], 0), Math.min(box[2], size[0]), Math.min(box[3], size[1])];
    return has.box[0] <= inside[0] && has.box[1] <= inside[1] && has.box[2] >= inside[2] && has.box[3] >= inside[3];
  }

  async layer(view, row, changed) {
    if (!changed && this.covers(view)) return null;
    const asked = ++this.asked;
    if (!changed && this.has && this.has.plane === view.plane) {
      await new Promise((resolve) => setTimeout(resolve, limner.ServerSource.PAUSE));
      if (asked !== this.asked) return null;
    }
    if (this.fetching) this.fetching.abort();
    this.fetching = new AbortController();
    const [x0, y0, x1, y1] = view.box;
    const [dx, dy] = [(x1 - x0) * limner.ServerSource.AROUND, (y1 - y0) * limner.ServerSource.AROUND];
    const box = [x0 - dx, y0 - dy, x1 + dx, y1 + dy];
    const words = { ...this.asWords(), box: box.join(","), step: view.step, plane: view.plane, extra: row };
    this.has = { box, step: view.step, plane: view.plane };
    try {
      const answer = await limner.ask(`image/${this.number}/view`, words, { signal: this.fetching.signal });
      const { header, arrays } = limner.unpack(await answer.arrayBuffer());
      if (asked !== this.asked) return null;
      arrays.number = arrays.row.map((one) => one + 1);
      arrays.plane = new Int32Array(header.listed).fill(view.plane);
      return Object.assign(new limner.Layer(header.listed, arrays), { inView: header.count });
    } catch (error) {
      if (error.name === "AbortError") return null;
      this.has = null;
      throw error;
    }
  }

  /** A finding as the page takes it. */
  finding(one) {
    return { ...one, number: one.row + 1 };
  }

  async rows(start, count, words = "") {
    const { total, rows } = await this.json("rows", { start, count, words });
    return { total, rows: rows.map(this.finding) };
  }

  words(start, count) {
    return this.rows(start, count, 1);
  }

  async step(row, by) {
    const found = await this.json("step", { row, by });
    return found.row === undefined ? null : this.finding(found);
  }

  async at([x, y], near, plane) {
    return (await this.json("at", { at: `${x},${y},${near}`, plane })).row;
  }

  thumbnail({ number, plane, bounds: [x0, y0, x1, y1] }) {
    if (!this.about.pictured) return "";
    const ends = [this.place.toPicture(x0, y0), this.place.toPicture(x1, y1)];
    const low = [0, 1].map((axis) => Math.floor(Math.min(ends[0][axis], ends[1][axis])));
    const high = [0, 1].map((axis) => Math.ceil(Math.max(ends[0][axis], ends[1][axis])));
    const picture = document.createElement("img");
    picture.loading = "lazy";
    picture.alt = `Part of the picture with finding ${number}`;
    picture.src = `part/${this.number}/${plane}/${this.window}?box=${[...low, ...high].join(",")}`;
    return picture;
  }
};
