// The explorer as a whole: the filter, the table of runs, and the chart that is open. Everything follows from `state`.

const MOST_ROWS = 100;  // of the table before a reader asks for all

class App {
  constructor(data, host) {
    this.data = data;
    this.state = {sweep: data.sweeps.length ? String(data.first) : "", query: "", colour: "arm", tab: "Curves", hidden: new Set(), sort: null, all: false};
    this.host = host;
    this.query = make("input", {type: "search", spellcheck: false, autocomplete: "off", placeholder: "aux.coef=0.1|0.2  val_loss<4.2  state=failed", "aria-describedby": "explore-problem",
      oninput: () => { this.state.query = this.query.value; this.update(); }});
    this.problem = make("p", {id: "explore-problem", class: "warning", role: "alert"});
    this.head = make("div", {class: "controls"});
    this.count = make("p", {class: "note", role: "status"});
    this.table = make("div", {class: "wrap runs", tabindex: "0", role: "region", "aria-label": "Runs"});
    this.facts = make("div", {class: "facts", role: "status"});
    this.tabs = make("div", {class: "tabs", role: "tablist", "aria-label": "Charts"});
    this.panel = make("div", {role: "tabpanel", id: "explore-panel"});
    this.match = this.shown = data.runs; this.looks = new Map();
    this.choose();
    this.charts = {"Curves": new Curves(this), "Trade-off": new Tradeoff(this), "Heat map": new Grid(this), "Parallel coordinates": new Parallel(this)};
    host.replaceChildren(this.head, this.problem, this.tabs, this.panel, this.facts, this.count, this.table,
      ...data.notes.map(text => make("p", {class: "note"}, text)));
    this._tabs();
    this.update();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  numeric() { return this.data.columns.filter(column => column.number || (column.setting && column.values.every(v => v === null || typeof v === "number"))); }
  // Settings that have more than one value among these runs.
  varying(runs = this.shown) {
    return this.data.columns.filter(column => column.setting && new Set(runs.map(run => column.values[run.index]).filter(value => value !== null)).size > 1);
  }
  get chart() { return this.charts[this.state.tab]; }

  // --- names and colours

  armOf(run) { return run.arms.get(Number(this.state.sweep || -1)) ?? [...run.arms.values()][0] ?? run.name; }
  nameOf(run) { return `${this.armOf(run)}, seed ${run.seed} (${run.id.slice(0, 6)})`; }

  groupOf(run) {
    if (this.state.colour === "arm") return this.armOf(run);
    if (this.state.colour === "run") return this.nameOf(run);
    return `${this.state.colour}=${spell(this.data.byKey.get(this.state.colour)?.values[run.index])}`;
  }

  lookOf(run) {
    const group = this.groupOf(run);
    if (!this.looks.has(group)) this.looks.set(group, this.looks.size);
    return look(this.looks.get(group));
  }

  // --- what is chosen

  choose() {
    const {state, data} = this, sweep = state.sweep === "" ? null : Number(state.sweep);
    const query = parseQuery(state.query, data);
    this.problem.textContent = query.problem;
    this.match = data.runs.filter(run => (sweep === null || run.arms.has(sweep)) && query.test(run));
    this.shown = this.match.filter(run => !state.hidden.has(run.index));
    this.looks.clear();
    for (const run of this.match) this.lookOf(run);
  }

  update() { this.choose(); this._head(); this._table(); this._night(); this.chart.update(); }
  redraw() { this._night(); this.chart.draw(); this._table(); }

  // Paper turns a dark drawing round: what is drawn while a page is being printed stays blank.
  _night() { this.host.classList.toggle("night", isDark()); }

  filterBy(key, texts) { this.query.value = this.state.query = withCondition(this.state.query, key, texts); this.update(); }

  _head() {
    const {state, data} = this, set = key => value => { state[key] = value; this.update(); };
    const settings = data.columns.filter(column => column.setting || column.key === "state");
    const value = make("select", {disabled: !state.by, onchange: () => { this.filterBy(state.by, value.value === "" ? [] : [`${state.by}=${value.value}`]); }},
      make("option", {value: ""}, "any value"), ...(state.by ? [...new Set(data.byKey.get(state.by).values)].sort(compareValues).map(v => make("option", {value: quoted(v)}, spell(v))) : []));
    const held = state.by && state.query.match(WORDS)?.map(word => CONDITION.exec(word)).find(found => found?.[1] === state.by && found[2] === "=");
    if (held) value.value = held[3];
    refill(this.head, () => [
      choice("Sweep", [["", "all"], ...data.sweeps.map((name, i) => [i, name])], state.sweep, value => { state.hidden.clear(); set("sweep")(value); }),
      field("Filter", this.query, {class: "field wide"}),
      choice("Setting", [["", "–"], ...settings.map(column => [column.key, column.title])], state.by ?? "", set("by")),
      field("Value", value),
      choice("Colours", [["arm", "arm"], ["run", "run"], ...settings.map(column => [column.key, column.title])], state.colour, set("colour")),
      button("Clear", () => { this.query.value = state.query = ""; state.hidden.clear(); state.by = ""; this.update(); })]);
  }

  _tabs() {
    const names = Object.keys(this.charts), {state} = this;
    const open = name => { state.tab = name; this._tabs(); this.tabs.querySelector("[aria-selected=true]").focus(); this.chart.update(); };
    const keys = (name, event) => {
      const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (by) open(names[(names.indexOf(name) + by + names.length) % names.length]);
    };
    this.tabs.replaceChildren(...names.map(name => button(name, () => open(name), {role: "tab", "aria-selected": String(name === state.tab),
      "aria-controls": "explore-panel", tabindex: name === state.tab ? "0" : "-1", onkeydown: event => keys(name, event)})));
    this.panel.setAttribute("aria-label", state.tab);
    this.panel.replaceChildren(this.chart.node);
  }

  // --- the table of runs

  _columns() {
    const settings = this.varying(this.match).filter(column => column.key !== "seed");
    const numbers = this.data.columns.filter(column => column.number && this.match.some(run => column.values[run.index] !== null)).slice(0, 5);
    const of = (title, value) => ({key: title, title, value});
    return [of("arm", run => this.armOf(run)), of("seed", run => run.seed), of("state", run => run.state + (run.collapsed ? ", collapsed" : "")),
      ...[...numbers, ...settings].map(column => ({...column, value: run => column.values[run.index]}))];
  }

  _sorted(columns) {
    const {sort} = this.state, column = sort && columns.find(each => each.key === sort.key);
    if (!column) return this.match;
    return [...this.match].sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)], order = compareValues(x, y);
      return sort.down && x !== null && y !== null ? -order : order;
    });
  }

  _table() {
    const columns = this._columns(), rows = this._sorted(columns), {state} = this, most = state.all ? rows.length : MOST_ROWS;
    const focused = document.activeElement?.closest?.(".runs") ? document.activeElement.dataset.key : null;
    const all = make("input", {type: "checkbox", "aria-label": "Draw all these runs", "data-key": "all", checked: this.shown.length === this.match.length,
      onchange: () => { state.hidden = new Set(all.checked ? [] : this.match.map(run => run.index)); this.update(); }});
    const head = columns.map(column => {
      const sorted = state.sort?.key === column.key ? (state.sort.down ? "descending" : "ascending") : "none";
      const turn = () => { state.sort = {key: column.key, down: sorted === "ascending"}; this._table(); };
      return make("th", {scope: "col", "aria-sort": sorted, class: column.number ? "n" : ""}, button(column.title, turn, {"data-key": `sort ${column.key}`}));
    });
    this.table.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, make("th", {scope: "col"}, all), ...head)),
      make("tbody", {}, ...rows.slice(0, most).map(run => this._row(run, columns)))),
      ...(rows.length > most ? [button(`Show all ${rows.length} runs`, () => { state.all = true; this._table(); })] : []));
    if (focused) [...this.table.querySelectorAll("[data-key]")].find(each => each.dataset.key === focused)?.focus();
    this.count.textContent = `${this.match.length} of ${this.data.runs.length} runs match, ${this.shown.length} are drawn. Click a heading to sort, a run for its details.`;
  }

  _row(run, columns) {
    const {hidden} = this.state, box = make("input", {type: "checkbox", "aria-label": `Draw ${this.nameOf(run)}`, "data-key": `box ${run.id}`, checked: !hidden.has(run.index),
      onchange: () => { if (box.checked) hidden.delete(run.index); else hidden.add(run.index); this.update(); }});
    const cells = columns.map((column, i) => {
      const text = spell(column.value(run), column.digits);
      if (i === 0) return make("td", {class: "arm"}, swatch(this.lookOf(run)), " ", button(text, () => this.details(run), {class: "link", "data-key": `run ${run.id}`}));
      return make("td", {class: (column.number ? "n" : "") + (column.key === "state" && run.state !== "done" ? " mark" : "")}, text);
    });
    return make("tr", {}, make("td", {}, box), ...cells);
  }

  // What is known of a run, and where the rest of it is.
  details(run) {
    const facts = [["run", run.name], ["state", `${run.state}${run.why ? `: ${run.why}` : ""}`], ["seed", String(run.seed)],
      ["sweeps", [...run.arms].map(([place, label]) => `${this.data.sweeps[place]}: ${label}`).join("; ")],
      ...this.data.columns.filter(column => (column.number || column.setting) && column.values[run.index] !== null && column.key !== "seed").map(column => [column.title, spell(column.values[run.index], column.digits)])];
    const links = [...(run.link ? [["its folder", `${run.link}/`]] : []), ...(run.state === "failed" && run.link ? [["its traceback", `${run.link}/traceback.txt`]] : []),
      ...(run.anchor ? [["its line below, with the command that trains it again", `#${run.anchor}`]] : [])];
    const only = () => { this.state.hidden = new Set(this.data.runs.map(each => each.index).filter(index => index !== run.index)); this.update(); };
    const base = () => { const curves = this.charts.Curves; curves.set.base = String(run.index); curves.plot.window = null; curves._controls(); this.update(); };
    this.facts.replaceChildren(make("h3", {}, this.nameOf(run)),
      make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      make("p", {}, ...links.flatMap(([text, href], i) => [i ? ", " : "Look at ", make("a", {href}, text)])),
      button("Draw this one alone", only), button("Draw differences to it", base), button("Close", () => this.facts.replaceChildren()));
  }
}

// The page is complete without it; it begins once the page is drawn.
async function begin() {
  const host = document.getElementById(".explorer");
  if (!host) return;
  performance.mark("explorer begins");
  try {
    const data = await unpack(document.getElementById(".data").textContent);
    if (!data.runs.length) { host.textContent = "There are no runs yet."; return; }
    new App(data, host);
    performance.mark("explorer ready");
  } catch (error) {
    host.textContent = `This browser cannot show the interactive part (${error.message}). It needs DecompressionStream: Chrome 80, Firefox 113, Safari 16.4 or later. All figures and tables of this page work without it.`;
  }
}
requestAnimationFrame(() => setTimeout(begin));
