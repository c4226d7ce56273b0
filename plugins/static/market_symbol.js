/* One symbol: candles with bands and averages, volume, RSI, MACD, and the bars to look at. */

import { ask, at, bytes, cell, duration, element, runUrl, label, link, logUrl, number, numberCell, row, sentence, time } from "./market_common.js";

const { LightweightCharts: charts } = window;
const asked = new URLSearchParams(window.location.search);
const symbol = asked.get("symbol") ?? "";
const RANGES = { 5: "1 week", 20: "1 month", 60: "3 months", 252: "1 year" };
const sessions = Number(asked.get("sessions")) || 20;
const COLOURS = {
  up: "#26a69a", down: "#ef5350", running: "#9e9e9e", missing: "rgba(239, 83, 80, 0.25)",
  bb_upper: "#90a4ae", bb_lower: "#90a4ae", sma_short: "#f9a825", sma_med: "#8e24aa", sma_long: "#1565c0",
  rsi: "#6a1b9a", macd: "#1565c0", macd_signal: "#ef6c00",
};
const NAMES = { sma_short: "SMA 24", sma_med: "SMA 120", sma_long: "SMA 480", bb_upper: "Bollinger 20, 2", rsi: "RSI 14", macd: "MACD 12, 26", macd_signal: "signal 9" };
const inNewYork = (options) => {
  const format = new Intl.DateTimeFormat("en-GB", { timeZone: "America/New_York", ...options });
  return (seconds) => format.format(new Date(seconds * 1000));
};
const full = inNewYork({ weekday: "short", year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const ticks = [inNewYork({ year: "numeric" }), inNewYork({ month: "short" }), inNewYork({ month: "short", day: "numeric" }), inNewYork({ hour: "2-digit", minute: "2-digit" })];

function theme() {
  // Inside Airflow 2 its own switch inverts the whole page, the chart too.
  const dark = !document.documentElement.dataset.colorScheme && window.matchMedia("(prefers-color-scheme: dark)").matches;
  const grid = { color: dark ? "#333" : "#eee" };
  return {
    layout: { background: { color: dark ? "#1b1b1b" : "#ffffff" }, textColor: dark ? "#ccc" : "#51504f", attributionLogo: true, panes: { separatorColor: grid.color } },
    grid: { vertLines: grid, horzLines: grid },
  };
}

function draw(data) {
  const { bars } = data;
  const chart = charts.createChart(at("ms-chart"), {
    autoSize: true,
    ...theme(),
    localization: { timeFormatter: full },
    timeScale: { timeVisible: true, secondsVisible: false, tickMarkFormatter: (seconds, kind) => ticks[Math.min(kind, 3)](seconds) },
  });
  const values = (name) =>
    bars.timestamp.map((at, index) => (bars[name][index] === null ? { time: at } : { time: at, value: bars[name][index] }));
  const line = (name, pane, options = {}) => {
    const series = chart.addSeries(
      charts.LineSeries,
      { color: COLOURS[name], lineWidth: 1, priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false, ...options },
      pane,
    );
    series.setData(values(name));
    return series;
  };
  const lacking = chart.addSeries(charts.HistogramSeries, {
    priceScaleId: "missing", color: COLOURS.missing, priceLineVisible: false, lastValueVisible: false,
  }, 0);
  lacking.priceScale().applyOptions({ scaleMargins: { top: 0, bottom: 0 } });
  lacking.setData(data.missing.map((at) => ({ time: at, value: 1 })));
  const candles = chart.addSeries(charts.CandlestickSeries, {
    upColor: COLOURS.up, downColor: COLOURS.down, wickUpColor: COLOURS.up, wickDownColor: COLOURS.down, borderVisible: false,
  }, 0);
  candles.setData(bars.timestamp.map((at, index) => ({
    time: at, open: bars.open[index], high: bars.high[index], low: bars.low[index], close: bars.close[index],
    // A bar that still runs.
    ...(bars.is_final[index] ? {} : { color: COLOURS.running, wickColor: COLOURS.running }),
  })));
  for (const name of ["bb_upper", "bb_lower"]) line(name, 0, { lineStyle: charts.LineStyle.Dashed });
  for (const name of ["sma_short", "sma_med", "sma_long"]) line(name, 0);
  // A mark hangs on a bar, or on the stripe that shows that there is none.
  const marks = [
    ...data.quarantined.map((mark) => ({ time: mark.timestamp, position: "aboveBar", shape: "square", color: "#d84315", text: "Q" })),
    ...data.revised.map((mark) => ({ time: mark.timestamp, position: "belowBar", shape: "circle", color: "#1565c0", text: "R" })),
  ].sort((one, other) => one.time - other.time);
  const stored = new Set(bars.timestamp);
  charts.createSeriesMarkers(candles, marks.filter((mark) => stored.has(mark.time)));
  const absent = new Set(data.missing.filter((at) => !stored.has(at)));
  charts.createSeriesMarkers(lacking, marks.filter((mark) => absent.has(mark.time)).map((mark) => ({ ...mark, position: "inBar" })));
  const volume = chart.addSeries(charts.HistogramSeries, { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false }, 1);
  volume.setData(bars.timestamp.map((at, index) => ({
    time: at, value: bars.volume[index], color: bars.close[index] >= bars.open[index] ? COLOURS.up : COLOURS.down,
  })));
  const rsi = line("rsi", 2);
  for (const price of [30, 70]) {
    rsi.createPriceLine({ price, color: "#999", lineWidth: 1, lineStyle: charts.LineStyle.Dotted, axisLabelVisible: true });
  }
  const histogram = chart.addSeries(charts.HistogramSeries, { priceLineVisible: false, lastValueVisible: false }, 3);
  histogram.setData(values("macd_histogram").map((point) => ({ ...point, color: point.value >= 0 ? COLOURS.up : COLOURS.down })));
  line("macd", 3);
  line("macd_signal", 3);
  chart.panes().forEach((pane, index) => pane.setStretchFactor([5, 1, 1.5, 1.5][index]));
  chart.timeScale().fitContent();
}

function legend() {
  const items = Object.entries(NAMES).map(([name, title]) => {
    const item = element("span", title);
    item.style.setProperty("--colour", COLOURS[name]);
    return item;
  });
  at("ms-legend").append(...items, element("span", "missing bar", "mm-legend-missing"), "Q quarantined, R revised, grey: not final yet");
}

function tables(data) {
  const iso = (seconds) => new Date(seconds * 1000).toISOString();
  const marks = [
    ...data.missing.map((timestamp) => ({ timestamp, what: "missing", text: "due, and not stored as final" })),
    ...data.quarantined.map((mark) => ({ ...mark, what: "quarantined" })),
    ...data.revised.map((mark) => ({ ...mark, what: "revised" })),
  ].sort((one, other) => other.timestamp - one.timestamp);
  const none = cell("none in this range");
  none.colSpan = 3;
  at("ms-marks").tBodies[0].replaceChildren(
    ...(marks.length ? marks.map((mark) => row(cell(time(iso(mark.timestamp))), cell(mark.what), cell(mark.text))) : [row(none)]),
  );
  at("ms-tries").tBodies[0].replaceChildren(...data.tries.map((one) => row(
    cell(link(time(one.tick), runUrl(one.dag_id, one.run_id), `${one.dag_id} ${one.run_id}`)),
    cell(link(one.number > 1 ? `${one.step} (try ${one.number})` : one.step, logUrl({ ...one, symbol: data.symbol }))),
    cell(time(one.started_at)), cell(label(one.status)), cell(duration(one.seconds), "mm-number"), numberCell(one.cpu_seconds, 2),
    cell(bytes(one.peak_memory_bytes), "mm-number"), numberCell(one.rows_written), cell(one.error, "mm-wrap"),
  )));
}

async function show() {
  at("ms-name").textContent = symbol;
  document.title = document.title.replace("Symbol", () => symbol);
  at("ms-ranges").append(...Object.entries(RANGES).map(([count, title]) => {
    const made = link(title, `symbol?${new URLSearchParams({ symbol, sessions: count })}`);
    made.className = `btn btn-default${Number(count) === sessions ? " active" : ""}`;
    if (Number(count) === sessions) made.setAttribute("aria-current", "page");
    return made;
  }));
  const box = at("ms-message");
  try {
    const data = await ask(`symbol_data?${new URLSearchParams({ symbol, sessions })}`);
    at("ms-as-of").textContent = `${data.as_of.slice(0, 19).replace("T", " ")} UTC`;
    const { length } = data.bars?.timestamp ?? [];
    box.dataset.state = data.state;
    if (!data.ok || !length) {
      box.className = `alert alert-${data.ok ? "info" : "danger"} mm-message`;
      box.textContent = sentence(data.message ?? "no bars in this range");
      if (!data.ok) return;
      at("ms-chart").hidden = true;
      at("ms-content").hidden = false;
    } else {
      at("ms-content").hidden = false;
      box.className = `alert alert-${data.missing.length || data.quarantined.length ? "warning" : "success"} mm-message`;
      box.textContent = `${number(length)} bars of ${data.sessions} sessions; ${data.missing.length} missing, ${data.quarantined.length} quarantined, ${data.revised.length} revised`;
      at("ms-last").textContent = `${number(data.bars.close.at(-1), 2)} USD`;
      legend();
      draw(data);
    }
    tables(data);
  } catch (error) {
    box.className = "alert alert-danger mm-message";
    box.dataset.state = "unreachable";
    box.textContent = "The web server does not answer; load the page again.";
    console.warn(error);
  }
}
show();
