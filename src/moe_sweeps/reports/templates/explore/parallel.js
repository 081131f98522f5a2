// Parallel coordinates: an axis for each setting and number, a line a run. Dragging along an axis keeps what it covers.

class Parallel {
  constructor(app) {
    this.app = app; this.lines = []; this.axes = []; this.focus = null; this.own = null;
    this.stage = new Stage("The chosen runs across settings and numbers. Arrow up and down go from run to run.", 420);
    Object.assign(this.stage, {draw: () => this.draw(), nearest: (x, y) => this.nearest(x, y), mark: found => this.mark(found),
      picked: found => this.app.details(found.run), key: name => this.key(name), dragged: (from, to, done) => this.brushed(from, to, done)});
    this.legend = make("ul", {class: "legend", "aria-label": "Legend"});
    this.note = make("p", {class: "note", role: "status"});
    this.choose = make("details", {}, make("summary", {}, "Choose the axes"), make("div", {class: "ticks"}));
    this.node = make("div", {}, this.choose, this.stage.node, this.legend, this.note);
  }

  _keys() {
    if (this.own) return this.own;
    const numbers = ["val_maxvio_global", "val_loss"].filter(key => this.app.data.byKey.has(key));
    return [...this.app.varying().filter(column => column.key !== "seed").slice(0, 7).map(column => column.key), ...numbers];
  }

  update() {
    const keys = this._keys();
    const options = this.app.data.columns.filter(column => column.setting || column.number);
    refill(this.choose.lastChild, () => options.map(column => tick(column.title, keys.includes(column.key), on => {
      this.own = on ? [...keys, column.key] : keys.filter(key => key !== column.key);
      this.update();
    })));
    this.axes = keys.map(key => this._axis(this.app.data.byKey.get(key)));
    this.focus = null;
    this.note.textContent = `${this.app.shown.length} runs. Drag along an axis to keep the runs that it covers: the filter above says so, and is where to undo it. A run without a value stands at the foot of an axis.`;
    this.draw();
  }

  _axis(column) {
    const values = this.app.shown.map(run => column.values[run.index]).filter(value => value !== null && value !== undefined);
    if (values.length && values.every(value => typeof value === "number")) {
      const log = isWide(values);
      return {column, scale: new Scale(...extent([values]), log)};
    }
    return {column, words: [...new Set(values)].sort(compareValues)};
  }

  get box() { return {left: 40, right: this.stage.width - 60, top: 34, bottom: this.stage.height - 34}; }

  _at(axis, run) {
    const value = axis.column.values[run.index], {top, bottom} = this.box;
    if (value === null || value === undefined) return bottom + 18;
    if (axis.scale) return axis.scale.range(bottom, top).at(value);
    const count = axis.words.length;
    return count > 1 ? bottom - (bottom - top) * axis.words.indexOf(value) / (count - 1) : (top + bottom) / 2;
  }

  draw() {
    const {stage} = this;
    if (!stage.resize()) return;
    const {left, right} = this.box, paint = stage.below;
    paint.clearRect(0, 0, stage.width, stage.height);
    this.axes.forEach((axis, i) => { axis.x = this.axes.length > 1 ? left + (right - left) * i / (this.axes.length - 1) : (left + right) / 2; });
    this.lines = this.app.shown.map(run => ({run, ys: this.axes.map(axis => this._at(axis, run)), ...this.app.lookOf(run)}));
    const alpha = this.lines.length > 200 ? 0.25 : this.lines.length > 40 ? 0.5 : 0.8;
    for (const line of this.lines) this._stroke(paint, line, 1.4, alpha);
    for (const axis of this.axes) this._drawAxis(paint, axis);
    this.legend.replaceChildren(...legendItems(this.app, this.app.shown));
  }

  _stroke(paint, line, width, alpha) {
    paint.globalAlpha = alpha; paint.strokeStyle = line.colour; paint.lineWidth = width; paint.setLineDash(line.dash);
    paint.beginPath();
    this.axes.forEach((axis, i) => paint.lineTo(axis.x, line.ys[i]));
    paint.stroke();
    paint.setLineDash([]); paint.globalAlpha = 1;
  }

  _drawAxis(paint, axis) {
    const {top, bottom} = this.box;
    paint.strokeStyle = ink("--ink"); paint.lineWidth = 1; paint.font = "11px system-ui, sans-serif";
    paint.beginPath(); paint.moveTo(axis.x, top); paint.lineTo(axis.x, bottom); paint.stroke();
    const words = axis.scale ? ticks(axis.scale.low, axis.scale.high, 5, axis.scale.log).map(v => [axis.scale.at(v), spellTick(v)])
      : axis.words.map((word, i) => [axis.words.length > 1 ? bottom - (bottom - top) * i / (axis.words.length - 1) : (top + bottom) / 2, spell(word)]);
    const room = (this.box.right - this.box.left) / Math.max(1, this.axes.length - 1) - 12;
    paint.textAlign = "left"; paint.textBaseline = "middle";
    for (const [y, word] of words) this._text(paint, word, axis.x + 5, y, Math.max(30, room));
    paint.textAlign = "center"; paint.font = "600 12px system-ui, sans-serif";
    this._text(paint, axis.column.title, Math.max(50, axis.x), 12, Math.max(60, room));
  }

  _text(paint, word, x, y, most) {
    let text = word;
    while (text.length > 3 && paint.measureText(text).width > most) text = `${text.slice(0, -2)}…`;
    paint.lineWidth = 3; paint.strokeStyle = ink("--back"); paint.strokeText(text, x, y);
    paint.fillStyle = ink("--ink"); paint.fillText(text, x, y);
  }

  nearest(x, y) {
    const right = this.axes.findIndex(axis => axis.x >= x);
    if (right < 1) return null;
    let best = null, least = 12;
    for (const line of this.lines) {
      const away = toSegment(x, y, this.axes[right - 1].x, line.ys[right - 1], this.axes[right].x, line.ys[right]);
      if (away < least) { least = away; best = {...line, at: [x, y]}; }
    }
    return best;
  }

  mark(line) {
    this.stage.wipe(); this.focus = line;
    if (!line) { this.stage.hideTip(); return; }
    this._stroke(this.stage.above, {...line, colour: ink("--back")}, 7, 0.9);
    this._stroke(this.stage.above, line, 3, 1);
    this.stage.showTip(this._words(line.run), ...line.at);
  }

  _words(run) {
    return [this.app.nameOf(run), ...this.axes.map(({column}) => `${column.title}: ${spell(column.values[run.index], column.digits)}`)];
  }

  // From which to which value a drag goes becomes a condition of the filter.
  brushed(from, to, done) {
    const axis = this.axes.reduce((a, b) => Math.abs(b.x - from[0]) < Math.abs(a.x - from[0]) ? b : a, this.axes[0]);
    if (!axis) return;
    const [high, low] = [from[1], to[1]].sort((a, b) => a - b);
    if (!done) {
      this.stage.wipe(); this.stage.above.fillStyle = "#7aa2d455"; this.stage.above.fillRect(axis.x - 12, high, 24, low - high);
      return;
    }
    this.app.filterBy(axis.column.key, axis.scale ? this._between(axis, low, high) : this._among(axis, low, high));
  }

  _between(axis, low, high) {
    const key = axis.column.key, {top, bottom} = this.box, found = [];
    axis.scale.range(bottom, top);
    if (low < bottom) found.push(`${key}>=${Number(axis.scale.value(low).toPrecision(5))}`);
    if (high > top) found.push(`${key}<=${Number(axis.scale.value(high).toPrecision(5))}`);
    return found;
  }

  _among(axis, low, high) {
    const kept = axis.words.filter((word, i) => {
      const {top, bottom} = this.box, y = axis.words.length > 1 ? bottom - (bottom - top) * i / (axis.words.length - 1) : (top + bottom) / 2;
      return y >= high - 4 && y <= low + 4;
    });
    return kept.length ? [`${axis.column.key}=${kept.map(quoted).join("|")}`] : [];
  }

  key(name) {
    const by = {ArrowUp: 1, ArrowDown: -1}[name];
    if (name === "Enter" && this.focus) { this.app.details(this.focus.run); return true; }
    if (!by || !this.lines.length) return false;
    const at = this.focus ? this.lines.findIndex(line => line.run === this.focus.run) : -1;
    const line = this.lines[at < 0 ? 0 : (at + by + this.lines.length) % this.lines.length];
    this.mark({...line, at: [this.axes[0].x, line.ys[0]]});
    this.stage.say(this._words(line.run).join(", "));
    return true;
  }
}
