// What reports/explore/pack.py packed: runs with columns of settings and numbers, and curves.
// Whatever it holds is text or a number; it is set as textContent alone.

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return new Data(head, new Uint8Array(buffer, 4 + length));
}

class Data {
  constructor(head, planes) {
    Object.assign(this, head);
    this.planes = planes;
    this.runs.forEach((run, index) => { run.index = index; run.arms = new Map(run.arms); });
    this.columns = this._columns();
    this.byKey = new Map(this.columns.map(column => [column.key, column]));
    this.curves = this._curves();
    this.byRun = new Map();  // run -> metric -> its curves
    for (const curve of this.curves) {
      const metrics = this.byRun.get(curve.run) ?? new Map();
      this.byRun.set(curve.run, metrics.set(curve.metric, [...(metrics.get(curve.metric) ?? []), curve]));
    }
    this.seconds = this.metrics.findIndex(([file, split, name]) => file === "metrics.jsonl" && split === "val" && name === "train_seconds");
    this.clocks = new Map();
  }

  _columns() {
    const of = (key, values, more = {}) => ({key, title: key, values, ...more});
    const runs = this.runs;
    return [
      of("run", runs.map(run => run.id)), of("state", runs.map(run => run.state)),
      ...this.settings.map(each => of(each.key, each.values, {setting: true})),
      ...(this.settings.some(each => each.key === "seed") ? [] : [of("seed", runs.map(run => run.seed), {setting: true})]),
      ...this.numbers.map(each => of(each.key, each.values, {...each, number: true})),
    ];
  }

  _curves() {
    const {metric, part, run, steps, low, high, log} = this.series;
    let start = 0;
    return metric.map((_, i) => {
      const curve = {metric: metric[i], part: part[i], run: run[i], steps: this.steps[steps[i]], low: low[i], high: high[i], log: log[i], start};
      start += curve.steps.length;
      return curve;
    });
  }

  // The values of a curve, NaN where it has none; unpacked when they are first asked for.
  values(curve) {
    if (!curve.values) {
      const {start, low, high, log, steps} = curve, half = this.planes.length / 2;
      const zero = !log && low < 0 && high > 0 ? (high - low) / 65534 / 2 : 0;  // what is as close as this was rounded from 0
      curve.values = new Float64Array(steps.length);
      for (let i = 0, level = 0; i < steps.length; i++) {
        level = (level + (this.planes[start + i] << 8) + this.planes[half + start + i]) & 65535;
        const value = low + (high - low) * (level / 65534);
        curve.values[i] = level === 65535 ? NaN : log ? Math.exp(value) : Math.abs(value) < zero ? 0 : value;
      }
    }
    return curve.values;
  }

  // The x of a curve by step, tokens or seconds of training; null where the run does not know it.
  along(curve, axis) {
    if (axis === "step") return curve.steps;
    const perStep = this.runs[curve.run].perStep;
    if (axis === "tokens") return perStep ? Float64Array.from(curve.steps, step => step * perStep) : null;
    const clock = this._clock(curve.run);
    return clock && Float64Array.from(curve.steps, step => interpolate(clock.x, clock.y, step));
  }

  // Seconds at the evaluations of a run; between them time is taken to pass evenly.
  _clock(run) {
    if (!this.clocks.has(run)) {
      const points = [[0, 0]];
      for (const curve of this.byRun.get(run)?.get(this.seconds) ?? []) {
        this.values(curve).forEach((value, i) => points.push([curve.steps[i], value]));
      }
      points.sort((a, b) => a[0] - b[0]);
      this.clocks.set(run, points.length < 2 ? null : {x: points.map(p => p[0]), y: points.map(p => p[1])});
    }
    return this.clocks.get(run);
  }
}

// y at `at` on the line through the points (x, y), x ascending; NaN outside of them.
function interpolate(x, y, at) {
  if (!x.length || at < x[0] || at > x[x.length - 1]) return NaN;
  const right = lowerBound(x, at);
  if (x[right] === at) return y[right];
  const share = (at - x[right - 1]) / (x[right] - x[right - 1]);
  return y[right - 1] + share * (y[right] - y[right - 1]);
}

// The first place in ascending `x` that is not below `value`.
function lowerBound(x, value) {
  let low = 0, high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

// A mean that forgets: weight `keep` for what was before, without a bias towards the start.
function smoothed(values, keep) {
  if (!keep) return values;
  let mean = 0, weight = 0;
  return Float64Array.from(values, value => {
    if (isNaN(value)) return NaN;
    mean = keep * mean + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return mean / weight;
  });
}
