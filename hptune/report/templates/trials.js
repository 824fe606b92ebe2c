// The table of all trials: sorted, filtered and shown a page at a time, so that only one page of rows is ever in the document.

const PAGE = 25;  // rows
const ON_PAPER = 500;  // rows, at most

/** Turns the columns of the report's data into {title, numeric, value(row)}; texts stand once each in `texts`. */
function columnsOf(data) {
  return data.columns.map((column) => ({
    ...column,
    value: column.texts ? (row) => column.texts[column.values[row]] : (row) => column.values[row],
  }));
}

function shown(value) {
  if (value === null) return "";
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
}

/** Numbers before texts, what is empty last, whichever way the column is sorted. */
function comparison(column, rising) {
  return (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    const order = typeof x === "number" ? x - y : x.localeCompare(y);
    return rising ? order : -order;
  };
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function classOf(column) {
  return [column.numeric ? "number" : "", column.paper ? "" : "screen-only"].join(" ").trim();
}

/** Fills `#trial-table`; `chosen` is a Set of rows, and `onChoice` is called when it has changed. */
function showTrials(data, chosen, onChoice) {
  const columns = columnsOf(data);
  const table = document.getElementById("trial-table");
  const say = document.getElementById("trial-count");
  const search = document.getElementById("trial-filter");
  const [back, on] = [document.getElementById("trial-back"), document.getElementById("trial-on")];
  const texts = Array.from({ length: data.rows }, (_, row) => 
    [...columns.map((column) => shown(column.value(row))), data.same].join(" ").toLowerCase());
  let rows = texts.map((_, row) => row);
  let first = 0;
  let order = null;

  const heads = columns.map((column) => {
    const button = element("button", { type: "button", textContent: column.title });
    const head = element("th", { scope: "col", className: classOf(column) }, button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      order = comparison(column, rising);
      refresh();
    });
    return head;
  });
  table.tHead.append(element("tr", {}, element("th", { scope: "col", className: "screen-only", textContent: "curve" }), ...heads));

  const tableRow = (row) => {
    const box = element("input", { type: "checkbox", checked: chosen.has(row), disabled: !data.curves[row] });
    box.setAttribute("aria-label", `Show the curve of trial ${row + 1}`);
    box.addEventListener("change", () => {
      chosen[box.checked ? "add" : "delete"](row);
      box.closest("tr").classList.toggle("chosen", box.checked);
      onChoice();
    });
    const cells = columns.map((column) => {
      const text = shown(column.value(row));
      return element("td", { textContent: text, title: text.length > 40 ? text : "", className: classOf(column) });
    });
    return element("tr", { className: chosen.has(row) ? "chosen" : "" }, element("td", { className: "screen-only" }, box), ...cells);
  };
  const showPage = (size = PAGE) => {
    const page = rows.slice(first, first + size);
    table.tBodies[0].replaceChildren(...page.map(tableRow));
    const range = page.length ? `${first + 1} to ${first + page.length} of ${rows.length}` : "none";
    say.textContent = `Trials ${range}${rows.length < data.rows ? `, filtered from ${data.rows}` : ""}`;
    back.disabled = first === 0;
    on.disabled = first + size >= rows.length;
  };
  const refresh = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows = texts.map((_, row) => row).filter((row) => words.every((word) => texts[row].includes(word)));
    if (order) rows.sort(order);
    first = 0;
    showPage();
  };
  search.addEventListener("input", refresh);
  back.addEventListener("click", () => { first -= PAGE; showPage(); });
  on.addEventListener("click", () => { first += PAGE; showPage(); });
  window.matchMedia("print").addEventListener("change", (paper) => { first = 0; showPage(paper.matches ? ON_PAPER : PAGE); });
  refresh();
  return { refresh: () => showPage() };
}
