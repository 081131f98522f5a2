// Sorting by a click or the keyboard: numbers by value, texts by the reader's alphabet, cells without a value last.
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
// What a link leads to, and what is printed, is unfolded.
const unfold = found => { for (let e = found; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true; };
const follow = () => {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found) { unfold(found); found.scrollIntoView(); }
};
addEventListener("hashchange", follow);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(e => { e.open = true; }));
document.addEventListener("click", event => {
  const link = event.target.closest("a[href^='#']");
  if (link) unfold(document.getElementById(decodeURIComponent(link.getAttribute("href").slice(1))));
});
follow();
