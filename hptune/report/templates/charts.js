// Draws the charts of the stages: the one in sight first, the others while the browser has nothing else to do.

const EMBED = { actions: false, renderer: "svg", ast: true };  // ast: expressions are interpreted, so the page needs no eval

/** Draws a Vega-Lite specification into `place`; resolves when it stands there. */
function draw(place, spec) {
  return window.vegaEmbed(place, spec, EMBED).catch((error) => { place.textContent = "This chart cannot be drawn: " + error.message; });
}

function drawInTurn(places, specs) {
  const idle = window.requestIdleCallback || ((call) => setTimeout(call, 0));
  const next = () => {
    const place = places.shift();
    if (place) draw(place, specs[place.dataset.spec]).then(() => idle(next, { timeout: 200 }));
    else document.documentElement.dataset.drawn = "all";
  };
  next();
}
