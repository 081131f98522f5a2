// Curves of the chosen runs over each other: any logged number, by step, tokens or seconds.

const AXES = {step: "step", tokens: "training tokens", seconds: "seconds in training steps"};
const FINAL_PART = "final evaluation";
const MANY = 200;  // curves above which dashes are no help, and cost seconds
const REACH = 28;  // pixels from which a curve is found

class Curves {
  constructor(app) {
    this.app = app;
    this.set = {metric: this._first(), part: "", x: "step", smooth: 0, base: "", logX: false, logY: false};
    this.lines = []; this.focus = null; this.point = 0;
    this.plot = new Plot("Curves of the chosen runs. Arrow up and down choose a curve, left and right a point, plus and minus zoom, 0 shows all.", 440);
    Object.assign(this.plot, {draw: () => this.draw(), nearest: (x, y) => this.nearest(x, y), mark: found => this.mark(found),
      picked: found => this.app.details(found.line.run), key: name => this.key(name) || Plot.prototype.key.call(this.plot, name)});
    this.controls = make("div", {class: "controls"});
    this.note = make("p", {class: "note", role: "status"});
    this.legend = make("ul", {class: "legend", "aria-label": "Legend"});
    this.values = make("details", {class: "values", ontoggle: () => this._table()}, make("summary", {}, "These curves as a table"), make("div", {class: "wrap"}));
    this.node = make("div", {}, this.controls, this.plot.node, this.legend, this.note, this.values);
    this._controls();
  }

  _first() {
    const at = this.app.data.metrics.findIndex(metric => metric.join() === "metrics.jsonl,val,loss");
    return Math.max(0, at);
  }

  metricName(index) {
    const [file, split, name] = this.app.data.metrics[index] ?? ["", "", "nothing was logged"];
    return `${file === "routing.jsonl" ? "routing, " : ""}${split} ${name}`;
  }

  // What the axis says: the words and the unit of the catalogue where it has the number.
  axisName(index) { return this.app.data.axes[index]?.[0] || this.metricName(index); }

  _controls() {
    const set = this.set, redo = (key, parse = value => value) => value => { set[key] = parse(value); this.plot.window = null; this._controls(); this.update(); };
    const groups = new Map();
    this.app.data.metrics.forEach(([file, split], i) => {
      const group = `${file}, ${split}`;
      groups.set(group, [...(groups.get(group) ?? []), [i, this.metricName(i)]]);
    });
    const bases = [["", "nothing"], ...this._bases().map(run => [run.index, this.app.nameOf(run)])];
    const slider = make("input", {type: "range", min: "0", max: "0.99", step: "0.01", value: String(set.smooth), oninput: () => { set.smooth = Number(slider.value); shown.textContent = set.smooth ? slider.value : "off"; this.update(); }});
    const shown = make("output", {}, set.smooth ? String(set.smooth) : "off");
    refill(this.controls, () => [
      choice("Number", [...groups], set.metric, value => { set.part = ""; redo("metric", Number)(value); }),
      ...(this._parts().length ? [choice("Part", [["", "all"], ...this._parts().map(part => [part, part])], set.part, redo("part"))] : []),
      choice("Over", Object.keys(AXES).map(key => [key, key]), set.x, redo("x")),
      choice("Difference to", bases, set.base, redo("base")),
      field(["Smoothing ", shown], slider),
      tick("log x", set.logX, redo("logX")), tick("log y", set.logY, redo("logY")),
      this.plot.buttons(), button("The end alone", () => this._end())]);
  }

  // Parts of the metric that are more than a final evaluation: roles, layers, experts.
  _parts() {
    const {curves, parts} = this.app.data;
    this.partsOf ??= new Map();
    if (!this.partsOf.has(this.set.metric)) {
      const found = new Set(curves.filter(curve => curve.metric === this.set.metric).map(curve => parts[curve.part]));
      this.partsOf.set(this.set.metric, [...found].filter(part => part && part !== FINAL_PART));
    }
    return this.partsOf.get(this.set.metric);
  }

  // The last 60% of training, where runs differ.
  _end() {
    const found = extent(this.lines.map(line => line.x));
    if (found) this.plot.zoom({x: [found[0] + 0.4 * (found[1] - found[0]), found[1]], y: null});
  }

  // Runs with curves that match the filter, and the baseline whether it does or not.
  _bases() {
    const {data, match} = this.app, found = match.filter(run => data.byRun.has(run.index)), base = data.runs[Number(this.set.base || NaN)];
    return base && !found.includes(base) ? [base, ...found] : found;
  }

  update() {
    const matching = `${this.app.state.sweep} ${this.app.state.query}`;
    if (matching !== this.matching) { this.matching = matching; this._controls(); }
    this.focus = null; this._build(); this.draw(); this._table();
  }

  _build() {
    const {data} = this.app, set = this.set;
    this.lines = [];
    const without = {metric: 0, axis: 0, base: 0};
    for (const run of this.app.shown) {
      const curves = (data.byRun.get(run.index)?.get(set.metric) ?? []).filter(curve => !set.part || data.parts[curve.part] === set.part);
      if (!curves.length) without.metric++;
      for (const curve of curves) {
        const line = this._line(run, curve);
        if (line === null) without.axis++;
        else if (set.base === "") this.lines.push(line);
        else if (this._subtract(line)) this.lines.push(line); else without.base++;
      }
    }
    this._say(without);
  }

  _line(run, curve) {
    const {data} = this.app, x = data.along(curve, this.set.x);
    if (x === null) return null;
    const part = data.parts[curve.part], dots = part === FINAL_PART;
    const factor = data.axes[curve.metric]?.[1] ?? 1, values = data.values(curve), shown = factor === 1 ? values : values.map(value => value * factor);
    return {run, curve, x, part, dots, at: {px: new Float32Array(x.length), py: new Float32Array(x.length)}, y: smoothed(shown, dots ? 0 : this.set.smooth)};
  }

  // The difference to the same part of the baseline, linear between its points; false where that has none.
  _subtract(line) {
    const {data} = this.app, base = data.runs[Number(this.set.base)];
    const found = data.byRun.get(base.index)?.get(this.set.metric)?.find(curve => curve.part === line.curve.part);
    const other = found && this._line(base, found);
    if (!other) return false;
    line.y = Float64Array.from(line.y, (value, i) => value - interpolate(other.x, other.y, line.x[i]));
    return true;
  }

  _say(without) {
    const runs = new Set(this.lines.map(line => line.run)).size, curves = this.lines.filter(line => !line.dots).length;
    const parts = [`${runs} ${runs === 1 ? "run" : "runs"}, ${curves} ${curves === 1 ? "curve" : "curves"}.`];
    if (this.lines.some(line => line.dots)) parts.push("Large points: the final evaluation, on more windows than those on the way; it is the tables' number.");
    if (without.metric) parts.push(`${without.metric} chosen without this number.`);
    if (without.axis) parts.push(`${without.axis} curves without ${this.set.x}.`);
    if (without.base) parts.push(`${without.base} curves that the baseline has not.`);
    if (this.set.base !== "") parts.push("Below 0: lower than the baseline. Differences of single curves test nothing.");
    const low = this.set.logY ? this._placeless() : 0;
    if (low) parts.push(`${low} ${low === 1 ? "value ≤ 0 has" : "values ≤ 0 have"} no place on a log axis.`);
    if (this.set.smooth) parts.push("Smoothed: what you see is not what was logged.");
    if (this.set.x === "seconds") parts.push("Between evaluations seconds are taken to pass evenly.");
    this.note.textContent = parts.join(" ");
  }

  // How many values a logarithmic axis has no place for.
  _placeless() { return this.lines.reduce((sum, line) => sum + line.y.reduce((count, value) => count + (value <= 0), 0), 0); }

  draw() {
    const {plot, set} = this;
    if (!plot.resize()) return;
    for (const line of this.lines) Object.assign(line, this.app.lookOf(line.run));  // dark or light
    const x = plot.window?.x ?? this._whole();
    const y = x && (plot.window?.y ?? this._fitted(x));
    if (!y) { this._nothing(); return; }
    const name = this.axisName(set.metric);
    const title = `${set.base === "" ? "" : "difference to the baseline: "}${name}${set.part ? `, ${set.part}` : ""}`;
    plot.frame(new Scale(...x, set.logX && x[0] > 0), new Scale(...y, set.logY && y[0] > 0), [AXES[set.x], title]);
    const many = this.lines.length > MANY, alpha = many ? 0.5 : this.lines.length > 60 ? 0.6 : 1;
    plot.clipped(plot.below, () => { for (const line of this.lines) this._stroke(plot.below, many ? {...line, dash: []} : line, many ? 1 : 1.4, alpha); });
    this._legend(many);
  }

  // All of training, with room for the points at its end.
  _whole() {
    const found = extent(this.lines.map(line => line.x), this.set.logX);
    return found && (this.set.logX && found[0] > 0 ? found : [found[0], found[1] + 0.012 * (found[1] - found[0])]);
  }

  _nothing() {
    this.plot.x = null;
    this.plot.below.clearRect(0, 0, this.plot.width, this.plot.height);
    this.plot.below.fillStyle = ink("--dim"); this.plot.below.font = "14px system-ui, sans-serif"; this.plot.below.textAlign = "center";
    const why = !this.lines.length ? "No chosen run has this number." : this.set.logY && this._placeless() ? "No value > 0: a log axis has no place for the others." : "No value lies here.";
    this.plot.below.fillText(why, this.plot.width / 2, this.plot.height / 2);
    this.legend.replaceChildren();
  }

  // From where to where the curves go between these x, with a margin.
  _fitted(x) {
    const inside = this.lines.map(line => Array.prototype.slice.call(line.y, lowerBound(line.x, x[0]), lowerBound(line.x, x[1] * (1 + 1e-12)) + 1));
    const found = extent(inside, this.set.logY);
    if (!found) return null;
    if (this.set.logY && found[0] > 0) return [found[0] / 1.05, found[1] * 1.05];
    const margin = 0.04 * (found[1] - found[0]);
    return [found[0] - margin, found[1] + margin];
  }

  _stroke(paint, line, width, alpha) {
    const {x: across, y: up} = this.plot, count = line.x.length;
    for (let i = 0; i < count; i++) { line.at.px[i] = across.at(line.x[i]); line.at.py[i] = up.at(line.y[i]); }
    paint.globalAlpha = alpha; paint.strokeStyle = paint.fillStyle = line.colour; paint.lineWidth = width; paint.setLineDash(line.dash);
    paint.lineJoin = this.lines.length > MANY ? "bevel" : "round";
    paint.beginPath();
    const alone = [];  // points that no line leads to or from
    let length = 0;  // of a piece without gaps, so far
    for (let i = 0; i < count; i++) {
      if (!hasPlace(line, i)) { if (length === 1) alone.push(i - 1); length = 0; continue; }
      if (length++) paint.lineTo(line.at.px[i], line.at.py[i]); else paint.moveTo(line.at.px[i], line.at.py[i]);
    }
    if (length === 1) alone.push(count - 1);
    paint.stroke();
    this._dots(paint, line, line.dots ? line.at.px.keys() : alone, width + (line.dots ? 3 : 1));
    paint.setLineDash([]); paint.globalAlpha = 1;
  }

  _dots(paint, line, places, radius) {
    for (const i of places) {
      if (!hasPlace(line, i)) continue;
      paint.beginPath(); paint.arc(line.at.px[i], line.at.py[i], radius, 0, 7); paint.fill();
    }
  }

  // The curve and point next to a place on the plot.
  nearest(x, y) {
    let best = null, least = REACH;
    for (const line of this.plot.x ? this.lines : []) {
      for (let i = Math.max(1, lowerBound(line.at.px, x - REACH)); i < line.at.px.length && line.at.px[i - 1] <= x + REACH; i++) {
        const away = toSegment(x, y, line.at.px[i - 1], line.at.py[i - 1], line.at.px[i], line.at.py[i]);
        if (away < least) { least = away; best = {line, point: !hasPlace(line, i) || (hasPlace(line, i - 1) && x - line.at.px[i - 1] < line.at.px[i] - x) ? i - 1 : i}; }
      }
      const first = Math.hypot(x - line.at.px[0], y - line.at.py[0]);
      if (first < least) { least = first; best = {line, point: 0}; }
    }
    return best;
  }

  mark(found) {
    this.plot.wipe();
    this.focus = found;
    if (!found || !this.plot.x) { this.plot.hideTip(); return; }
    const {line, point} = found, paint = this.plot.above;
    this.plot.clipped(paint, () => {
      const halo = {...line, colour: ink("--back")};
      this._stroke(paint, halo, 7, 0.9); this._stroke(paint, line, 3, 1);
      paint.fillStyle = line.colour;
      if (hasPlace(line, point)) { paint.beginPath(); paint.arc(line.at.px[point], line.at.py[point], 5, 0, 7); paint.fill(); }
    });
    this.plot.showTip(this._words(found), line.at.px[point], line.at.py[point]);
  }

  _words({line, point}) {
    return [this.app.nameOf(line.run), `${line.part ? `${line.part}: ` : ""}${spell(line.y[point])}`, `${AXES[this.set.x]} ${spell(Number(line.x[point].toPrecision(this.set.x === "seconds" ? 4 : 9)))}`, line.run.state];
  }

  key(name) {
    const move = {ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]}[name];
    if (name === "Enter" && this.focus) { this.app.details(this.focus.line.run); return true; }
    if (!move || !this.lines.length) return false;
    const at = this.focus ? this.lines.indexOf(this.focus.line) : -1;
    const line = this.focus && move[1] ? this.focus.line : this.lines[(at + move[0] + this.lines.length) % this.lines.length] ?? this.lines[0];
    const point = this.focus?.line === line ? this.focus.point + move[1] : line.x.length - 1;
    this.mark({line, point: Math.min(line.x.length - 1, Math.max(0, point))});
    this.plot.say(this._words(this.focus).join(", "));
    return true;
  }

  _legend(solid) { this.legend.replaceChildren(...legendItems(this.app, this.lines.map(line => line.run), false, solid)); }

  // Some points of the curves for those who read rather than look.
  _table() {
    if (!this.values.open) return;
    const lines = this.lines.filter(line => !line.dots).slice(0, 20), found = extent(lines.map(line => line.x));
    const at = found ? Array.from({length: 9}, (_, i) => found[0] + i * (found[1] - found[0]) / 8) : [];
    const head = make("tr", {}, make("th", {scope: "col"}, "run"), ...at.map(x => make("th", {scope: "col", class: "n"}, `${this.set.x} ${spell(Math.round(x))}`)));
    const rows = lines.map(line => make("tr", {}, make("th", {scope: "row"}, `${this.app.nameOf(line.run)} ${line.part}`),
      ...at.map(x => make("td", {class: "n"}, spell(Number(interpolate(line.x, line.y, x).toPrecision(6)))))));
    const more = this.lines.filter(line => !line.dots).length - lines.length;
    this.values.querySelector(".wrap").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)),
      ...(more > 0 ? [make("p", {class: "note"}, `${more} more curves: choose fewer runs to see them here.`)] : []));
  }
}

// Whether a point of a line can be drawn: a gap, and what a log axis has no place for, cannot.
function hasPlace(line, i) { return isFinite(line.at.px[i]) && isFinite(line.at.py[i]); }

// How far a place is from a piece of a line; where one end cannot be drawn, from the other one.
function toSegment(x, y, x0, y0, x1, y1) {
  const [first, second] = [isFinite(x0) && isFinite(y0), isFinite(x1) && isFinite(y1)];
  if (!first && !second) return Infinity;
  if (!first) return Math.hypot(x - x1, y - y1);
  if (!second) return Math.hypot(x - x0, y - y0);
  const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
  const share = length ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
  return Math.hypot(x - x0 - share * dx, y - y0 - share * dy);
}
