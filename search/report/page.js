"use strict";
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const look = () => {
    const found = { "font.color": colour("--ink"), "hoverlabel.bgcolor": colour("--card") };
    found["hoverlabel.font.color"] = colour("--ink");
    for (const axis of ["xaxis", "yaxis"]) {
      found[axis + ".gridcolor"] = colour("--line");
      found[axis + ".linecolor"] = colour("--soft");
    }
    return found;
  };
  const put = (layout, values) => {
    for (const [path, value] of Object.entries(values)) {
      const keys = path.split(".");
      const last = keys.pop();
      let place = layout;
      for (const key of keys) place = place[key] = place[key] || {};
      place[last] = value;
    }
    return layout;
  };
  const fine = matchMedia("(pointer: fine)").matches; // on a phone a finger scrolls the page
  const plots = [...document.querySelectorAll(".plot")];
  if (!plots.length || typeof Plotly === "undefined") return;
  for (const plot of plots) {
    const chart = JSON.parse(document.getElementById(plot.dataset.chart).textContent);
    const layout = put(chart.layout, look());
    layout.font.family = "system-ui, sans-serif";
    layout.font.size = 12;
    layout.dragmode = fine ? "zoom" : false;
    plot.closest("figure").classList.add("drawn"); // a chart is measured where it is seen
    Plotly.newPlot(plot, chart.data, layout, { responsive: true, displayModeBar: false });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots) Plotly.relayout(plot, look());
  });
})();
