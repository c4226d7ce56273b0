/* The monitor: asks for each part of the snapshot at its own pace and draws it. */

import {
  ask, at, bytes, cell, duration, element, runUrl, label, link, logUrl, number, numberCell, put, row, sentence,
  share, symbolUrl, time,
} from "./market_common.js";
import { SortedTable } from "./market_table.js";

const root = at("market-monitor");
// Which interval of the YAML each part goes by.
const PACE = { pipelines: "pipeline_status", freshness: "data_freshness", performance: "system_health", health: "system_health" };
const TITLES = {
  symbols: "symbols", fresh: "fresh", late: "late", stale: "stale", silent: "no new bars", empty: "without bars",
  missing: "with missing bars", features_behind: "features behind",
};
const WORST = { empty: 0, silent: 1, stale: 2, late: 3, fresh: 4 };
const intervals = { pipeline_status: 30, system_health: 60, data_freshness: 45 };
const seen = {};
const failures = {};
const turns = {}; // timers of the parts that are not being asked for
let chosen = "symbols";

const symbols = new SortedTable(
  at("mm-symbols"),
  [
    { title: "Symbol", value: (s) => s.symbol, text: (s) => s.symbol, link: (s) => symbolUrl(s.symbol) },
    { title: "Newest final bar (UTC)", value: (s) => s.newest_bar, text: (s) => time(s.newest_bar) },
    { title: "Age, market hours", number: true, descending: true, value: (s) => s.age_hours, text: (s) => number(s.age_hours, 2) },
    { title: "Bars behind", number: true, descending: true, value: (s) => s.bars_behind, text: (s) => number(s.bars_behind) },
    { title: "Missing bars", number: true, descending: true, value: (s) => s.missing, text: (s) => number(s.missing) },
    {
      title: "Features behind", number: true, descending: true, value: (s) => s.features_behind,
      text: (s) => `${number(s.features_behind)}${s.features_behind >= seen.freshness?.count_to ? "+" : ""}`,
    },
    { title: "State", value: (s) => WORST[s.freshness], text: (s) => TITLES[s.freshness], className: (s) => `mm-state mm-${s.freshness}` },
  ],
  (s) => s.symbol,
);

const costs = new SortedTable(
  at("mm-costs"),
  [
    { title: "Symbol", value: (c) => c.symbol, text: (c) => c.symbol, link: (c) => symbolUrl(c.symbol) },
    { title: "Step", value: (c) => c.step, text: (c) => c.step, link: (c) => logUrl(c) },
    { title: "State", value: (c) => c.status, text: (c) => c.status, className: (c) => (c.status === "ok" ? "" : "text-danger") },
    { title: "Time", number: true, descending: true, value: (c) => c.seconds, text: (c) => duration(c.seconds) },
    { title: "CPU, s", number: true, descending: true, value: (c) => c.cpu_seconds, text: (c) => number(c.cpu_seconds, 2) },
    { title: "Memory", number: true, descending: true, value: (c) => c.peak_memory_bytes, text: (c) => bytes(c.peak_memory_bytes) },
  ],
  (c) => `${c.symbol} ${c.dag_id} ${c.step}`,
  3,
);

function pipelineRows(pipeline) {
  const { airflow, last_run: run } = pipeline;
  const name = link(pipeline.display_name, runUrl(pipeline.dag_id, run?.run_id ?? airflow?.run_id), run?.run_id);
  const state = element("span");
  // Airflow knows of runs that never got to a symbol: a gate that gave up, a day without a session.
  const newer = airflow?.run_id && (!run || (airflow.run_id !== run.run_id && airflow.tick > run.tick));
  const shown = newer || airflow?.run_id === run?.run_id ? airflow?.state : run?.state;
  state.append(shown ? label(shown) : "");
  if (airflow?.paused) state.append(" ", label("paused", "late"));
  if (newer) state.append(" ", link(`run of ${time(airflow.tick)}`, runUrl(pipeline.dag_id, airflow.run_id)));
  const success = (of) => {
    const made = cell(of.runs ? `${share(of.share)} (${of.runs_ok}/${of.runs})` : null, "mm-number");
    made.title = `${number(of.symbols_ok)} of ${number(of.symbols)} symbols served, ${of.runs_ok} of ${of.runs} runs without a failure`;
    return made;
  };
  const steps = run?.steps ?? [null];
  return steps.map((step, index) => {
    const first = index === 0;
    const failed = numberCell(step?.failed);
    if (step?.failed) failed.classList.add("text-danger");
    const took = step?.finished_at ? duration((new Date(step.finished_at) - new Date(step.started_at)) / 1000) : "running";
    return row(
      cell(first ? name : ""), cell(first ? (run ? time(run.tick) : "no run yet") : ""), cell(first ? state : ""),
      cell(step?.step), numberCell(step?.served), failed, numberCell(step?.rows_written), cell(step ? took : null, "mm-short"),
      first ? success(pipeline.day) : cell(""), first ? success(pipeline.week) : cell(""),
      cell(first ? time(pipeline.next_tick) : ""),
    );
  });
}

const SVG = "http://www.w3.org/2000/svg";
function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

/* The run times as bars, with lines at what is expected and at what counts as late. */
function chart(timing) {
  const [width, height, floor, top] = [420, 130, 112, 14];
  const longest = Math.max(...timing.runs.map((run) => run.seconds ?? 0));
  // A run that was cleared days later must not flatten all others.
  const scale = Math.min(Math.max(longest, timing.limit_seconds * 1.1), timing.limit_seconds * 3);
  const y = (seconds) => floor - (Math.min(seconds, scale) / scale) * (floor - top);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group" });
  svg.append(drawn("title", {}, `Run times of ${timing.display_name}, last ${timing.runs.length} runs`));
  for (const [seconds, name, kind] of [
    [timing.expected_seconds, "expected", "expected"],
    [timing.limit_seconds, `${Math.round((100 * timing.limit_seconds) / timing.expected_seconds)}%`, "limit"],
  ]) {
    svg.append(drawn("line", { x1: 0, x2: 320, y1: y(seconds), y2: y(seconds), class: `mm-line-${kind}` }));
    svg.append(drawn("text", { x: 324, y: y(seconds) + 4 }, `${name} ${duration(seconds)}`));
  }
  timing.runs.forEach((run, index) => {
    const seconds = run.seconds ?? 0;
    const kind = run.state === "failed" ? "failed" : seconds > timing.limit_seconds ? "late" : "ok";
    const anchor = drawn("a", { href: runUrl(timing.dag_id, run.run_id), target: "_top" });
    const bar = drawn("rect", {
      x: 2 + index * 10.6, width: 8, y: Math.min(y(seconds), floor - 2), height: Math.max(floor - y(seconds), 2), class: `mm-bar-${kind}`,
    });
    bar.append(drawn("title", {}, `${time(run.tick)}: ${run.seconds === null ? "running" : duration(seconds)}, ${run.state}`));
    anchor.append(bar);
    svg.append(anchor);
  });
  svg.append(drawn("line", { x1: 0, x2: 320, y1: floor, y2: floor, class: "mm-line-axis" }));
  const last = timing.runs.at(-1);
  if (last) {
    svg.append(drawn("text", { x: 0, y: height - 4 }, time(timing.runs[0].tick)));
    if (timing.runs.length > 1) svg.append(drawn("text", { x: 320, y: height - 4, "text-anchor": "end" }, time(last.tick)));
  } else {
    svg.append(drawn("text", { x: 120, y: 90 }, "no run yet"));
  }
  const told = last ? `${timing.display_name}: last ${last.seconds === null ? "run is at work" : `took ${duration(last.seconds)}`}` : timing.display_name;
  const figure = element("figure", element("figcaption", told));
  figure.append(svg);
  figure.dataset.dag = timing.dag_id;
  return figure;
}

const ago = (iso, now) => {
  const hours = (new Date(now) - new Date(iso)) / 3_600_000;
  return hours < 72 ? `${hours.toFixed(1)} hours ago` : `${(hours / 24).toFixed(1)} days ago`;
};

function facts(health, now) {
  const limit = health.rate_limits.map((of) => {
    const paused = of.paused_until && new Date(of.paused_until) > new Date(now);
    return `${of.vendor}: ${paused ? `paused until ${time(of.paused_until)} (refused ${of.refusals} x)` : "open"}, ${of.waiting} waiting`;
  });
  const free = (of) => `${bytes(of.free)} of ${bytes(of.total)} free (${share(of.free / of.total)})`;
  return {
    database: ["Database", bytes(health.database_bytes)],
    connections: ["Connections", `${health.connections} of ${health.connections_limit}`],
    growth: ["Rows written, 24 h / 7 days", health.growth.map((of) => `${of.step}: ${number(of.day)} / ${number(of.week)}`).join(", ")],
    memory: ["Memory (web server)", free(health.memory)],
    ...Object.fromEntries(health.disks.map((disk, index) => [`disk${index}`, [`Disk ${disk.folder}`, free(disk)]])),
    limit: ["Rate limit", limit.join("; ") || "nothing asked yet"],
    alerts: ["Open alerts", number(health.alerts_open)],
    quarantine: ["Quarantined bars", `${number(health.quarantined)} (${number(health.quarantined_day)} in 24 h)`],
    backup: ["Last verified backup", health.last_backup ? ago(health.last_backup, now) : "none"],
  };
}

function showSymbols() {
  const text = at("mm-filter").value.trim().toUpperCase();
  const matches = (s) => {
    if (text && !s.symbol.includes(text)) return false;
    if (chosen === "missing" || chosen === "features_behind") return s[chosen] > 0;
    return chosen === "symbols" || s.freshness === chosen;
  };
  const shown = symbols.filter(matches);
  at("mm-shown").textContent = `${number(shown)} of ${number(symbols.rows.size)} symbols`;
}

/* What is shown stands in the address: it is there again when one comes back from a symbol's page. */
function remember() {
  const kept = {
    ...(at("mm-filter").value && { filter: at("mm-filter").value }),
    ...(chosen !== "symbols" && { show: chosen }),
    ...((symbols.sortBy || symbols.descending) && { sort: `${symbols.descending ? "-" : ""}${symbols.sortBy}` }),
  };
  const text = `${new URLSearchParams(kept)}`;
  window.history.replaceState(null, "", text ? `?${text}` : window.location.pathname);
}

function recall() {
  const kept = new URLSearchParams(window.location.search);
  at("mm-filter").value = kept.get("filter") ?? "";
  if (Object.hasOwn(TITLES, kept.get("show"))) chosen = kept.get("show");
  const sort = /^(-?)(\d+)$/.exec(kept.get("sort") ?? "");
  if (sort && Number(sort[2]) < symbols.columns.length) symbols.sort(Number(sort[2]), sort[1] === "-");
}

function tiles(totals) {
  const box = at("mm-totals");
  for (const [name, title] of Object.entries(TITLES)) {
    let tile = box.querySelector(`[data-total=${name}]`);
    if (!tile && totals[name] === undefined) continue; // a rare state
    if (!tile) {
      tile = element("button", element("strong"), `mm-total mm-total-${name}`);
      tile.type = "button";
      tile.dataset.total = name;
      tile.append(title);
      tile.addEventListener("click", () => {
        chosen = name;
        tiles(seen.freshness.totals);
        showSymbols();
        remember();
      });
      box.append(tile);
    }
    tile.querySelector("strong").textContent = number(totals[name] ?? 0);
    tile.setAttribute("aria-pressed", String(name === chosen));
    tile.classList.toggle("mm-some", totals[name] > 0);
  }
}

const DRAW = {
  pipelines(data) {
    put(at("mm-pipelines").tBodies[0], ...data.flatMap(pipelineRows));
  },
  freshness(data) {
    at("mm-expected").textContent = time(data.expected_bar);
    at("mm-stale-before").textContent = time(data.stale_before);
    at("mm-sessions").textContent = data.sessions;
    tiles(data.totals);
    symbols.update(data.symbols);
    showSymbols();
  },
  performance(data) {
    put(at("mm-charts"), ...data.pipelines.map(chart));
    costs.update(data.costs);
  },
  health(data, now) {
    put(at("mm-health"), ...Object.entries(facts(data, now)).flatMap(([name, [title, text]]) => {
      const value = element("dd", text);
      value.dataset.fact = name;
      return [element("dt", title), value];
    }));
    const alerts = data.alerts.map((alert) => row(
      cell(label(alert.severity)),
      cell(alert.dag_id ? link(alert.subject, runUrl(alert.dag_id, alert.run_id)) : alert.subject),
      cell(time(alert.opened_at)),
    ));
    at("mm-alerts-shown").textContent = alerts.length < data.alerts_open ? `the first ${alerts.length} of ${number(data.alerts_open)}` : "";
    const none = cell("none");
    none.colSpan = 3;
    put(at("mm-alerts").tBodies[0], ...(alerts.length ? alerts : [row(none)]));
    put(at("mm-tables").tBodies[0], ...data.tables.map((table) => row(
      cell(table.name), cell(bytes(table.bytes), "mm-number"), numberCell(table.rows),
    )));
  },
};

/* What an operator should know first; empty when all is well. */
function troubles() {
  const found = [];
  for (const pipeline of seen.pipelines ?? []) {
    const { airflow, last_run: run, display_name: name } = pipeline;
    const current = !run || airflow?.run_id === run.run_id || airflow?.tick > run.tick ? airflow?.state ?? run?.state : run.state;
    if (current === "failed") found.push(`the last run of ${name} failed`);
    else if (run?.steps.some((step) => step.failed)) found.push(`symbols failed in ${name}`);
    if (airflow?.paused && pipeline.next_tick) found.push(`${name} is paused`);
  }
  const totals = seen.freshness?.totals;
  const count = (of, one, many) => `${number(of)} ${of === 1 ? `symbol${one}` : `symbols${many}`}`;
  if (totals?.stale) found.push(count(totals.stale, " is stale", " are stale"));
  if (totals?.silent) found.push(`${count(totals.silent, " has", " have")} no new bars for days (halted, delisted or renamed?)`);
  if (totals?.empty) found.push(count(totals.empty, " has no bars", " have no bars"));
  if (totals?.missing) found.push(count(totals.missing, " has missing bars", " have missing bars"));
  if (totals?.features_behind) found.push(`features of ${count(totals.features_behind, "", "")} are behind`);
  const open = seen.health?.alerts_open;
  if (open) found.push(`${number(open)} open alert${open === 1 ? "" : "s"}`);
  return found;
}

function tell() {
  const box = at("mm-message");
  const bad = Object.values(failures)[0];
  const notice = seen.state === "ok" || !seen.state ? null : { state: seen.state, message: seen.message };
  const found = bad || notice ? [] : troubles();
  // Nothing is well before everything has been looked at.
  const [calm, kindly, well] = Object.keys(PACE).every((part) => seen[part])
    ? ["ok", "success", "all is well: data fresh, pipelines healthy, no open alert"]
    : ["loading", "info", "looking …"];
  const state = bad?.state ?? notice?.state ?? (found.length ? "attention" : calm);
  const kind = bad ? "danger" : notice ? "info" : found.length ? "warning" : kindly;
  const text = (bad ?? notice)?.message ?? (found.join("; ") || well);
  box.dataset.state = state;
  box.className = `alert alert-${kind} mm-message`;
  if (box.textContent !== sentence(text)) box.textContent = sentence(text);
  // What is still shown below a failure is of the time that stands above it.
  root.classList.toggle("mm-old", Boolean(bad));
}

async function refresh(part) {
  delete turns[part];
  try {
    const data = await ask(`data?parts=${part}`);
    Object.assign(intervals, data.refresh_seconds);
    if (data.ok) {
      delete failures[part];
      Object.assign(seen, { [part]: data[part], state: data.state, message: data.message });
      at("mm-source").textContent = data.source ? `${data.source} data` : "";
      DRAW[part](data[part], data.as_of);
      const stamp = `${data.as_of.slice(0, 19).replace("T", " ")} UTC`;
      at(`mm-part-${part}`).querySelector(".mm-part-time").textContent = stamp.slice(11);
      if (part === "pipelines") at("mm-as-of").textContent = stamp;
      // What one part could read, the others may as well: no failure stands until its own next turn.
      Object.keys(failures).forEach(hurry);
    } else {
      failures[part] = { state: data.state, message: data.message };
    }
  } catch (error) {
    failures[part] = { state: "unreachable", message: "the web server does not answer; what is shown is old" };
    console.warn(error);
  }
  // All parts at once, so that none pushes another about.
  if (Object.keys(PACE).every((name) => seen[name] || failures[name])) at("mm-content").hidden = !Object.keys(PACE).some((name) => seen[name]);
  tell();
  at("mm-refresh").textContent =
    `; status again every ${intervals.pipeline_status} s, freshness ${intervals.data_freshness} s, health ${intervals.system_health} s`;
  turns[part] = setTimeout(refresh, intervals[PACE[part]] * 1000, part);
}

/* Ask for a part now, unless that is already under way. */
function hurry(part) {
  if (!(part in turns)) return;
  clearTimeout(turns[part]);
  refresh(part);
}

recall();
symbols.sorted = remember;
at("mm-filter").addEventListener("input", () => {
  showSymbols();
  remember();
});
Object.keys(PACE).forEach(refresh);
