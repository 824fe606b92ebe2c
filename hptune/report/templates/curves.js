// Training and validation curves of the trials one chooses, in one chart or side by side.

const COLORS = ["#0a7d6c", "#4a7ab5", "#c4552d", "#a57c1b", "#8e5aa8", "#b0487c", "#5d8a2f", "#7d848d"];

/** The points of a trial's curve; `{epoch, loss, part, trial}`. */
function pointsOf(curve, trial) {
  const [epochs, training, validation] = curve;
  return [["training", training], ["validation", validation]].flatMap(([part, losses]) =>
    epochs.map((epoch, i) => ({ epoch, loss: losses[i], part, trial })).filter((point) => point.loss !== null));
}

/** Limits for all points: a logarithmic axis where every loss is positive. */
function lossScale(points) {
  const losses = points.map((point) => point.loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  if (low > 0) return { type: "log", domain: [low * 0.95, high * 1.05], nice: false };
  const gap = (high - low) / 20 || 1;
  return { domain: [low - gap, high + gap], nice: false };
}

function curveSpec(points, names, scale, look) {
  const number = { format: ".4~g", tickCount: 5 };
  const encoding = {
    x: { field: "epoch", type: "quantitative", title: "epochs", scale: { domainMin: 0 }, axis: { tickCount: 6 } },
    y: { field: "loss", type: "quantitative", title: "loss", scale, axis: number },
    color: { field: "trial", type: "nominal", legend: null, scale: { domain: names, range: COLORS } },
    strokeDash: {
      field: "part", type: "nominal", title: null, scale: { domain: ["validation", "training"], range: [[1, 0], [5, 4]] },
      legend: { symbolType: "stroke", symbolSize: 350, symbolStrokeWidth: 2, symbolStrokeColor: "#7d848d", symbolFillColor: "transparent" },
    },
  };
  const tooltip = [
    { field: "trial", type: "nominal" }, { field: "part", type: "nominal" },
    { field: "epoch", type: "quantitative", format: ".3~g" }, { field: "loss", type: "quantitative", format: ".4~g" },
  ];
  return {
    ...look, height: 280, data: { values: points }, encoding,
    layer: [{ mark: { type: "line", strokeWidth: 2 } }, { mark: { type: "circle", size: 30 }, encoding: { tooltip } }],
  };
}

/** Draws the curves of the rows in `chosen` into `#curves`, and says beside each what it was and what its curve shows. */
function showCurves(data, chosen, look, refreshTable) {
  const place = document.getElementById("curves");
  const list = document.getElementById("curve-legend");
  const apart = document.getElementById("curves-apart").checked;
  const rows = [...chosen].slice(0, COLORS.length);
  const names = rows.map((row) => `${row + 1}: ${data.names[row]}`);
  document.getElementById("curve-count").textContent = chosen.size > COLORS.length
    ? `Curves of the first ${COLORS.length} of ${chosen.size} chosen trials.`
    : chosen.size ? `Curves of ${chosen.size} chosen trial${chosen.size === 1 ? "" : "s"}.` : "No trial is chosen: tick one in the table.";
  list.replaceChildren(...rows.map((row, i) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = COLORS[i];
    const drop = element("button", { type: "button", textContent: "remove" });
    drop.setAttribute("aria-label", `Remove trial ${row + 1} from the chart`);
    drop.addEventListener("click", () => { chosen.delete(row); showCurves(data, chosen, look, refreshTable); refreshTable(); });
    return element("li", {}, swatch, element("p", {}, element("strong", { textContent: names[i] }), ` ${data.clues[row] ?? ""}`), drop);
  }));
  const points = rows.map((row, i) => pointsOf(data.curves[row], names[i]));
  const groups = apart ? points : [points.flat()];
  const scale = points.flat().length ? lossScale(points.flat()) : {};
  place.replaceChildren(...groups.filter((group) => group.length).map((group) => {
    const chart = element("div", { className: "chart" });
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `Training and validation loss by epoch of ${[...new Set(group.map((point) => point.trial))].join("; ")}`);
    const title = apart ? { title: { text: group[0].trial, fontSize: 12, limit: 380, fontWeight: "normal" } } : {};
    draw(chart, curveSpec(group, names, scale, { ...look, ...title }));
    return element("figure", { className: apart ? "" : "wide" }, chart);
  }));
}
