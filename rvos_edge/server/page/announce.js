const SETTLED = 1000;

/** Tells screen readers when a query is found, and when no longer; what changes at once is not told. */
export function startAnnouncing() {
  const region = document.querySelector("#said");
  const told = new Map();

  return function onStatus({ queries }) {
    const now = performance.now();
    const news = [];
    for (const { text, label, found } of queries) {
      if (found === null) continue;
      const known = told.get(text) ?? { found: null, since: now, next: found };
      if (known.next !== found) Object.assign(known, { next: found, since: now });
      if (known.found !== found && now - known.since >= SETTLED) {
        known.found = found;
        news.push(`${label || text}: ${found ? "found" : "not found"}`);
      }
      told.set(text, known);
    }
    for (const text of told.keys()) if (!queries.some((query) => query.text === text)) told.delete(text);
    if (news.length) region.textContent = news.join(", ");
  };
}
