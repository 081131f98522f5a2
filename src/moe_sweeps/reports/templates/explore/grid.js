// A number over two settings as a heat map, which is a table: each cell the mean of the chosen runs with these values.

class Grid {
  constructor(app) {
    this.app = app;
    const [rows, columns] = this._likely();
    this.set = {rows, columns, number: app.data.byKey.has("val_loss") ? "val_loss" : app.data.numbers[0]?.key};
    this.controls = make("div", {class: "controls"});
    this.tip = make("p", {class: "note", role: "status"});
    this.table = make("div", {class: "wrap"});
    this.node = make("div", {}, this.controls, this.table, this.tip);
    this._controls();
  }

  // The settings of the sweep's own grid, or two that vary among the chosen runs, but not the seed.
  _likely() {
    const own = this.app.data.grids[this.app.state.sweep];
    if (own?.every(key => this.app.data.byKey.has(key))) return own;
    const found = this.app.varying().filter(column => column.key !== "seed");
    const all = found.length > 1 ? found : this.app.data.columns.filter(column => column.setting);
    return [all[0]?.key, all[1]?.key ?? all[0]?.key];
  }

  _controls() {
    const settings = this.app.data.columns.filter(column => column.setting).map(column => [column.key, column.title]);
    const numbers = this.app.data.numbers.map(column => [column.key, column.title]);
    const redo = key => value => { this.set[key] = value; this.own = true; this.update(); };
    refill(this.controls, () => [choice("Number", numbers, this.set.number, redo("number")),
      choice("Rows", settings, this.set.rows, redo("rows")), choice("Columns", settings, this.set.columns, redo("columns"))]);
  }

  draw() { this.update(); }

  update() {
    if (!this.own) { [this.set.rows, this.set.columns] = this._likely(); this._controls(); }
    const {data, shown} = this.app, [rows, columns, number] = ["rows", "columns", "number"].map(key => data.byKey.get(this.set[key]));
    if (!rows || !columns || !number) { this.tip.textContent = "There are no settings to compare."; this.table.replaceChildren(); return; }
    const values = column => [...new Set(shown.map(run => column.values[run.index]))].sort(compareValues);
    const [down, across] = [values(rows), values(columns)];
    const cells = down.map(a => across.map(b => this._cell(shown.filter(run => rows.values[run.index] === a && columns.values[run.index] === b), number)));
    const range = extent([cells.flat().map(cell => cell.mean)]);
    const head = make("tr", {}, make("th", {scope: "col"}, `${rows.title} ↓  ${columns.title} →`), ...across.map(b => make("th", {scope: "col", class: "n"}, spell(b))));
    const body = down.map((a, i) => make("tr", {}, make("th", {scope: "row"}, spell(a)), ...cells[i].map(cell => this._shown(cell, number, range, rows, columns))));
    this.table.replaceChildren(make("table", {class: "heat"}, make("caption", {}, `${number.title}: mean of the chosen runs in each cell; lighter is higher`), make("thead", {}, head), make("tbody", {}, ...body)));
    this.tip.textContent = "Point at a cell, or go to it with the tab key, for its runs. Means test nothing; the tables below do.";
  }

  _cell(runs, number) {
    const known = runs.filter(run => typeof number.values[run.index] === "number");
    const values = known.map(run => number.values[run.index]), mean = values.reduce((sum, v) => sum + v, 0) / values.length;
    return {runs, known, values, mean};
  }

  _shown(cell, number, range, rows, columns) {
    if (!cell.known.length) return make("td", {class: "n"}, cell.runs.length ? "none done" : "");
    const share = range[1] > range[0] ? (cell.mean - range[0]) / (range[1] - range[0]) : 0.5, colour = rampColour(share);
    const tell = () => { this.tip.textContent = this._words(cell, number, rows, columns); };
    const found = make("td", {class: "n", tabindex: "0", onpointerenter: tell, onfocus: tell}, spell(cell.mean, number.digits), make("small", {}, ` n=${cell.known.length}`));
    found.style.backgroundColor = `rgb(${colour})`;
    found.style.color = colour[0] * 0.3 + colour[1] * 0.59 + colour[2] * 0.11 > 118 ? "#000" : "#fff";
    return found;
  }

  _words({known, values, mean}, number, rows, columns) {
    const other = this.app.data.columns.filter(column => column.setting && column !== rows && column !== columns && column.key !== "seed"
      && new Set(known.map(run => column.values[run.index])).size > 1).map(column => column.title);
    const spread = values.length > 1 ? `, from ${spell(Math.min(...values), number.digits)} to ${spell(Math.max(...values), number.digits)}` : "";
    const names = known.slice(0, 6).map(run => this.app.nameOf(run)).join("; ");
    return `${number.title} ${spell(mean, number.digits)}${spread}, ${known.length} runs: ${names}${known.length > 6 ? " and others" : ""}.`
      + (other.length ? ` They differ in ${other.join(", ")}, too.` : "");
  }
}
