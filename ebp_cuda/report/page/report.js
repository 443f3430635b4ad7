"use strict";
// Draws the sheets and the table of a report from the data in the page. Text goes in by textContent alone.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100;
const NAMES = ["label", "class", "method", "image"]; // columns whose values need no name before them
const CAPTION = ["label", "class", "target", "method", "score", "mass_left", "distance", "mass", "image"];
const state = { column: -1, down: false, page: 0, filters: data.columns.map(() => "") };
let order = data.rows.map((_, number) => number);

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function address(number) {
  const known = data.pictures[number];
  return known === undefined ? null : known || `${encodeURIComponent(data.folder)}/${number}.jpg`;
}

function picture(number) {
  const source = address(number);
  return source && element("img", { src: source, loading: "lazy", alt: `map of row ${number}` });
}

function shown(value) {
  if (value === null) return "";
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
}

function drawSheets() {
  const at = Object.fromEntries(data.columns.map((column, index) => [column.name, index]));
  for (const sheet of data.sheets) {
    const box = element("div", { class: "sheet" });
    for (const number of sheet.rows) {
      const row = data.rows[number];
      const figure = element("figure");
      const image = picture(number);
      if (image) figure.append(image);
      const words = CAPTION.filter((name) => name in at && row[at[name]] !== null)
        .filter((name) => name !== "target" || !("label" in at))
        .map((name) => (NAMES.includes(name) ? "" : name.replace("_", " ") + " ") + shown(row[at[name]]));
      figure.append(element("figcaption", {}, words.join(" · ")));
      box.append(figure);
    }
    document.getElementById("sheets").append(element("h2", {}, sheet.title), box);
  }
}

// A filter's text as a function of a value; null where the text says nothing yet.
function condition(text, numeric) {
  const words = text.trim().toLowerCase();
  if (!words) return null;
  if (!numeric) return (value) => value !== null && String(value).toLowerCase().includes(words);
  const range = words.match(/^(-?[\d.e+-]+)\s*\.\.\s*(-?[\d.e+-]+)$/);
  if (range) return (value) => value !== null && value >= Number(range[1]) && value <= Number(range[2]);
  const sign = words.match(/^([<>]=?|=)?\s*(.+)$/);
  const bound = Number(sign[2]);
  if (Number.isNaN(bound)) return () => false;
  const holds = { "<": (a) => a < bound, "<=": (a) => a <= bound, ">": (a) => a > bound, ">=": (a) => a >= bound };
  const test = holds[sign[1]] || ((a) => a === bound);
  return (value) => value !== null && test(value);
}

function choose() {
  const tests = state.filters
    .map((text, index) => [index, condition(text, data.columns[index].numeric)])
    .filter(([, test]) => test);
  order = data.rows.map((_, number) => number).filter((number) => tests.every(([index, test]) => test(data.rows[number][index])));
  if (state.column >= 0) {
    const index = state.column;
    const sign = state.down ? -1 : 1;
    order.sort((a, b) => {
      const [x, y] = [data.rows[a][index], data.rows[b][index]];
      if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last
      return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
    });
  }
  state.page = 0;
  drawRows();
}

function drawRows() {
  const pages = Math.max(1, Math.ceil(order.length / PAGE));
  const start = state.page * PAGE;
  const body = element("tbody");
  const pictured = Object.keys(data.pictures).length > 0;
  for (const number of order.slice(start, start + PAGE)) {
    const line = element("tr");
    if (pictured) {
      const cell = element("td");
      const image = picture(number);
      if (image) cell.append(image);
      line.append(cell);
    }
    data.rows[number].forEach((value, index) => {
      line.append(element("td", { class: data.columns[index].numeric ? "number" : "text" }, shown(value)));
    });
    body.append(line);
  }
  document.querySelector("#table tbody").replaceWith(body);
  document.getElementById("page").textContent = `page ${state.page + 1} of ${pages}, ${order.length} of ${data.rows.length} rows`;
  document.getElementById("before").disabled = state.page === 0;
  document.getElementById("after").disabled = state.page + 1 >= pages;
}

function drawHead() {
  const [names, filters] = [element("tr"), element("tr", { class: "filters" })];
  if (Object.keys(data.pictures).length > 0) {
    names.append(element("th"));
    filters.append(element("th"));
  }
  data.columns.forEach((column, index) => {
    const head = element("th", { scope: "col", title: "sort" }, column.name.replaceAll("_", " "));
    head.addEventListener("click", () => {
      state.down = state.column === index && !state.down;
      state.column = index;
      for (const other of names.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      choose();
    });
    names.append(head);
    const field = element("input", { "aria-label": `filter ${column.name}`, "data-column": column.name });
    field.addEventListener("input", () => {
      state.filters[index] = field.value;
      choose();
    });
    const cell = element("th");
    cell.append(field);
    filters.append(cell);
  });
  document.querySelector("#table thead").append(names, filters);
}

for (const [id, step] of [["before", -1], ["after", 1]]) {
  document.getElementById(id).addEventListener("click", () => {
    state.page += step;
    drawRows();
  });
}
drawSheets();
drawHead();
choose();
