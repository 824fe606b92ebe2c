// Starts the page: charts, the table of trials with their curves, and what can be copied.

const read = (id) => JSON.parse(document.getElementById(id).textContent);

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
  });
}
{
  const data = read("trial-data");
  const chosen = new Set(data.chosen);
  const curves = () => showCurves(data, chosen, data.look, table.refresh);
  const table = showTrials(data, chosen, curves);
  document.getElementById("curves-apart").addEventListener("change", curves);
  document.getElementById("curves-reset").addEventListener("click", () => {
    chosen.clear();
    data.chosen.forEach((row) => chosen.add(row));
    table.refresh();
    curves();
  });
  curves();
}
if (window.vegaEmbed) drawInTurn([...document.querySelectorAll("[data-spec]")], read("specs"));
