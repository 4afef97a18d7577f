// The review: accepting, rejecting, relabelling, commenting and drawing, with undo. The server keeps every decision.
"use strict";

limner.review = (state) => {
  const of = (id) => document.getElementById(id);
  const { page } = limner;
  const { viewer, make } = page;
  page.reviewed = state;
  const KEYS = { a: "accept", r: "reject", l: "relabel", c: "comment", d: "draw", u: "undo", U: "redo" };
  const BADGES = { accepted: "✓ accepted", rejected: "✗ rejected" };
  let drawing = null; // the corners of an outline that is being drawn, in level-0 pixels
  let chosen = ""; // the id of an outline that was drawn and chosen

  const say = (text) => (of("review-said").textContent = text);
  const when = (at) => `${at.slice(0, 10)} ${at.slice(11, 16)} UTC`;

  /** Send an action, and show what has changed; whether it was taken. */
  const post = async (action) => {
    const headers = { "Content-Type": "application/json" };
    const answer = await limner.ask("review", {}, { method: "POST", headers, body: JSON.stringify(action) });
    const said = await answer.json().catch(() => ({ error: `The server refused that (${answer.status}).` }));
    say(said.error || "");
    if (said.error) return false;
    Object.assign(state, said);
    show();
    await page.update();
    return true;
  };

  // What was decided.
  page.marks = ({ decision }) => {
    if (!decision || !decision.outcome) return [];
    const textContent = BADGES[decision.outcome] || `→ ${decision.label}`;
    return [make("span", { className: `mark ${decision.outcome}`, dir: "auto", textContent })];
  };
  const said = ({ outcome, by, at, comment }) =>
    [outcome && `${outcome[0].toUpperCase()}${outcome.slice(1)} by ${by}, ${when(at)}.`, comment && `Comment: ${comment}`].filter(Boolean).join(" ");
  page.onSelect = (finding) => {
    if (finding) chosen = "";
    if (finding && finding.decision) of("selected").append(make("p", { className: "decided", dir: "auto", textContent: said(finding.decision) }));
    able();
  };
  const able = () => {
    const some = Boolean(viewer.selected || chosen);
    for (const id of ["accept", "reject", "clear"]) of(id).disabled = !viewer.selected;
    for (const id of ["relabel", "comment"]) of(id).disabled = !some;
    of("undo").disabled = !state.can_undo;
    of("redo").disabled = !state.can_redo;
  };
  const here = () => Object.entries(state.drawn).filter(([, one]) => one.image === page.place().id);
  const show = () => {
    if (!state.drawn[chosen]) chosen = "";
    const [done, all] = [state.reviewed, state.count].map((value) => limner.grouped(String(value)));
    of("review-progress").textContent = `${done} of ${all} reviewed, by ${state.reviewer}`;
    of("drawn").replaceChildren(
      ...here().map(([id, one], at) => {
        const name = `Drawn ${at + 1}: ${one.label}`;
        const button = make("button", { type: "button", textContent: name, dir: "auto" });
        button.addEventListener("click", () => choose(id));
        const away = make("button", { type: "button", textContent: "Delete" });
        away.setAttribute("aria-label", `Delete ${name}`);
        away.addEventListener("click", () => post({ action: "delete", findings: [id] }));
        const item = make("li", {}, button, " ", away, ` ${said(one)}`);
        if (id === chosen) item.setAttribute("aria-current", "true");
        return item;
      }),
    );
    of("history").replaceChildren(
      ...state.history.map((event) => {
        const { action, count, label, number, at } = event;
        const what = [action, count ? `${count} ${count === 1 ? "finding" : "findings"}` : "", label ? `as ${label}` : ""];
        const target = event.event ? `${action} ${event.event}` : what.filter(Boolean).join(" ");
        return make("li", { value: number, dir: "auto", textContent: `${target}, ${when(at)}` });
      }),
    );
    able();
    viewer.mark();
  };
  const choose = async (id) => {
    await page.select(null);
    chosen = id;
    const { rings, plane } = state.drawn[id];
    const [xs, ys] = [0, 1].map((axis) => rings[0].map((point) => point[axis]));
    await page.showPlane(plane);
    viewer.goTo({ bounds: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)] });
    show();
  };

  // Deciding on the chosen finding, after which the next one is chosen.
  const key = () => chosen || `${page.place().id}/${viewer.selected.number}`;
  let deciding = Promise.resolve();
  /** Decide on the chosen finding, once what was begun before is done: keys may come faster than answers. */
  const decide = (action) => {
    deciding = deciding.then(() => page.work).then(() => decided(action)).catch(() => null);
    return deciding;
  };
  const decided = async (action) => {
    const finding = viewer.selected;
    if (!finding) return say("Choose a finding first: click it, or press n.");
    const next = await page.source().step(finding.row, 1);
    if (!(await post({ action, findings: [key()] }))) return null;
    const after = action === "clear" || !next || next.row === finding.row ? await page.source().step(finding.row, 0) : next;
    return page.select(after, { move: after.row !== finding.row, place: after.place });
  };
  const again = async () => {
    if (!viewer.selected) return;
    const finding = await page.source().step(viewer.selected.row, 0);
    await page.select(finding, { move: false, place: finding.place });
  };

  // A line of text: a label or a comment.
  let answered = null;
  const ask = (what, known) => {
    if (answered) answered(null);
    of("ask-what").textContent = what;
    of("ask-text").value = "";
    of("known-labels").replaceChildren(...known.map((value) => make("option", { value })));
    of("ask").hidden = false;
    of("ask-text").focus();
    return new Promise((resolve) => {
      answered = (text) => {
        of("ask").hidden = true;
        answered = null;
        viewer.osd.canvas.focus({ preventScroll: true });
        resolve(text);
      };
    });
  };
  of("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (of("ask-text").value.trim()) answered(of("ask-text").value.trim());
  });
  of("ask-cancel").addEventListener("click", () => answered(null));
  of("ask").addEventListener("keydown", (event) => {
    if (event.key === "Escape") answered(null);
  });
  const labels = () => [...new Set([...page.source().labels.map(({ label }) => label), ...Object.values(state.drawn).map(({ label }) => label)])];
  const asked = async (action, what, name, known) => {
    if (!viewer.selected && !chosen) return say("Choose a finding first: click it, or press n.");
    const id = key();
    const text = await ask(what, known);
    if (text !== null && (await post({ action, findings: [id], [name]: text }))) await again();
    return null;
  };

  // Drawing.
  const draw = (on) => {
    drawing = on ? [] : null;
    document.body.classList.toggle("drawing", on);
    of("draw").setAttribute("aria-pressed", String(on));
    for (const one of ["gestureSettingsMouse", "gestureSettingsTouch", "gestureSettingsPen"]) viewer.osd[one].dblClickToZoom = !on;
    say(on ? "Click the corners; a double click or Enter closes the outline, Escape leaves it, Backspace takes a corner back. By keyboard: arrows move the picture, Space puts a corner into its middle." : "");
    viewer.mark();
  };
  const corner = (point) => {
    const { size } = page.place();
    const [x, y] = [0, 1].map((axis) => Math.round(8 * Math.min(Math.max(point[axis], 0), size[axis])) / 8);
    const last = drawing[drawing.length - 1];
    if (!last || Math.hypot(x - last[0], y - last[1]) > viewer.near(viewer.view()) / 2) drawing.push([x, y]);
    viewer.mark();
  };
  const close = async () => {
    const [ring, plane] = [drawing, viewer.plane];
    if (ring.length < 3) return say("An outline has at least three corners.");
    const label = await ask("Label of what you have drawn", labels());
    const taken = label !== null && (await post({ action: "draw", image: page.place().id, plane, label, rings: [ring] }));
    if (taken || label === null) draw(false);
    return null;
  };
  viewer.handlers.click = (point) => {
    if (drawing) corner(point);
    return Boolean(drawing);
  };
  viewer.osd.addHandler("canvas-double-click", () => drawing && close());
  viewer.osd.canvas.addEventListener("pointermove", () => drawing && viewer.mark());
  page.onMarked = (pen, { a, b, c, d, e, f }) => {
    const trace = (points, closed) => {
      pen.beginPath();
      for (const [x, y] of points) pen.lineTo(a * x + b * y + c, d * x + e * y + f);
      if (closed) pen.closePath();
      for (const [width, colour] of [[4, "#000"], [2, "#fff"]]) {
        pen.lineWidth = width;
        pen.strokeStyle = colour;
        pen.stroke();
      }
    };
    for (const [id, { rings, plane }] of here()) {
      if (plane !== viewer.plane) continue;
      pen.setLineDash(id === chosen ? [] : [6, 3]);
      for (const ring of rings) trace(ring, true);
    }
    pen.setLineDash([]);
    if (!drawing) return;
    const middle = viewer.osd.viewport.getContainerSize().divide(2);
    trace([...drawing, viewer.toLevel0(viewer.pointer || middle)], drawing.length > 1);
  };

  const ACTS = {
    accept: () => decide("accept"),
    reject: () => decide("reject"),
    clear: () => decide("clear"),
    relabel: () => asked("relabel", "New label", "label", labels()),
    comment: () => asked("comment", "Comment", "text", []),
    undo: () => deciding.then(async () => (await post({ action: "undo" })) && again()),
    redo: () => deciding.then(async () => (await post({ action: "redo" })) && again()),
    draw: () => draw(!drawing),
  };
  for (const [id, act] of Object.entries(ACTS)) of(id).addEventListener("click", act);
  of("draw").hidden = false;
  of("outcomes").addEventListener("change", (event) => {
    page.source().query.outcomes = event.target.value;
    page.update();
  });
  page.onOpen = () => {
    page.source().query.outcomes = of("outcomes").value;
    if (drawing) draw(false);
    chosen = "";
    show();
  };

  for (const one of "ad") viewer.taken.add(one); // which would move the picture
  document.addEventListener("keydown", (event) => {
    const from = event.target instanceof Element ? event.target : document.body;
    if (event.ctrlKey || event.metaKey || event.altKey || from.closest("input, select, textarea")) return;
    const onPicture = from.closest(".openseadragon-canvas");
    if (drawing && event.key === "Escape") draw(false);
    else if (drawing && event.key === "Enter" && onPicture) close();
    else if (drawing && event.key === " " && onPicture) corner(viewer.toLevel0(viewer.osd.viewport.getContainerSize().divide(2)));
    else if (drawing && event.key === "Backspace") drawing.pop();
    else if (!onPicture && (event.key === "n" || event.key === "p")) page.step(event.key === "n" ? 1 : -1);
    else if (KEYS[event.key] && !(drawing && event.key !== "d")) ACTS[KEYS[event.key]]();
    else return;
    event.preventDefault();
    viewer.mark();
  });
  of("review").hidden = false;
  say(state.notices.join(" "));
  page.onOpen();
};
