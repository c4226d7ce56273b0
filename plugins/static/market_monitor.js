/* Fetches the monitor's data and draws it; knows nothing of Airflow but two addresses in the page. */
(() => {
  const root = document.getElementById("market-monitor");
  const at = (id) => document.getElementById(id);
  const LABELS = { fresh: "success", late: "warning", stale: "danger", empty: "default" };
  // In the order of the tiles.
  const TITLES = {
    symbols: "symbols", fresh: "fresh", late: "late", stale: "stale", empty: "without bars",
    features_behind: "features behind",
  };
  let refreshSeconds = 30;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const cell = (content, className) => {
    const made = element("td", undefined, className);
    made.append(content ?? "–");
    return made;
  };
  const number = (value) => cell(value === null ? null : value.toLocaleString("en"), "mm-number");
  const time = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : null);
  const duration = (step) => {
    if (!step.finished_at) return "running";
    const seconds = Math.round((new Date(step.finished_at) - new Date(step.started_at)) / 1000);
    return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
  const row = (cells) => {
    const made = element("tr");
    made.append(...cells);
    return made;
  };

  function pipelineRows(pipeline) {
    const link = element("a", pipeline.display_name);
    link.href = root.dataset.gridUrl.replace("DAG_ID", encodeURIComponent(pipeline.dag_id));
    if (!pipeline.last_run) return [row([cell(link), cell("no run yet"), ...Array.from({ length: 6 }, () => cell())])];
    const run = pipeline.last_run;
    link.href += `?dag_run_id=${encodeURIComponent(run.run_id)}`;
    link.title = run.run_id;
    return run.steps.map((step, index) => {
      const failed = number(step.failed);
      if (step.failed) failed.classList.add("text-danger");
      return row([
        cell(index ? "" : link), cell(index ? "" : time(run.tick)), cell(step.step),
        number(step.served), failed, number(step.rows_written), cell(time(step.started_at)), cell(duration(step)),
      ]);
    });
  }

  function symbolRow(symbol) {
    return row([
      cell(symbol.symbol), cell(time(symbol.newest_bar)), number(symbol.bars_behind), number(symbol.features_behind),
      cell(element("span", TITLES[symbol.freshness], `label label-${LABELS[symbol.freshness]}`)),
    ]);
  }

  function draw(data) {
    at("mm-source").textContent = data.source ? `${data.source} data` : "";
    at("mm-expected").textContent = time(data.expected_bar);
    at("mm-totals").replaceChildren(...Object.entries(TITLES).map(([name, title]) => {
      const tile = element("div", undefined, "mm-total");
      tile.dataset.total = name;
      tile.append(element("strong", data.totals[name].toLocaleString("en")), title);
      return tile;
    }));
    at("mm-pipelines").tBodies[0].replaceChildren(...data.pipelines.flatMap(pipelineRows));
    at("mm-symbols").tBodies[0].replaceChildren(...data.symbols.map(symbolRow));
    at("mm-content").hidden = false;
    at("mm-as-of").textContent = `${data.as_of.slice(0, 19).replace("T", " ")} UTC`;
  }

  function tell(state, message) {
    const box = at("mm-message");
    box.hidden = !message;
    box.dataset.state = state;
    box.className = `alert alert-${state === "empty" ? "info" : "danger"}`;
    box.textContent = message ? message[0].toUpperCase() + message.slice(1) : "";
    // What is still shown below a failure is of the time that stands above it.
    root.classList.toggle("mm-old", Boolean(message) && state !== "empty");
  }

  async function refresh() {
    try {
      const response = await fetch(root.dataset.url, { headers: { Accept: "application/json" } });
      // After a log-out the answer is the login page.
      if (response.redirected) return window.location.reload();
      const data = await response.json();
      refreshSeconds = data.refresh_seconds ?? refreshSeconds;
      if (response.ok) draw(data);
      tell(data.state, data.message);
    } catch {
      tell("unreachable", "the web server does not answer; what is shown is old");
    }
    at("mm-refresh").textContent = `, again every ${refreshSeconds} s`;
    return setTimeout(refresh, refreshSeconds * 1000);
  }
  refresh();
})();
