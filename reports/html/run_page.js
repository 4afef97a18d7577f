// What happens on the page of a run: images, layers, filters, tables and the model's words.
//
// `openSource` gives the source of a figure's findings and pictures: from the page itself (run_embedded.js), or from a
// server (view_source.js). A source has labels, their counts, columns, count, note, query (hidden labels, scores, text,
// order), and
//   picture(at)          a source of tiles of OpenSeadragon for a slice by its place; null where there is none
//   layer(view, row)     a promise of what is drawn in a view, with a row that must be; null where that is drawn already
//   rows(start, count)   a promise of a part of the table by the query: total, and rows
//   words(start, count)  the same, of findings with words of the model's
//   step(row, by)        a promise of the finding `by` rows further, with its place in the table (-1: not in it); or null
//   at(point, near)      a promise of the row at a point where none is drawn; -1 for none
//   thumbnail(finding)   what shows its part of the image
"use strict";

limner.start = (openSource) => {
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
  const state = { page: 0, cards: 0, total: 0, listed: [], asked: {} };
  /** A function that tells whether no later one was asked for by this name: answers may come in another order. */
  const ticket = (name) => {
    const mine = (state.asked[name] = (state.asked[name] || 0) + 1);
    return () => mine === state.asked[name];
  };
  let source = null;
  let place = null;

  /** What other scripts know of the page, and may set: what is called when an image is opened, a finding chosen, … */
  const page = {
    state,
    make,
    onOpen: () => {},
    onSelect: () => {},
    onMarked: () => {},
    marks: () => [],
    select: (finding, how = { move: false }) => work(select(finding, how)),
    step: (by) => step(by),
    update: () => work(update()),
    source: () => source,
    place: () => place,
    /** Show the pictures again, which have changed. */
    display: () => display(state.at),
    /** Show a plane of the image. */
    showPlane: (plane) =>
      new Promise((resolve) => {
        const at = place.planes.indexOf(plane + 1);
        if (at === state.at || at < 0) return resolve();
        viewer.osd.addOnceHandler("open", () => resolve());
        return display(at);
      }),
    selected: () => (viewer.selected ? viewer.selected.number : -1),
    work: Promise.resolve(),
  };
  limner.page = page;
  /** Note what goes on, so that others can wait for it. */
  const work = (promise) => {
    page.work = promise;
    return promise;
  };

  of("viewer").hidden = false; // OpenSeadragon needs the size of what it fills
  const viewer = new limner.Viewer(of("canvas"), {
    choose: (row, point, near) => choose(row, point, near),
    hover: (row) => (of("canvas").title = row < 0 ? "" : viewer.nameOf(row)),
    step: (by) => step(by),
    click: () => false,
    viewed: () => refresh(),
    marked: (pen, to) => page.onMarked(pen, to),
    position: (text) => (of("position").textContent = text),
    scale: (metres) => scale(metres),
  });

  page.viewer = viewer;

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

  const open = async (figure) => {
    for (const one of figures) one.toggleAttribute("aria-current", false);
    figure.setAttribute("aria-current", "true");
    place = new limner.Place(await limner.readBlock(figure.querySelector("script.place").textContent));
    source = await openSource(figure, place);
    viewer.labels = source.labels;
    viewer.layer = new limner.Layer(0, {});
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
    Object.assign(state, { page: 0, cards: 0 });
    headings();
    of("search").value = "";
    of("score-from").value = 0;
    of("score-to").value = 1;
    of("findings").hidden = !source.count;
    of("findings-note").textContent = source.note;
    page.onOpen(figure);
    display(place.start);
    of("selected").replaceChildren();
    await filter();
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
    viewer.show(place, place.planes[at] - 1, source.picture(at));
  };
  of("slice").addEventListener("change", (event) => display(Number(event.target.value)));
  of("slice-before").addEventListener("click", () => display(state.at - 1));
  of("slice-after").addEventListener("click", () => display(state.at + 1));

  // Layers and filters.
  const layers = () => {
    of("layers").replaceChildren(
      ...source.labels.map(({ label, colour }, code) => {
        const box = make("input", { type: "checkbox", checked: true, value: code });
        const count = make("span", { className: "count", textContent: limner.grouped(String(source.counts[code])) });
        return make("li", {}, make("label", {}, box, swatch(colour), isolated(label || "(no label)"), count));
      }),
    );
  };
  const filter = () => {
    const boxes = [...of("layers").querySelectorAll("input")];
    Object.assign(source.query, {
      hidden: boxes.flatMap((box, code) => (box.checked ? [] : [code])),
      from: Number(of("score-from").value || 0),
      to: of("score-to").value === "" ? 1 : Number(of("score-to").value),
      text: of("search").value.trim().toLowerCase(),
    });
    state.page = state.cards = 0;
    return update();
  };
  /** Show what the query leaves. */
  const update = async () => {
    const isLast = ticket("update");
    await Promise.all([table(), cards(), refresh(true)]);
    if (!isLast()) return;
    const [shown, all] = [state.total, source.count].map((value) => limner.grouped(String(value)));
    of("shown").textContent = source.count ? `${shown} of ${all} findings shown` : "No findings";
  };
  /** Draw what is in view, if that is not drawn already. */
  const refresh = async (changed = false) => {
    const view = viewer.extent();
    if (!view) return;
    const from = source;
    const layer = await from.layer({ ...view, plane: viewer.plane }, viewer.selected ? viewer.selected.row : -1, changed);
    if (!layer || from !== source) return;
    viewer.layer = layer;
    viewer.draw();
  };
  let typing = 0;
  of("filters").addEventListener("input", (event) => {
    if (event.target.id === "fill") {
      viewer.filled = event.target.checked;
      viewer.draw();
      return;
    }
    clearTimeout(typing);
    typing = setTimeout(() => work(filter()), event.target.id === "search" ? 150 : 0);
  });
  of("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, checked] of [["labels-all", true], ["labels-none", false]]) {
    of(id).addEventListener("click", () => {
      for (const box of of("layers").querySelectorAll("input")) box.checked = checked;
      work(filter());
    });
  }

  // The table.
  const headings = () => {
    const heading = (text, column, className = "") => {
      const cell = make("th", { scope: "col", className }, make("button", { type: "button", textContent: text }));
      cell.dataset.column = column;
      return cell;
    };
    const named = source.columns.map(({ heading: text, unit, type }, column) =>
      heading(unit ? `${text}, ${unit}` : text, column, type === "number" ? "number" : "words"),
    );
    of("rows").tHead.replaceChildren(make("tr", {}, heading("no.", -1, "number"), heading("label", -2), ...named));
  };
  of("rows").tHead.addEventListener("click", (event) => {
    const cell = event.target.closest("th");
    if (!cell) return;
    const column = Number(cell.dataset.column);
    Object.assign(source.query, { column, down: source.query.column === column && !source.query.down });
    state.page = state.cards = 0;
    work(Promise.all([table(), cards()]));
  });
  const table = async () => {
    const { column, down } = source.query;
    for (const cell of of("rows").tHead.rows[0].cells) {
      const sorted = Number(cell.dataset.column) === column;
      cell.setAttribute("aria-sort", sorted ? (down ? "descending" : "ascending") : "none");
    }
    const isLast = ticket("table");
    const { total, rows } = await source.rows(state.page * ROWS, ROWS);
    if (!isLast()) return;
    const last = Math.max(0, Math.ceil(total / ROWS) - 1);
    Object.assign(state, { total, listed: rows });
    of("rows").tBodies[0].replaceChildren(...rows.map(line));
    const first = total ? state.page * ROWS + 1 : 0;
    const [a, b, c] = [first, first ? first + rows.length - 1 : 0, total].map((value) => limner.grouped(String(value)));
    of("page-text").textContent = `${a} to ${b} of ${c}`;
    for (const id of ["page-first", "page-before"]) of(id).disabled = state.page === 0;
    for (const id of ["page-last", "page-after"]) of(id).disabled = state.page === last;
  };
  const line = (finding) => {
    const { label, colour } = source.labels[finding.label];
    const number = make("button", { type: "button", textContent: finding.number });
    number.setAttribute("aria-label", `Show finding ${finding.number}`);
    const cells = source.columns.map((column, at) => {
      const textContent = limner.cellText(column, finding.cells[at]);
      if (column.type === "number") return make("td", { className: "number", textContent });
      return make("td", { className: "words" }, make("span", { className: "cell", dir: "auto", textContent }));
    });
    const named = make("td", { className: "label" }, swatch(colour), " ", isolated(label || "(no label)"), ...page.marks(finding));
    const row = make("tr", {}, make("th", { scope: "row", className: "number" }, number), named, ...cells);
    row.dataset.row = finding.row;
    if (viewer.selected && finding.row === viewer.selected.row) row.setAttribute("aria-current", "true");
    return row;
  };
  const turn = (at) => {
    state.page = Math.min(Math.max(at, 0), Math.max(0, Math.ceil(state.total / ROWS) - 1));
    return work(table());
  };
  of("page-first").addEventListener("click", () => turn(0));
  of("page-before").addEventListener("click", () => turn(state.page - 1));
  of("page-after").addEventListener("click", () => turn(state.page + 1));
  of("page-last").addEventListener("click", () => turn(Infinity));
  const rowOf = (event) => {
    const line = event.target.closest("tr");
    return line && line.dataset.row !== undefined ? Number(line.dataset.row) : -1;
  };
  of("rows").tBodies[0].addEventListener("click", (event) => {
    const row = rowOf(event);
    const finding = state.listed.find((one) => one.row === row);
    if (finding) work(select(finding, { move: true }));
  });
  of("rows").tBodies[0].addEventListener("mouseover", (event) => {
    viewer.hovered = rowOf(event);
    viewer.mark();
  });
  of("rows").tBodies[0].addEventListener("mouseleave", () => {
    viewer.hovered = -1;
    viewer.mark();
  });

  // The model's words, each with its part of the picture.
  const cards = async () => {
    const isLast = ticket("cards");
    const { total, rows } = await source.words(state.cards * CARDS, CARDS);
    if (!isLast()) return;
    of("words").hidden = !total;
    const first = state.cards * CARDS;
    of("cards").replaceChildren(...rows.map(card));
    of("words-text").textContent = `${first + 1} to ${first + rows.length} of ${limner.grouped(String(total))}`;
    of("words-before").disabled = state.cards === 0;
    of("words-after").disabled = first + CARDS >= total;
  };
  const card = (finding) => {
    const { label, colour } = source.labels[finding.label];
    const words = finding.cells[source.columns.findIndex((one) => one.name === "text")];
    const button = make("button", { type: "button", textContent: `Show ${finding.number}` });
    const score = finding.score < 0 ? "" : ` ${finding.score.toFixed(2)}`;
    const said = make("p", { className: "said", dir: "auto", tabIndex: 0, textContent: words });
    const text = make("div", {}, make("p", {}, button, " ", swatch(colour), " ", isolated(label || "(no label)"), score), said);
    const item = make("li", {}, source.thumbnail(finding), text);
    item.dataset.row = finding.row;
    if (viewer.selected && finding.row === viewer.selected.row) item.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      work(select(finding, { move: true }));
      of("viewer").scrollIntoView({ block: "start" });
    });
    return item;
  };
  of("words-before").addEventListener("click", () => {
    state.cards--;
    work(cards());
  });
  of("words-after").addEventListener("click", () => {
    state.cards++;
    work(cards());
  });

  // A finding and its row highlight each other.
  const select = async (finding, { move, place: at = null }) => {
    viewer.selected = finding;
    if (finding) {
      const slice = place.planes.indexOf(finding.plane + 1);
      if (slice >= 0 && slice !== state.at) {
        display(slice);
        viewer.selected = finding;
        if (move) viewer.osd.addOnceHandler("open", () => viewer.goTo(finding));
      } else if (move && slice >= 0) {
        viewer.goTo(finding);
      }
      if (at !== null && at >= 0 && Math.floor(at / ROWS) !== state.page) await turn(Math.floor(at / ROWS));
    }
    for (const line of [...of("rows").tBodies[0].rows, ...of("cards").children]) {
      if (finding && Number(line.dataset.row) === finding.row) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
    const line = of("rows").querySelector("tr[aria-current]");
    if (line && !move) {
      const box = line.closest(".table");
      box.scrollTop = line.offsetTop - box.clientHeight / 2;
    }
    details(finding);
    viewer.mark();
    if (finding && viewer.layer.find(finding.row) < 0) refresh(true);
  };
  const choose = (row, point, near) => {
    const chosen = async () => {
      const hit = row < 0 ? await source.at(point, near, viewer.plane) : row;
      const finding = hit < 0 ? null : await source.step(hit, 0);
      await select(finding, { move: false, place: finding && finding.place });
    };
    return work(chosen());
  };
  const details = (finding) => {
    of("selected").replaceChildren(...(finding ? facts(finding) : []));
    page.onSelect(finding);
  };
  const facts = (finding) => {
    const { label, colour } = source.labels[finding.label];
    const list = make("dl");
    source.columns.forEach((column, at) => {
      const text = limner.cellText(column, finding.cells[at]);
      const { heading, unit } = column;
      if (text) list.append(make("dt", { textContent: unit ? `${heading}, ${unit}` : heading }), make("dd", { dir: "auto", textContent: text }));
    });
    const hidden = place.planes.includes(finding.plane + 1) ? "" : "Its slice is not in this page.";
    const title = make("p", {}, make("strong", { textContent: `Finding ${finding.number} ` }), swatch(colour), " ", isolated(label || "(no label)"), ...page.marks(finding));
    return [title, list, ...(hidden ? [make("p", { textContent: hidden })] : [])];
  };
  const step = (by) => {
    const stepped = async () => {
      const finding = await source.step(viewer.selected ? viewer.selected.row : -1, by);
      if (finding) await select(finding, { move: true, place: finding.place });
    };
    return work(stepped());
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
        await work(open(figure));
        of("viewer").scrollIntoView({ block: "start" });
      });
    }
    for (const link of document.querySelectorAll('a[href^="#image-"]')) {
      link.addEventListener("click", async (event) => {
        event.preventDefault();
        await work(open(document.querySelector(link.getAttribute("href"))));
        of("viewer").scrollIntoView({ block: "start" });
      });
    }
  }
  if (figures.length) return work(open(figures[0]));
  of("viewer").hidden = true;
  return Promise.resolve();
};
