"""Style and behaviour of the HTML page. It loads nothing: no fonts, no scripts, no pictures from elsewhere."""

CSS = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; --mark: #a15c00; --good: #00703c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --mark: #ffb454; --good: #5fd38d; --bad: #ff8a80; --dim: #999; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem 1.5rem 6rem; }
h2 { border-top: 2px solid var(--line); margin-top: 3rem; padding-top: 1rem; }
h3 { margin: 1.8rem 0 .3rem; }
nav ul { columns: 3 16rem; padding-left: 1.2rem; }
.wrap { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td a { color: inherit; text-decoration: underline dotted; }
td.grey, td.grey a { color: var(--dim); font-size: .9em; }
td.mark, .warning { color: var(--mark); } td.better { color: var(--good); } td.worse { color: var(--bad); }
tr:target, tbody:target { outline: 2px solid var(--mark); }
.note { color: var(--dim); margin: .2rem 0; font-size: .92em; max-width: 62rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; background: white; } figcaption { color: var(--dim); }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .5rem; } code { overflow-wrap: anywhere; }
"""

# Sorting by a click or the keyboard: numbers by value, texts by the reader's alphabet, cells without a value last.
JS = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending", column = head.cellIndex;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.v;
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      const order = numbers ? x - y : x.localeCompare(y, undefined, {numeric: true});
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""
