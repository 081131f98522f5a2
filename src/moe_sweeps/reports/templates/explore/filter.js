// Which runs are meant: words and conditions such as  aux.coef=0.1|0.2  val_loss<4.2  state=failed.

const CONDITION = /^([^\s<>=!"]+)(<=|>=|!=|<|>|=)(.*)$/s;
const WORDS = /(?:[^\s"]|"[^"]*"?)+/g;  // what stands in quotes holds together
const NOTHING = "–";  // as a table shows that a run has no such value; in quotes it is a text
const THOUSANDS = /^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$/;  // as a table prints them

// The alternatives of a value, split at | outside of quotes: {text, plain: whether it had none}. In quotes "" is a quote.
function alternatives(text) {
  const found = [{text: "", plain: true}];
  let inside = false;
  for (let i = 0; i < text.length; i++) {
    const last = found[found.length - 1];
    if (text[i] === '"' && inside && text[i + 1] === '"') { last.text += text[++i]; }
    else if (text[i] === '"') { inside = !inside; last.plain = false; }
    else if (text[i] === "|" && !inside) found.push({text: "", plain: true});
    else last.text += text[i];
  }
  return found;
}

// A value of a column as the filter reads it.
function quoted(value) {
  const text = value === null ? NOTHING : String(value);
  return value !== null && (text === "" || text === NOTHING || /[\s"|]/.test(text)) ? `"${text.replaceAll('"', '""')}"` : text;
}

// The number that a text is, as a config or as a table spells it; NaN where it is none.
function numberOf(text) {
  const bare = text.trim();
  return bare === "" ? NaN : Number(THOUSANDS.test(bare) ? bare.replaceAll(",", "") : bare);
}

// {test(run), problem}: a condition on a name that no column has, or without a number where it takes one, is a problem and
// holds for every run.
function parseQuery(text, data) {
  const problems = [], tests = [];
  for (const word of text.match(WORDS) ?? []) {
    const found = CONDITION.exec(word);
    if (!found) {
      const part = alternatives(word).map(each => each.text).join("|").toLowerCase();
      tests.push(run => searchText(run, data).includes(part));
      continue;
    }
    const [, key, sign, value] = found, column = data.byKey.get(key);
    const fault = column && misread(column, sign, value);
    if (fault) problems.push(`${word} is left out: ${fault}.`);
    else if (column) tests.push(condition(column, sign, value));
    else problems.push(`Nothing is called ${key}. There are: ${data.columns.map(each => each.key).join(", ")}.`);
  }
  return {test: run => tests.every(test => test(run)), problem: problems.join(" ")};
}

// Why a condition cannot be meant; nothing where it can.
function misread(column, sign, text) {
  const options = alternatives(text), wrong = options.find(each => isNaN(numberOf(each.text)) && !(each.plain && each.text === NOTHING));
  if (!sign.includes("<") && !sign.includes(">")) return column.number && wrong ? `“${wrong.text}” is no number` : "";
  const limit = options.length === 1 ? options[0].text : text;
  return isNaN(numberOf(limit)) ? `there is no number behind ${sign}` : "";
}

function condition(column, sign, text) {
  const options = alternatives(text), same = value => options.some(option => isSame(value, option, column.digits));
  const limit = numberOf(options[0].text), value = run => column.values[run.index];
  if (sign === "=") return run => same(value(run));
  if (sign === "!=") return run => !same(value(run));
  const compare = {"<": v => v < limit, ">": v => v > limit, "<=": v => v <= limit, ">=": v => v >= limit}[sign];
  return run => typeof value(run) === "number" && compare(value(run));
}

// A number is the same with all its digits, and with those that a table prints.
function isSame(value, {text, plain}, digits) {
  if (plain && text === NOTHING) return value === null;
  if (value === null) return false;
  if (typeof value === "number") return value === numberOf(text) || numberOf(spell(value, digits)) === numberOf(text);
  return value.toLowerCase() === text.toLowerCase();
}

function searchText(run, data) {
  run.text ??= [run.name, run.state, run.why, ...run.arms.values(), ...[...run.arms.keys()].map(i => data.sweeps[i])].join(" ").toLowerCase();
  return run.text;
}

// A condition on `key` in place of those that there are; without a text none.
function withCondition(query, key, texts) {
  const others = (query.match(WORDS) ?? []).filter(word => CONDITION.exec(word)?.[1] !== key);
  return [...others, ...texts].join(" ");
}

function compareValues(a, b) {
  const missing = value => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, {numeric: true});
}
