// A canvas with a second one above it for what the pointer shows, a tooltip, and what a screen reader is told.

class Stage {
  constructor(label, height) {
    this.base = make("canvas", {"aria-hidden": "true"});
    this.over = make("canvas", {role: "application", tabindex: "0", "aria-label": label, "aria-roledescription": "chart"});
    this.tip = make("div", {class: "tip", hidden: true});
    this.said = make("p", {class: "said", "aria-live": "polite"});
    this.host = make("div", {class: "stage"}, this.base, this.over, this.tip);
    this.node = make("div", {}, this.host, this.said);
    this.height = height;
    this.drag = null;
    new ResizeObserver(() => { if (this.host.clientWidth && this.host.clientWidth !== this.width) this.draw(); }).observe(this.host);
    this.over.addEventListener("pointermove", event => this._moved(event));
    this.over.addEventListener("pointerdown", event => this._pressed(event));
    this.over.addEventListener("pointerup", event => this._released(event));
    this.over.addEventListener("pointercancel", () => { this.drag = null; this.mark(null); });
    this.over.addEventListener("pointerleave", () => { if (!this.drag) this.mark(null); });
    this.over.addEventListener("keydown", event => { if (!event.ctrlKey && !event.metaKey && !event.altKey && this.key(event.key)) event.preventDefault(); });
    this.over.addEventListener("blur", () => this.mark(null));
  }

  // Both canvases in the size of the page, at the resolution of the screen; false where there is no room yet.
  resize() {
    this.width = this.host.clientWidth;
    if (!this.width) return false;
    const ratio = devicePixelRatio || 1;
    this.host.style.height = `${this.height}px`;
    for (const canvas of [this.base, this.over]) {
      const [width, height] = [this.width, this.height].map(size => Math.round(size * ratio));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
      canvas.getContext("2d").clearRect(0, 0, this.width, this.height);
    }
    return true;
  }

  get below() { return this.base.getContext("2d"); }
  get above() { return this.over.getContext("2d"); }
  wipe() { this.above.clearRect(0, 0, this.width, this.height); }

  place(event) {
    const box = this.over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  _moved(event) {
    const [x, y] = this.place(event);
    if (this.drag) { this.dragged(this.drag, [x, y], false); return; }
    this.mark(this.nearest(x, y));
  }
  _pressed(event) {
    if (event.button !== 0) return;
    this.drag = this.place(event);
    this.over.setPointerCapture(event.pointerId);
  }
  _released(event) {
    const start = this.drag, [x, y] = this.place(event);
    this.drag = null;
    if (!start) return;
    if (Math.hypot(x - start[0], y - start[1]) > 6) { this.wipe(); this.dragged(start, [x, y], true); return; }
    const found = this.nearest(x, y);
    this.mark(found);
    if (found) this.picked(found);
  }

  // The tooltip beside a point, within the stage.
  showTip(lines, x, y) {
    this.tip.replaceChildren(...lines.map((line, i) => make(i ? "div" : "strong", {}, line)));
    this.tip.hidden = false;
    const left = x + 14 + this.tip.offsetWidth > this.width ? x - 14 - this.tip.offsetWidth : x + 14;
    this.tip.style.left = `${Math.max(0, Math.min(left, this.width - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${Math.max(0, Math.min(y - 10, this.height - this.tip.offsetHeight))}px`;
  }
  hideTip() { this.tip.hidden = true; }
  say(text) { this.said.textContent = text; }

  // What a kind of chart adds.
  draw() {}
  nearest() { return null; }
  mark() {}
  picked() {}
  dragged() {}
  key() { return false; }
}

// A stage with two axes and a window into them that can be made smaller and larger.
class Plot extends Stage {
  constructor(label, height) {
    super(label, height);
    this.window = null;  // {x: [low, high], y: [low, high] or null (fitted)}
    this.over.addEventListener("dblclick", () => this.zoom(null));
  }

  get box() { return {left: 62, right: this.width - 14, top: 10, bottom: this.height - 44}; }

  frame(x, y, titles) {
    const {left, right, top, bottom} = this.box, paint = this.below;
    this.x = x.range(left, right); this.y = y.range(bottom, top);
    paint.clearRect(0, 0, this.width, this.height);
    paint.font = "12px system-ui, sans-serif"; paint.lineWidth = 1;
    paint.textAlign = "center"; paint.textBaseline = "top";
    for (const value of ticks(x.low, x.high, Math.max(2, (right - left) / 110), x.log)) {
      this._line(x.at(value), top, x.at(value), bottom);
      paint.fillStyle = ink("--dim"); paint.fillText(spellTick(value), x.at(value), bottom + 6);
    }
    paint.textAlign = "right"; paint.textBaseline = "middle";
    for (const value of ticks(y.low, y.high, Math.max(2, (bottom - top) / 55), y.log)) {
      this._line(left, y.at(value), right, y.at(value));
      paint.fillStyle = ink("--dim"); paint.fillText(spellTick(value), left - 7, y.at(value));
    }
    paint.fillStyle = ink("--ink"); paint.textAlign = "center"; paint.textBaseline = "bottom";
    paint.fillText(titles[0], (left + right) / 2, this.height - 4, right - left);
    paint.save(); paint.translate(12, (top + bottom) / 2); paint.rotate(-Math.PI / 2);
    paint.textBaseline = "middle"; paint.fillText(titles[1], 0, 0, bottom - top); paint.restore();
  }

  _line(x0, y0, x1, y1) {
    const paint = this.below;
    paint.strokeStyle = ink("--grid");
    paint.beginPath(); paint.moveTo(x0, y0); paint.lineTo(x1, y1); paint.stroke();
  }

  // Draw within the axes alone.
  clipped(paint, draw) {
    const {left, right, top, bottom} = this.box;
    paint.save(); paint.beginPath(); paint.rect(left, top, right - left, bottom - top); paint.clip();
    draw(); paint.restore();
  }

  // Without an argument the whole picture again.
  zoom(found) { this.window = found; this.hideTip(); this.draw(); this.zoomed?.(); }

  // Half or twice of what is seen, around its middle.
  scale(factor) {
    const around = scale => {
      const {left, right} = this.box, middle = scale === this.x ? (left + right) / 2 : (this.box.top + this.box.bottom) / 2;
      const ends = [scale.from, scale.to].map(end => scale.value(middle + (end - middle) * factor));
      return ends;
    };
    if (this.x) this.zoom({x: around(this.x), y: around(this.y)});
  }

  dragged(from, to, done) {
    const {left, right, top, bottom} = this.box;
    const flat = Math.abs(to[1] - from[1]) < 14;
    const xs = [from[0], to[0]].map(v => Math.min(right, Math.max(left, v))).sort((a, b) => a - b);
    const ys = flat ? [top, bottom] : [from[1], to[1]].map(v => Math.min(bottom, Math.max(top, v))).sort((a, b) => a - b);
    if (done && this.x && xs[1] - xs[0] > 4) {
      this.zoom({x: xs.map(v => this.x.value(v)), y: flat ? null : [this.y.value(ys[1]), this.y.value(ys[0])]});
    } else if (!done) {
      this.wipe(); this.hideTip();
      this.above.fillStyle = "#7aa2d455"; this.above.fillRect(xs[0], ys[0], xs[1] - xs[0], ys[1] - ys[0]);
    }
  }

  key(name) {
    if (name === "+" || name === "=") this.scale(0.5);
    else if (name === "-") this.scale(2);
    else if (name === "0") this.zoom(null);
    else return false;
    return true;
  }

  buttons() {
    return make("span", {class: "buttons", role: "group", "aria-label": "Zoom"},
      button("Zoom in", () => this.scale(0.5)), button("Zoom out", () => this.scale(2)), button("Whole", () => this.zoom(null)));
  }
}
