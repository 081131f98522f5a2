// Two numbers of the chosen runs against each other, a point a run.

class Tradeoff {
  constructor(app) {
    this.app = app; this.points = []; this.focus = null;
    const key = name => (app.data.byKey.has(name) ? name : app.numeric()[0]?.key);
    this.set = {x: key("val_maxvio_global"), y: key("val_loss")};
    this.plot = new Plot("Two numbers of the chosen runs against each other. Arrow keys go from run to run, plus and minus zoom, 0 shows all.", 440);
    Object.assign(this.plot, {draw: () => this.draw(), nearest: (x, y) => this.nearest(x, y), mark: found => this.mark(found),
      picked: found => this.app.details(found.run), key: name => this.key(name) || Plot.prototype.key.call(this.plot, name)});
    this.legend = make("ul", {class: "legend", "aria-label": "Legend"});
    this.note = make("p", {class: "note", role: "status"});
    const options = app.numeric().map(column => [column.key, column.title]);
    const redo = name => value => { this.set[name] = value; this.plot.window = null; this.update(); };
    this.node = make("div", {}, make("div", {class: "controls"}, choice("Across", options, this.set.x, redo("x")), choice("Up", options, this.set.y, redo("y")), this.plot.buttons()),
      this.plot.node, this.legend, this.note);
  }

  update() {
    const [x, y] = [this.set.x, this.set.y].map(key => this.app.data.byKey.get(key)?.values ?? []);
    this.points = this.app.shown.map(run => ({run, x: x[run.index], y: y[run.index]})).filter(p => typeof p.x === "number" && typeof p.y === "number");
    this.focus = null;
    const left = this.app.shown.length - this.points.length;
    this.note.textContent = `${this.points.length} runs.${left ? ` ${left} chosen without both numbers.` : ""} The table of runs below has the numbers.`;
    this.draw();
  }

  _scale(name) {
    const values = this.points.map(point => point[name]), log = isWide(values);
    const [low, high] = this.plot.window?.[name] ?? extent([values]) ?? [0, 1], margin = this.plot.window?.[name] ? 0 : 0.05;
    const grow = log ? (high / low) ** margin : margin * (high - low);
    return log ? new Scale(low / grow, high * grow, true) : new Scale(low - grow, high + grow);
  }

  draw() {
    const {plot} = this;
    if (!plot.resize()) return;
    const title = key => { const column = this.app.data.byKey.get(key); return column ? column.axis ?? column.title : ""; };
    plot.frame(this._scale("x"), this._scale("y"), [title(this.set.x), title(this.set.y)]);
    plot.clipped(plot.below, () => {
      for (const point of this.points) { point.px = plot.x.at(point.x); point.py = plot.y.at(point.y); this._dot(plot.below, point, 5, 0.75); }
    });
    this.legend.replaceChildren(...legendItems(this.app, this.points.map(point => point.run), true));
  }

  // Groups differ in their shape, too: as in curves a colour comes again with another one.
  _dot(paint, {run, px, py}, size, alpha) {
    const {colour, shape} = this.app.lookOf(run);
    paint.globalAlpha = alpha; paint.fillStyle = colour; paint.beginPath();
    if (shape === 0) paint.arc(px, py, size, 0, 7);
    else for (const corner of corners(shape, px, py, size)) paint.lineTo(...corner);
    paint.fill(); paint.globalAlpha = 1;
  }

  nearest(x, y) {
    let best = null, least = REACH;
    for (const point of this.points) {
      const away = Math.hypot(x - point.px, y - point.py);
      if (away < least) { least = away; best = point; }
    }
    return best;
  }

  mark(point) {
    this.plot.wipe(); this.focus = point;
    if (!point) { this.plot.hideTip(); return; }
    this._dot(this.plot.above, point, 9, 1);
    this.plot.showTip(this._words(point), point.px, point.py);
  }

  _words({run, x, y}) {
    const named = (key, value) => { const column = this.app.data.byKey.get(key); return `${column.title} ${spell(value, column.digits)}`; };
    return [this.app.nameOf(run), named(this.set.y, y), named(this.set.x, x), run.state];
  }

  key(name) {
    const by = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[name];
    if (name === "Enter" && this.focus) { this.app.details(this.focus.run); return true; }
    if (!by || !this.points.length) return false;
    const order = [...this.points].sort((a, b) => a.x - b.x), at = order.indexOf(this.focus);
    this.mark(order[at < 0 ? 0 : (at + by + order.length) % order.length]);
    this.plot.say(this._words(this.focus).join(", "));
    return true;
  }
}
