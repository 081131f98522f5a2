// Small things that all parts of the explorer use: elements, numbers as text, scales, colours.

// An element; texts become text nodes, so that no name is ever markup.
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name in found && name !== "list" && typeof value !== "string") found[name] = value;
    else found.setAttribute(name, value);
  }
  found.append(...children);
  return found;
}

// A control with its label; `choices`: [value, text] or [group, [[value, text], ...]].
function choice(text, choices, value, onchange) {
  const option = ([key, name]) => make("option", {value: String(key)}, name);
  const select = make("select", {onchange: () => onchange(select.value)}, ...choices.map(
    ([key, inner]) => Array.isArray(inner) ? make("optgroup", {label: key}, ...inner.map(option)) : option([key, inner])));
  select.value = String(value);
  return field(text, select);
}

// A control below its name.
let fields = 0;
function field(name, control, more = {}) {
  control.id = `explore-${++fields}`;
  return make("div", {class: "field", ...more}, make("label", {for: control.id}, ...[name].flat()), control);
}

// New content, with the keyboard where it was: on the control of the same place. `build` makes it, since a control that
// is used again leaves its old place then.
function refill(host, build) {
  const controls = () => [...host.querySelectorAll("select, input, button, summary")];
  const at = controls().indexOf(document.activeElement);
  host.replaceChildren(...build());
  if (at >= 0) controls()[at]?.focus();
}

function tick(text, checked, onchange) {
  const box = make("input", {type: "checkbox", checked, onchange: () => onchange(box.checked)});
  return make("label", {class: "tick"}, box, text);
}

function button(text, onclick, attributes = {}) {
  return make("button", {type: "button", onclick, ...attributes}, text);
}

function spell(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "string") return value;
  if (digits !== undefined) return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-5 || size >= 1e7)) return value.toExponential(3).replace(/\.?0+e/, "e");
  return size >= 1e4 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(6)));
}

const compact = new Intl.NumberFormat("en", {notation: "compact", maximumSignificantDigits: 4});
const spellTick = value => Math.abs(value) >= 1e4 ? compact.format(value) : spell(Number(value.toPrecision(10)));

// Round values between low and high, about `count` of them.
function ticks(low, high, count, log) {
  if (log) {
    const found = [];
    const steps = Math.log10(high / low) < 3 ? [1, 2, 5] : [1];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of steps) found.push(step * 10 ** power);
    }
    const inside = found.filter(value => value >= low * 0.9999 && value <= high * 1.0001);
    if (inside.length > 1) return inside.filter((_, i) => i % Math.ceil(inside.length / (count + 1)) === 0);
  }
  const rough = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(each => each * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i <= Math.floor(high / step + 1e-9); i++) found.push(i * step);
  return found;
}

// From values to pixels; `to` may turn round.
class Scale {
  constructor(low, high, log = false) {
    if (!(high > low)) [low, high] = log ? [low * 0.9, low * 1.1] : [low - (Math.abs(low) * 0.05 || 1), low + (Math.abs(low) * 0.05 || 1)];
    this.low = low; this.high = high; this.log = log; this.from = 0; this.to = 1;
  }
  range(from, to) { this.from = from; this.to = to; return this; }
  share(value) {
    return this.log ? Math.log(value / this.low) / Math.log(this.high / this.low) : (value - this.low) / (this.high - this.low);
  }
  at(value) { return this.from + (this.to - this.from) * this.share(value); }
  value(pixel) {
    const share = (pixel - this.from) / (this.to - this.from);
    return this.log ? this.low * (this.high / this.low) ** share : this.low + share * (this.high - this.low);
  }
}

// The smallest and the largest finite number; of logarithms the smallest above 0.
function extent(lists, log = false) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) {
    for (const value of list) {
      if (value < low && (!log || value > 0)) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high && isFinite(low) && isFinite(high) ? [low, high] : null;
}

// Numbers of one sign over more than one and a half decades are read on a logarithmic axis.
const isWide = list => { const found = extent([list]); return found !== null && found[0] > 0 && found[1] / found[0] > 30; };

const LIGHT = ["#0b62a4", "#c4510c", "#1b7f3b", "#a3238e", "#6b4fbb", "#8a6d00", "#00788a", "#b3261e", "#4f4f4f", "#3d6d00"];
const DARK = ["#6db3f2", "#ff9f59", "#6fd08c", "#f08be0", "#b9a5ff", "#e3c341", "#5fd0e0", "#ff8a80", "#c4c4c4", "#a8d46a"];
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // lighter all the way

function rampColour(share) {
  const place = Math.min(1, Math.max(0, share)) * (RAMP.length - 1), i = Math.min(RAMP.length - 2, Math.floor(place));
  return RAMP[i].map((value, channel) => Math.round(value + (place - i) * (RAMP[i + 1][channel] - value)));
}

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

// Colour, dash and shape of a group by its place among the groups. Neighbours differ in all three; ten colours with four
// dashes and shapes make 40 looks, since after 20, where both begin again, the dashes are moved on by one.
function look(place) {
  const palette = isDark() ? DARK : LIGHT, shape = (place + Math.floor(place / 20)) % DASHES.length;
  return {colour: palette[place % palette.length], dash: DASHES[shape], shape};
}

// The corners of a mark around (x, y); none for a circle.
function corners(shape, x, y, size) {
  const count = [0, 4, 3, 5][shape], turn = shape === 1 ? Math.PI / 4 : -Math.PI / 2;
  return Array.from({length: count}, (_, i) => turn + i * 2 * Math.PI / count).map(angle => [x + 1.25 * size * Math.cos(angle), y + 1.25 * size * Math.sin(angle)]);
}

function drawn(tag, attributes) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  return found;
}

// What a group looks like: a piece of its line, or its mark.
function swatch({colour, dash, shape}, marks = false) {
  const found = drawn("svg", {width: 26, height: 12, "aria-hidden": "true"});
  if (!marks) found.append(drawn("line", {x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash.join(" ") || "none"}));
  else if (shape) found.append(drawn("polygon", {points: corners(shape, 13, 6, 4.5).join(" "), fill: colour}));
  else found.append(drawn("circle", {cx: 13, cy: 6, r: 5, fill: colour}));
  return found;
}

// Groups of these runs with what they look like; `solid`: lines are drawn without dashes.
function legendItems(app, runs, marks = false, solid = false) {
  const groups = new Map(runs.map(run => [app.groupOf(run), run])), most = 24;
  const shown = run => ({...app.lookOf(run), ...(solid ? {dash: []} : {})});
  const items = [...groups].slice(0, most).map(([name, run]) => make("li", {}, swatch(shown(run), marks), name));
  return groups.size > most ? [...items, make("li", {}, `and ${groups.size - most} more`)] : items;
}

function ink(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
