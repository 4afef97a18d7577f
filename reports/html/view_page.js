// Starts the page that a server shows: run_page.js with the server's findings and pictures.
"use strict";

const started = limner.start(async (figure, place) => {
  const source = await limner.ServerSource.open(figure, place);
  limner.say(source.about.status);
  const choice = document.getElementById("window");
  choice.replaceChildren(
    ...(place.windows || []).map((name, at) => Object.assign(document.createElement("option"), { value: at, textContent: name })),
  );
  document.getElementById("windows").hidden = choice.options.length < 2;
  return source;
});

limner.ready = started.then(async () => {
  const state = await (await limner.ask("review")).json();
  if (!state.reviewer) return;
  limner.review(state);
  await limner.page.update(); // with what was decided
});

document.getElementById("window").addEventListener("change", (event) => {
  limner.page.source().window = Number(event.target.value);
  limner.page.display();
});
