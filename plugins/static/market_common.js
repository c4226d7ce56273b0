/* What the two pages share. All addresses are relative to the page: it does not matter who serves it. */

export const at = (id) => document.getElementById(id);

export function element(tag, content, className) {
  const made = document.createElement(tag);
  if (content !== undefined && content !== null) made.append(content);
  if (className) made.className = className;
  return made;
}

/* Fills `parent`. What is the same stays, so that a selection holds; a link that had the focus has it again. */
export function put(parent, ...contents) {
  contents.forEach((content, index) => {
    const node = typeof content === "string" ? document.createTextNode(content) : content;
    const there = parent.childNodes[index];
    if (!there) parent.append(node);
    else if (!there.isEqualNode(node)) {
      const focused = there.contains(document.activeElement) ? document.activeElement.textContent : null;
      there.replaceWith(node);
      if (focused === null) return;
      [node, ...(node.querySelectorAll?.("a") ?? [])].find((made) => made.localName === "a" && made.textContent === focused)?.focus({ preventScroll: true });
    }
  });
  while (parent.childNodes.length > contents.length) parent.lastChild.remove();
}

export function link(text, href, title) {
  const made = element("a", text);
  made.href = href;
  if (href.startsWith("log?")) made.target = "_top"; // Airflow 3 shows the page in a frame
  if (title) made.title = title;
  return made;
}

const NONE = "–";
export const cell = (content, className) => element("td", content ?? NONE, className);
export const row = (...cells) => {
  const made = element("tr");
  made.append(...cells);
  return made;
};
export const number = (value, digits = 0) =>
  value === null || value === undefined
    ? NONE
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const numberCell = (value, digits) => cell(number(value, digits), "mm-number");
export const time = (iso) => (iso ? new Date(iso).toISOString().slice(0, 16).replace("T", " ") : NONE);
export const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [minutes, rest] = [Math.floor(whole / 60), whole % 60];
  return [minutes && `${minutes} min`, (rest || !minutes) && `${rest} s`].filter(Boolean).join(" ");
};
export const bytes = (value) => {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  for (; size >= 1000 && unit < units.length - 1; unit += 1) size /= 1000;
  return `${size.toFixed(unit > 1 && size < 100 ? 1 : 0)} ${units[unit]}`;
};
// 100.0% is said of nothing less.
export const share = (value) => {
  if (value === null || value === undefined) return NONE;
  const rounded = (100 * value).toFixed(1);
  return value < 1 && rounded === "100.0" ? "99.9%" : `${rounded}%`;
};

const LABELS = {
  ok: "success", success: "success", fresh: "success", running: "info", queued: "info", info: "info",
  late: "warning", warning: "warning", restarting: "info",
  failed: "danger", stale: "danger", critical: "danger", error: "danger", timeout: "danger",
  out_of_memory: "danger", crashed: "danger",
};
export const label = (text, kind = text) => element("span", text, `label label-${LABELS[kind] ?? "default"}`);

/* Where Airflow shows a run or a symbol's log differs between its majors: the server sends on to there. */
export const runUrl = (dagId, runId) => `log?${new URLSearchParams({ dag_id: dagId, run_id: runId ?? "" })}`;
export const logUrl = (of) => `log?${new URLSearchParams({ dag_id: of.dag_id, run_id: of.run_id, step: of.step, symbol: of.symbol })}`;
export const symbolUrl = (symbol) => `symbol?symbol=${encodeURIComponent(symbol)}`;

/* The answer as data; its status in `ok`. Throws when nobody answers; after a log-out it goes to the login. */
export async function ask(address) {
  const response = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
  if (response.redirected || response.status === 401) {
    window.location.reload();
    return new Promise(() => {});
  }
  return { ...(await response.json()), ok: response.ok };
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");
