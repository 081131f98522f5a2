// Which runs are meant: words and conditions such as  aux.coef=0.1|0.2  val_loss<4.2  state=failed.

const CONDITION = /^([^\s<>=!"]+)(<=|>=|!=|<|>|=)(.*)$/s;
const WORDS = /(?:[^\s"]|"[^"]*"?)+/g;  // what stands in quotes holds together
const unquoted = text => text.replaceAll('"', "");

// {test(run), problem}: a condition on a name that no column has is a problem and holds for every run.
function parseQuery(text, data) {
  const problems = [], tests = [];
  for (const word of text.match(WORDS) ?? []) {
    const found = CONDITION.exec(word);
    if (!found) {
      const part = unquoted(word).toLowerCase();
      tests.push(run => searchText(run, data).includes(part));
      continue;
    }
    const [, key, sign, value] = found, column = data.byKey.get(key);
    if (column) tests.push(condition(column, sign, value));
    else problems.push(`Nothing is called ${key}. There are: ${data.columns.map(each => each.key).join(", ")}.`);
  }
  return {test: run => tests.every(test => test(run)), problem: problems.join(" ")};
}

function condition(column, sign, text) {
  const options = unquoted(text).split("|"), same = value => options.some(option => isSame(value, option));
  const limit = Number(unquoted(text)), value = run => column.values[run.index];
  if (sign === "=") return run => same(value(run));
  if (sign === "!=") return run => !same(value(run));
  const compare = {"<": v => v < limit, ">": v => v > limit, "<=": v => v <= limit, ">=": v => v >= limit}[sign];
  return run => typeof value(run) === "number" && compare(value(run));
}

function isSame(value, text) {
  if (value === null) return text === "none" || text === "–";
  if (typeof value === "number") return text.trim() !== "" && value === Number(text);
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
