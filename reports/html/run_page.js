// What happens on the page of a run: images, layers, filters, tables and the model's words.
"use strict";

limner.start = () => {
  const ROWS = 100;
  const CARDS = 12;
  const of = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const isolated = (text) => make("bdi", { textContent: text });
  const swatch = (colour) => {
    const name = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(name, "svg");
    const box = svg.appendChild(document.createElementNS(name, "rect"));
    const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
    set(svg, { viewBox: "0 0 14 14", width: 14, height: 14, class: "swatch", "aria-hidden": "true" });
    set(box, { x: 1, y: 1, width: 12, height: 12, rx: 2, fill: colour, stroke: "#000" });
    return svg;
  };
  const state = { rows: [], order: { column: -1, down: false }, page: 0, cards: 0, wordRows: [] };
  let found = null;
  let place = null;

  of("viewer").hidden = false; // OpenSeadragon needs the size of what it fills
  const viewer = new limner.Viewer(of("canvas"), {
    choose: (row) => select(row, { move: false }),
    hover: (row) => (of("canvas").title = row < 0 ? "" : `${found.number[row]}: ${found.labels[found.label[row]].label}`),
    step: (by) => step(by),
    position: (text) => (of("position").textContent = text),
    scale: (metres) => scale(metres),
  });

  // The scale bar: 1, 2 or 5 · 10ⁿ, at most 160 screen pixels.
  const scale = (metres) => {
    of("scale").hidden = !(metres > 0);
    state.bar = null;
    if (!(metres > 0)) return;
    const power = 10 ** Math.floor(Math.log10(metres * 160));
    const length = [5, 2, 1].map((factor) => factor * power).find((one) => one <= metres * 160) || power;
    of("scale-bar").style.width = `${length / metres}px`;
    of("scale-text").textContent = limner.length(length, place.kind);
    state.bar = { pixels: length / metres, text: limner.length(length, place.kind) };
  };

  const figures = [...document.querySelectorAll("figure[data-image]")];
  const sources = (figure) => {
    const first = figure.querySelector("img");
    return [first ? first.src : "", ...[...figure.querySelectorAll("script.slice")].map((one) => one.textContent)];
  };

  const open = async (figure) => {
    for (const one of figures) one.toggleAttribute("aria-current", false);
    figure.setAttribute("aria-current", "true");
    const [placed, data] = await Promise.all(
      ["place", "found"].map((name) => limner.readBlock(figure.querySelector(`script.${name}`).textContent)),
    );
    place = new limner.Place(placed);
    found = new limner.Findings(data);
    state.pictures = sources(figure);
    const parts = [...figure.querySelectorAll("script.part")];
    state.parts = new Map(parts.flatMap((one) => one.dataset.rows.split(" ").map((row) => [Number(row), one.textContent])));
    of("about-viewer").textContent = place.name;
    of("about-viewer").dir = "auto";
    of("accuracy").textContent = [
      place.accuracy && `Longitude and latitude follow the image's own placement to within ${place.accuracy}; whether that is right is not known.`,
      place.window,
      place.unscaled && "No scale: the pixel size is not known.",
    ].filter(Boolean).join(" ");
    of("north").toggleAttribute("hidden", place.north === null);
    of("north").firstElementChild.setAttribute("transform", `rotate(${place.north || 0})`);
    slices();
    layers();
    Object.assign(state, { order: { column: -1, down: false }, page: 0, cards: 0 });
    headings();
    of("search").value = "";
    of("score-from").value = 0;
    of("score-to").value = 1;
    of("findings").hidden = !found.count;
    of("findings-note").textContent =
      found.total > found.count
        ? `${limner.grouped(String(found.count))} of ${limner.grouped(String(found.total))} findings are in this page; all are in findings.csv.`
        : "";
    state.visible = new Uint8Array(found.count).fill(1);
    display(place.start);
    filter();
    of("selected").replaceChildren();
  };

  // Slices of a stack.
  const slices = () => {
    of("slices").hidden = place.plane_count < 2;
    of("slice").replaceChildren(
      ...place.planes.map((plane, at) => make("option", { value: at, textContent: `${plane} of ${place.plane_count}` })),
    );
  };
  const display = (at) => {
    state.at = at;
    of("slice").value = at;
    of("slice-before").disabled = at === 0;
    of("slice-after").disabled = at === place.planes.length - 1;
    const sides = place.sides[at] || ["", "", "", ""];
    ["left", "right", "top", "bottom"].forEach((side, i) => (of(`side-${side}`).textContent = sides[i]));
    viewer.show(place, found, place.planes[at] - 1, state.pictures[at] || "", state.visible);
  };
  of("slice").addEventListener("change", (event) => display(Number(event.target.value)));
  of("slice-before").addEventListener("click", () => display(state.at - 1));
  of("slice-after").addEventListener("click", () => display(state.at + 1));

  // Layers and filters.
  const layers = () => {
    const counts = new Uint32Array(found.labels.length);
    for (const code of found.label) counts[code]++;
    of("layers").replaceChildren(
      ...found.labels.map(({ label, colour }, code) => {
        const box = make("input", { type: "checkbox", checked: true, value: code });
        const count = make("span", { className: "count", textContent: limner.grouped(String(counts[code])) });
        return make("li", {}, make("label", {}, box, swatch(colour), isolated(label || "(no label)"), count));
      }),
    );
  };
  const filter = () => {
    const chosen = [...of("layers").querySelectorAll("input")].map((box) => box.checked);
    const from = Number(of("score-from").value || 0);
    const to = of("score-to").value === "" ? 1 : Number(of("score-to").value);
    const text = of("search").value.trim().toLowerCase();
    const hit = found.labels.map(({ label }) => !text || label.toLowerCase().includes(text));
    const searched = found.columns.flatMap(({ type, texts }, column) =>
      type === "text" ? [[column, texts.map((one) => one.toLowerCase().includes(text))]] : [],
    );
    const matches = (row) =>
      hit[found.label[row]] ||
      String(found.number[row]) === text ||
      searched.some(([column, hits]) => hits[found["column" + column][row]]);
    for (let row = 0; row < found.count; row++) {
      const score = found.score[row];
      const scored = score < 0 ? from <= 0 : score >= from - 1e-6 && score <= to + 1e-6;
      state.visible[row] = chosen[found.label[row]] && scored && (!text || matches(row)) ? 1 : 0;
    }
    state.page = state.cards = 0;
    sort();
    viewer.draw();
    const [shown, all] = [state.rows.length, found.count].map((value) => limner.grouped(String(value)));
    of("shown").textContent = found.count ? `${shown} of ${all} findings shown` : "No findings";
  };
  let typing = 0;
  of("filters").addEventListener("input", (event) => {
    if (event.target.id === "fill") {
      viewer.filled = event.target.checked;
      viewer.draw();
      return;
    }
    clearTimeout(typing);
    typing = setTimeout(filter, event.target.id === "search" ? 150 : 0);
  });
  of("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, checked] of [["labels-all", true], ["labels-none", false]]) {
    of(id).addEventListener("click", () => {
      for (const box of of("layers").querySelectorAll("input")) box.checked = checked;
      filter();
    });
  }

  // The table.
  const sort = () => {
    const { column, down } = state.order;
    const rows = [];
    for (let row = 0; row < found.count; row++) if (state.visible[row]) rows.push(row);
    if (column >= 0) {
      const isText = found.columns[column].type === "text";
      const values = rows.map((row) => (isText ? found.text(column, row) || null : found.value(column, row)));
      const places = rows.map((_, at) => at);
      const sign = down ? -1 : 1;
      const compare = isText ? (a, b) => (a < b ? -1 : a > b ? 1 : 0) : (a, b) => a - b;
      places.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is not known comes last
        return sign * compare(x, y) || a - b;
      });
      state.rows = places.map((at) => rows[at]);
    } else if (column === -2) {
      const sign = state.order.down ? -1 : 1;
      state.rows = rows.sort((a, b) => sign * (found.label[a] - found.label[b]) || a - b);
    } else {
      state.rows = down ? rows.reverse() : rows;
    }
    state.wordRows = state.rows.filter((row) => found.words(row));
    table();
    cards();
  };
  const headings = () => {
    const heading = (text, column, className = "") => {
      const cell = make("th", { scope: "col", className }, make("button", { type: "button", textContent: text }));
      cell.dataset.column = column;
      return cell;
    };
    const named = found.columns.map(({ heading: text, unit, type }, column) =>
      heading(unit ? `${text}, ${unit}` : text, column, type === "number" ? "number" : "words"),
    );
    of("rows").tHead.replaceChildren(make("tr", {}, heading("no.", -1, "number"), heading("label", -2), ...named));
  };
  of("rows").tHead.addEventListener("click", (event) => {
    const cell = event.target.closest("th");
    if (!cell) return;
    const column = Number(cell.dataset.column);
    state.order = { column, down: state.order.column === column && !state.order.down };
    state.page = state.cards = 0;
    sort();
  });
  const table = () => {
    const { column, down } = state.order;
    for (const cell of of("rows").tHead.rows[0].cells) {
      const sorted = Number(cell.dataset.column) === column;
      cell.setAttribute("aria-sort", sorted ? (down ? "descending" : "ascending") : "none");
    }
    const last = Math.max(0, Math.ceil(state.rows.length / ROWS) - 1);
    state.page = Math.min(Math.max(state.page, 0), last);
    const shown = state.rows.slice(state.page * ROWS, (state.page + 1) * ROWS);
    of("rows").tBodies[0].replaceChildren(
      ...shown.map((row) => {
        const { label, colour } = found.labels[found.label[row]];
        const number = make("button", { type: "button", textContent: found.number[row] });
        number.setAttribute("aria-label", `Show finding ${found.number[row]}`);
        const cells = found.columns.map(({ type }, at) => {
          if (type === "number") return make("td", { className: "number", textContent: found.text(at, row) });
          return make("td", { className: "words" }, make("span", { className: "cell", dir: "auto", textContent: found.text(at, row) }));
        });
        const named = make("td", { className: "label" }, swatch(colour), " ", isolated(label || "(no label)"));
        const line = make("tr", {}, make("th", { scope: "row", className: "number" }, number), named, ...cells);
        line.dataset.row = row;
        if (row === viewer.selected) line.setAttribute("aria-current", "true");
        return line;
      }),
    );
    const first = state.rows.length ? state.page * ROWS + 1 : 0;
    const [a, b, c] = [first, first ? first + shown.length - 1 : 0, state.rows.length].map((value) => limner.grouped(String(value)));
    of("page-text").textContent = `${a} to ${b} of ${c}`;
    for (const id of ["page-first", "page-before"]) of(id).disabled = state.page === 0;
    for (const id of ["page-last", "page-after"]) of(id).disabled = state.page === last;
  };
  const turn = (page) => {
    state.page = page;
    table();
  };
  of("page-first").addEventListener("click", () => turn(0));
  of("page-before").addEventListener("click", () => turn(state.page - 1));
  of("page-after").addEventListener("click", () => turn(state.page + 1));
  of("page-last").addEventListener("click", () => turn(Infinity));
  const rowOf = (event) => {
    const line = event.target.closest("tr");
    return line && line.dataset.row !== undefined ? Number(line.dataset.row) : -1;
  };
  of("rows").tBodies[0].addEventListener("click", (event) => select(rowOf(event), { move: true }));
  of("rows").tBodies[0].addEventListener("mouseover", (event) => {
    viewer.hovered = rowOf(event);
    viewer.mark();
  });
  of("rows").tBodies[0].addEventListener("mouseleave", () => {
    viewer.hovered = -1;
    viewer.mark();
  });

  // The model's words, each with its part of the picture.
  const cards = () => {
    of("words").hidden = !state.wordRows.length;
    const last = Math.max(0, Math.ceil(state.wordRows.length / CARDS) - 1);
    state.cards = Math.min(Math.max(state.cards, 0), last);
    const shown = state.wordRows.slice(state.cards * CARDS, (state.cards + 1) * CARDS);
    of("cards").replaceChildren(...shown.map(card));
    const first = state.cards * CARDS;
    of("words-text").textContent = `${first + 1} to ${first + shown.length} of ${limner.grouped(String(state.wordRows.length))}`;
    of("words-before").disabled = state.cards === 0;
    of("words-after").disabled = state.cards === last;
  };
  const card = (row) => {
    const { label, colour } = found.labels[found.label[row]];
    const button = make("button", { type: "button", textContent: `Show ${found.number[row]}` });
    const score = found.score[row] < 0 ? "" : ` ${found.score[row].toFixed(2)}`;
    const said = make("p", { className: "said", dir: "auto", tabIndex: 0, textContent: found.words(row) });
    const text = make("div", {}, make("p", {}, button, " ", swatch(colour), " ", isolated(label || "(no label)"), score), said);
    const [picture, note] = thumbnail(row);
    if (note) text.append(note);
    const item = make("li", {}, picture || "", text);
    item.dataset.row = row;
    if (row === viewer.selected) item.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      select(row, { move: true });
      of("viewer").scrollIntoView({ block: "start" });
    });
    return item;
  };
  const thumbnail = (row) => {
    const [x0, y0, x1, y1] = found.bounds.subarray(4 * row, 4 * row + 4);
    const own = state.parts.get(row);
    const source = own || state.pictures[place.planes.indexOf(found.plane[row] + 1)];
    if (!source) return [];
    const ends = [place.toPicture(x0, y0), place.toPicture(x1, y1)];
    const [left, top] = [0, 1].map((axis) => Math.min(ends[0][axis], ends[1][axis]));
    const [width, height] = [0, 1].map((axis) => Math.max(Math.abs(ends[1][axis] - ends[0][axis]), 1));
    const zoom = Math.min(480 / width, 320 / height);
    const canvas = make("canvas", { width: Math.ceil(width * zoom), height: Math.ceil(height * zoom) });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Part of the image with finding ${found.number[row]}`);
    const note = make("p", { className: "note" });
    const picture = new Image();
    picture.addEventListener("load", () => {
      const [across, down] = own ? [picture.naturalWidth, picture.naturalHeight] : [width, height];
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = canvas.width < across;
      pen.drawImage(picture, own ? 0 : left, own ? 0 : top, across, down, 0, 0, canvas.width, canvas.height);
      const pixels = Math.max(x1 - x0, y1 - y0) / Math.max(across, down);
      const from = own ? "Read from the image" : "Cut from the picture above";
      note.textContent = `${from}: 1 px for ${limner.plain(pixels, 2)} px of the image.`;
    });
    picture.src = source;
    return [canvas, note];
  };
  of("words-before").addEventListener("click", () => {
    state.cards--;
    cards();
  });
  of("words-after").addEventListener("click", () => {
    state.cards++;
    cards();
  });

  // A finding and its row highlight each other.
  const select = (row, { move }) => {
    viewer.selected = row;
    const at = state.rows.indexOf(row);
    if (row >= 0) {
      const slice = place.planes.indexOf(found.plane[row] + 1);
      if (slice >= 0 && slice !== state.at) {
        display(slice);
        viewer.selected = row;
        if (move) viewer.osd.addOnceHandler("open", () => viewer.goTo(row));
      } else if (move && slice >= 0) {
        viewer.goTo(row);
      }
      if (at >= 0 && Math.floor(at / ROWS) !== state.page) turn(Math.floor(at / ROWS));
    }
    for (const line of [...of("rows").tBodies[0].rows, ...of("cards").children]) {
      if (Number(line.dataset.row) === row) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
    const line = of("rows").querySelector("tr[aria-current]");
    if (line && !move) {
      const box = line.closest(".table");
      box.scrollTop = line.offsetTop - box.clientHeight / 2;
    }
    details(row);
    viewer.mark();
  };
  const details = (row) => {
    if (row < 0) {
      of("selected").replaceChildren();
      return;
    }
    const { label, colour } = found.labels[found.label[row]];
    const list = make("dl");
    found.columns.forEach(({ heading, unit }, column) => {
      const text = found.text(column, row);
      if (text) list.append(make("dt", { textContent: unit ? `${heading}, ${unit}` : heading }), make("dd", { dir: "auto", textContent: text }));
    });
    const hidden = place.planes.includes(found.plane[row] + 1) ? "" : "Its slice is not in this page.";
    const title = make("p", {}, make("strong", { textContent: `Finding ${found.number[row]} ` }), swatch(colour), " ", isolated(label || "(no label)"));
    of("selected").replaceChildren(title, list, ...(hidden ? [make("p", { textContent: hidden })] : []));
  };
  const step = (by) => {
    if (!state.rows.length) return;
    const at = state.rows.indexOf(viewer.selected);
    const next = at < 0 ? (by > 0 ? 0 : state.rows.length - 1) : (at + by + state.rows.length) % state.rows.length;
    select(state.rows[next], { move: true });
  };
  of("next").addEventListener("click", () => step(1));
  of("previous").addEventListener("click", () => step(-1));
  of("zoom-in").addEventListener("click", () => viewer.osd.viewport.zoomBy(1.6).applyConstraints());
  of("zoom-out").addEventListener("click", () => viewer.osd.viewport.zoomBy(1 / 1.6).applyConstraints());
  of("zoom-all").addEventListener("click", () => viewer.osd.viewport.goHome());

  // Other tables are sorted by their cells.
  for (const plain of document.querySelectorAll("table:not(#rows)")) {
    [...plain.tHead.rows[0].cells].forEach((cell, column) => {
      const button = make("button", { type: "button", textContent: cell.textContent });
      cell.replaceChildren(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        for (const one of plain.tHead.rows[0].cells) one.setAttribute("aria-sort", "none");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const isNumber = cell.classList.contains("number");
        const value = (row) => {
          const text = row.cells[column].textContent.trim();
          return isNumber ? (text ? parseFloat(text.replace(/[,<\s]/g, "")) : -Infinity) : text;
        };
        const sign = down ? -1 : 1;
        const rows = [...plain.tBodies[0].rows].map((row) => [value(row), row]);
        rows.sort(([a], [b]) => sign * (a < b ? -1 : a > b ? 1 : 0));
        plain.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  window.addEventListener("beforeprint", () => of("canvas").after(viewer.printed(state.bar)));
  window.addEventListener("afterprint", () => document.querySelector(".printed").remove());

  // The contact sheet.
  document.documentElement.classList.add("scripted");
  if (figures.length > 1) {
    for (const figure of figures) {
      const shown = figure.querySelector("img") || figure.querySelector(".gone");
      const button = make("button", { type: "button", className: "open" });
      button.setAttribute("aria-label", `Show ${figure.querySelector("strong").textContent}`);
      shown.replaceWith(button);
      button.append(shown);
      button.addEventListener("click", async () => {
        await open(figure);
        of("viewer").scrollIntoView({ block: "start" });
      });
    }
    for (const link of document.querySelectorAll('a[href^="#image-"]')) {
      link.addEventListener("click", async (event) => {
        event.preventDefault();
        await open(document.querySelector(link.getAttribute("href")));
        of("viewer").scrollIntoView({ block: "start" });
      });
    }
  }
  limner.page = { viewer, select, state, findings: () => found, place: () => place };
  if (figures.length) return open(figures[0]);
  of("viewer").hidden = true;
  return Promise.resolve();
};

limner.ready = limner.start();
