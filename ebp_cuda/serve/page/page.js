"use strict";
// The explorer: asks this server for numbers and draws them over the photo. Nothing else is asked for.
const $ = (id) => document.getElementById(id);
const COLORS = {
  // every eighth part of matplotlib's maps of these names; both are told apart by the color-blind
  inferno: [[0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9], [249, 203, 53], [252, 255, 164]],
  cividis: [[0, 34, 78], [26, 56, 111], [67, 78, 108], [97, 101, 111], [125, 124, 120], [155, 148, 118], [188, 174, 108], [222, 201, 88], [254, 232, 56]],
};
const AGAINST = [40, 110, 255]; // what speaks against the class
const METHODS = { "c-mwp": "c-MWP: against all other classes", mwp: "MWP: for the class", versus: "class against class", "grad-cam": "Grad-CAM" };
const state = { model: null, photo: null, image: null, index: null, method: null, map: null, other: null, asked: 0 };

function say(text, isError = false) {
  $("message").textContent = text;
  $("message").className = isError ? "error" : "";
}

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Runs a step and shows what goes wrong with it.
async function attempt(step) {
  try {
    await step();
  } catch (error) {
    say(error.message, true);
  }
}

function numbers(answer) {
  const bytes = Uint8Array.from(atob(answer.float32), (letter) => letter.charCodeAt(0));
  const [height, width] = answer.shape;
  return { height, width, values: new Float32Array(bytes.buffer) };
}

// --- photos ---------------------------------------------------------------------------------------------------------

async function open(address, options, name) {
  say(`Reading ${name} ...`);
  const photo = await ask(address, options);
  const image = new Image();
  image.src = `/api/photos/${photo.id}/picture`;
  await image.decode();
  Object.assign(state, { photo, image, index: null, map: null, other: null });
  $("search").disabled = false;
  $("place").hidden = true;
  fillAgainst();
  await choose(photo.top[0].class);
}

function upload(file) {
  if (file.size > state.model.max_bytes) {
    say(`${file.name} is larger than ${Math.round(state.model.max_bytes / 2 ** 20)} MiB, the most that is taken here.`, true);
    return;
  }
  const headers = { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(file.name) };
  attempt(() => open("/api/photos", { method: "POST", body: file, headers }, file.name));
}

// --- classes --------------------------------------------------------------------------------------------------------

function listClasses() {
  const shown = state.photo.top.slice();
  if (!shown.some((one) => one.class === state.index)) {
    shown.unshift({ class: state.index, name: state.model.classes[state.index], share: null });
  }
  $("classes").replaceChildren(...shown.map((one) => {
    const [button, name, share] = ["button", "span", "span"].map((tag) => document.createElement(tag));
    name.textContent = one.name;
    share.textContent = one.share === null ? "" : `${(100 * one.share).toFixed(1)} %`;
    button.append(name, share);
    button.dataset.class = one.class;
    button.setAttribute("aria-pressed", String(one.class === state.index));
    button.addEventListener("click", () => attempt(() => choose(one.class)));
    const line = document.createElement("li");
    line.append(button);
    return line;
  }));
}

function fillAgainst() {
  $("against").replaceChildren(...state.photo.top.map((one) => new Option(one.name, one.class)));
  $("against").selectedIndex = Math.min(1, state.photo.top.length - 1);
}

async function choose(index) {
  state.index = index;
  listClasses();
  await update();
}

function search(text) {
  const words = text.trim().toLowerCase();
  const names = state.model.classes;
  const number = /^\d+$/.test(words) ? Number(words) : names.findIndex((name) => name.toLowerCase() === words);
  if (number >= 0 && number < names.length) attempt(() => choose(number));
  else say(`There is no class "${text}".`, true);
}

// --- maps -----------------------------------------------------------------------------------------------------------

function query(method) {
  const asked = new URLSearchParams({ class: state.index, layer: $("layer").value, method });
  if (method === "versus") asked.set("against", $("against").value);
  return asked.toString();
}

async function update() {
  if (!state.photo || state.index === null) return;
  if (Number($("against").value) === state.index) {
    $("against").value = state.photo.top.find((one) => one.class !== state.index)?.class;
  }
  const start = performance.now();
  const number = ++state.asked; // an answer that a later question has overtaken is dropped
  const [id, method] = [state.photo.id, state.method];
  const answer = await ask(`/api/photos/${id}/map?${query(method)}`);
  if (number !== state.asked) return;
  state.map = { ...numbers(answer), answer };
  for (const kind of ["npz", "npy", "png"]) $(kind).href = `/api/photos/${id}/map.${kind}?${query(method)}`;
  draw();
  const milliseconds = performance.now() - start;
  document.body.dataset.milliseconds = milliseconds;
  document.body.dataset.maps = Number(document.body.dataset.maps || 0) + 1;
  say(`${state.photo.name}: ${answer.name} in ${milliseconds.toFixed(0)} ms`);
  if ($("compare").checked) await compare(number);
}

async function compare(number) {
  const answer = await ask(`/api/photos/${state.photo.id}/map?${query("grad-cam")}`);
  if (number !== state.asked) return;
  state.other = { ...numbers(answer), answer };
  draw();
}

// Bilinear, pixel centers aligned, as the package's own overlays.
function resized(map, width, height) {
  const result = new Float32Array(width * height);
  const columns = Array.from({ length: width }, (_, x) => {
    const place = Math.min(map.width - 1, Math.max(0, ((x + 0.5) * map.width) / width - 0.5));
    const left = Math.floor(place);
    return [left, Math.min(map.width - 1, left + 1), place - left];
  });
  for (let y = 0; y < height; y++) {
    const place = Math.min(map.height - 1, Math.max(0, ((y + 0.5) * map.height) / height - 0.5));
    const top = Math.floor(place);
    const [upper, lower, share] = [top * map.width, Math.min(map.height - 1, top + 1) * map.width, place - top];
    for (let x = 0; x < width; x++) {
      const [left, right, part] = columns[x];
      const above = map.values[upper + left] * (1 - part) + map.values[upper + right] * part;
      const below = map.values[lower + left] * (1 - part) + map.values[lower + right] * part;
      result[y * width + x] = above * (1 - share) + below * share;
    }
  }
  return result;
}

function color(anchors, level) {
  const place = Math.min(1, level) * (anchors.length - 1);
  const index = Math.min(anchors.length - 2, Math.floor(place));
  return anchors[index].map((from, channel) => from + (anchors[index + 1][channel] - from) * (place - index));
}

function drawOne(canvas, map) {
  const { naturalWidth: width, naturalHeight: height } = state.image;
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(state.image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const [level, strength, anchors] = [resized(map, width, height), $("opacity").value / 100, COLORS[$("colors").value]];
  const negative = $("negative").checked;
  const peak = level.reduce((most, value) => Math.max(most, negative ? Math.abs(value) : value), 0) || 1;
  const table = Array.from({ length: 256 }, (_, step) => color(anchors, step / 255));
  for (let index = 0; index < level.length; index++) {
    const share = level[index] / peak;
    const size = negative ? Math.abs(share) : Math.max(0, share);
    const cover = strength * size ** 0.7;
    const glow = share < 0 ? AGAINST : table[Math.round(255 * size)];
    const at = 4 * index;
    const gray = (pixels.data[at] + pixels.data[at + 1] + pixels.data[at + 2]) / 3;
    for (let channel = 0; channel < 3; channel++) {
      const plain = pixels.data[at + channel];
      const ground = plain + strength * (0.65 * (0.6 * gray + 0.4 * plain) - plain);
      pixels.data[at + channel] = ground * (1 - cover) + glow[channel] * cover;
    }
  }
  context.putImageData(pixels, 0, 0);
}

function caption(answer) {
  const left = answer.mass_left === null ? "" : `, mass left ${answer.mass_left.toPrecision(3)}`;
  const other = answer.made_by.against ? ` against ${answer.made_by.against}` : "";
  return `${answer.name}${other}, score ${answer.score.toPrecision(4)}: ${answer.made_by.method} at ${answer.made_by.layer}${left}`;
}

function draw() {
  if (!state.map) return;
  drawOne($("map"), state.map);
  $("caption").textContent = caption(state.map.answer);
  const beside = $("compare").checked && state.other !== null;
  $("beside").hidden = !beside;
  if (beside) {
    drawOne($("other"), state.other);
    $("other-caption").textContent = caption(state.other.answer);
  }
}

// --- places ---------------------------------------------------------------------------------------------------------

function placeOf(event, canvas, map) {
  const box = canvas.getBoundingClientRect();
  const at = (offset, side, count) => Math.min(count - 1, Math.max(0, Math.floor((offset / side) * count)));
  return [at(event.clientY - box.top, box.height, map.height), at(event.clientX - box.left, box.width, map.width)];
}

function hover(event, canvas, map) {
  if (!map) return;
  const [row, column] = placeOf(event, canvas, map);
  const value = map.values[row * map.width + column];
  const mass = map.values.reduce((sum, one) => sum + Math.abs(one), 0) || 1;
  $("value").textContent = `row ${row}, column ${column} of ${map.height} x ${map.width}: ${value.toPrecision(4)}, ${((100 * value) / mass).toFixed(2)} % of the map's mass`;
}

async function classesAt(event) {
  if (!state.map) return;
  const [row, column] = placeOf(event, $("map"), state.map);
  const layer = $("layer").value;
  const start = performance.now();
  const answer = await ask(`/api/photos/${state.photo.id}/classes-at?${new URLSearchParams({ layer, row, column })}`);
  $("place-note").textContent = `row ${row}, column ${column} at ${state.model.layers[layer].name}: which of all classes have their attention here, in ${(performance.now() - start).toFixed(0)} ms. Lift: how far the share lies above the mean class.`;
  $("ranked").replaceChildren(...answer.classes.map((one) => {
    const line = document.createElement("tr");
    for (const text of [one.name, one.share.toExponential(2), one.lift.toFixed(1), one.score.toPrecision(4)]) {
      line.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    line.addEventListener("click", () => attempt(() => choose(one.class)));
    return line;
  }));
  $("place").hidden = false;
}

// --- set up ---------------------------------------------------------------------------------------------------------

function nameLayer() {
  const layer = state.model.layers[$("layer").value];
  $("layer-name").textContent = `${layer.name} (${layer.plane.join(" x ")})`;
  $("layer-why").textContent = layer.why;
}

function setUp(model) {
  state.model = model;
  state.method = model.methods[0];
  $("model").textContent = `${model.model} · ${model.classes.length} classes · rules ${model.rules}` + (model.contrast_layer ? ` · contrast at ${model.contrast_layer}` : "");
  Object.assign($("layer"), { max: model.layers.length - 1, value: model.layer });
  nameLayer();
  $("names").replaceChildren(...model.classes.map((name) => new Option("", name)));
  $("samples").replaceChildren(...model.samples.map((name) => {
    const button = Object.assign(document.createElement("button"), { textContent: name });
    button.addEventListener("click", () => attempt(() => open(`/api/samples/${encodeURIComponent(name)}`, { method: "POST" }, name)));
    return button;
  }));
  $("methods").replaceChildren(...model.methods.map((name) => {
    const [label, radio] = ["label", "input"].map((tag) => document.createElement(tag));
    Object.assign(radio, { type: "radio", name: "method", value: name, checked: name === state.method });
    radio.addEventListener("change", () => {
      state.method = name;
      $("against-label").hidden = name !== "versus";
      attempt(update);
    });
    label.append(radio, ` ${METHODS[name]}`);
    return label;
  }));
}

$("file").addEventListener("change", () => {
  if ($("file").files.length) upload($("file").files[0]);
  $("file").value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
}
$("search").addEventListener("change", () => search($("search").value));
$("layer").addEventListener("input", nameLayer);
$("layer").addEventListener("input", () => attempt(update));
$("against").addEventListener("change", () => attempt(update));
$("compare").addEventListener("change", () => attempt(() => (state.map && $("compare").checked ? compare(state.asked) : draw())));
for (const id of ["opacity", "colors", "negative"]) $(id).addEventListener("input", draw);
$("map").addEventListener("mousemove", (event) => hover(event, $("map"), state.map));
$("other").addEventListener("mousemove", (event) => hover(event, $("other"), state.other));
$("map").addEventListener("click", (event) => attempt(() => classesAt(event)));
attempt(async () => setUp(await ask("/api/model")));
