// The interactive view of a report: a contact map on the left, the 20 x 20 couplings of the chosen pair on the right.
// Plain JavaScript and two canvases; no library and no network. The data stand in the page as JSON (see explorer.py).
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data.proteins.length) return;
  const GROUPED = "AFILVMWYDEKRHNQSTGPC";
  const find = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const [mapCanvas, pairCanvas] = [find("map"), find("couplings")];
  const choice = { protein: data.proteins[0], map: "", i: 0, j: 0, order: GROUPED };
  const view = { turn: [1, 0, 0, 0, 1, 0, 0, 0, 1], zoom: 1, from: null };

  function decode(protein) {
    if (protein.ready) return;
    for (const map of Object.values(protein.maps)) {
      const levels = new Uint16Array(bytes(map.values).buffer);
      // Level 65535 is a pair without a score: it is neither drawn nor ranked.
      map.has = (i, j) => levels[i * protein.length + j] < 65535;
      map.score = (i, j) => map.low + (levels[i * protein.length + j] / 65534) * (map.high - map.low);
      map.told = (i, j) => (map.has(i, j) ? `score ${map.score(i, j).toFixed(4)}` : "not computed");
    }
    protein.known = protein.truth ? bytes(protein.truth) : null;
    protein.state = (i, j) => (protein.known ? protein.known[i * protein.length + j] : 2);
    if (protein.couplings) {
      const stored = protein.couplings;
      stored.levels = new Int8Array(bytes(stored.values).buffer);
      stored.scale = new Float32Array(bytes(stored.scales).buffer);
      stored.index = new Map();
      const pairs = new Uint16Array(bytes(stored.pairs).buffer);
      for (let n = 0; n < stored.scale.length; n += 1) stored.index.set(pairs[2 * n] * 65536 + pairs[2 * n + 1], n);
    }
    if (protein.trace) protein.atoms = centred(new Float32Array(bytes(protein.trace).buffer));
    protein.ready = true;
  }

  // Positions about their centre, in units of the largest distance from it; NaN stays NaN.
  function centred(xyz) {
    const sum = [0, 0, 0];
    let count = 0;
    for (let n = 0; n < xyz.length; n += 3) if (!Number.isNaN(xyz[n])) {
      for (let k = 0; k < 3; k += 1) sum[k] += xyz[n + k];
      count += 1;
    }
    let radius = 1e-6;
    const moved = Array.from(xyz, (value, n) => value - sum[n % 3] / Math.max(1, count));
    for (let n = 0; n < moved.length; n += 3)
      if (!Number.isNaN(moved[n])) radius = Math.max(radius, Math.hypot(moved[n], moved[n + 1], moved[n + 2]));
    return moved.map((value) => value / radius);
  }

  function drawStructure() {
    const protein = choice.protein, canvas = find("structure");
    find("structure-part").style.display = protein.atoms ? "" : "none";
    if (!protein.atoms) return;
    const { turn, zoom } = view, pen = canvas.getContext("2d"), size = 0.46 * zoom * canvas.height;
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const place = (i) => {
      const at = protein.atoms.slice(3 * i, 3 * i + 3);
      const [x, y, z] = [0, 3, 6].map((k) => turn[k] * at[0] + turn[k + 1] * at[1] + turn[k + 2] * at[2]);
      return [canvas.width / 2 + size * x, canvas.height / 2 - size * y, z];
    };
    const shown = [];
    const add = (i, j, colour, width, alpha) => {
      const [first, second] = [place(i), place(j)];
      if (Number.isNaN(first[2] + second[2])) return;
      shown.push([(first[2] + second[2]) / 2, first, second, colour, width, alpha]);
    };
    for (let i = 0; i + 1 < protein.length; i += 1) {
      add(i, i + 1, `hsl(${220 - (220 * i) / protein.length},70%,45%)`, 6, 1);
    }
    const map = protein.maps[choice.map], count = Math.max(1, Math.round(Number(find("drawn").value) * protein.length));
    for (const [, i, j] of ranked(protein, map).slice(0, count))
      add(i, j, ["#d1242f", "#1a7f37", "#6e7781"][protein.state(i, j)], 2.5, 0.75);
    add(choice.i, choice.j, "#e4572e", 6, 1);
    shown.sort((x, y) => x[0] - y[0]);
    pen.lineCap = "round";
    for (const [depth, first, second, colour, width, alpha] of shown) {
      pen.globalAlpha = alpha * (0.55 + 0.45 * Math.max(0, Math.min(1, (depth + 1) / 2)));
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(first[0], first[1]);
      pen.lineTo(second[0], second[1]);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  // Turn about the vertical axis by `a`, about the horizontal one by `b`, in radians.
  function turnBy(a, b) {
    const times = (m, n) => [0, 1, 2].flatMap((r) => [0, 1, 2].map((c) =>
      m[3 * r] * n[c] + m[3 * r + 1] * n[3 + c] + m[3 * r + 2] * n[6 + c]));
    const [ca, sa, cb, sb] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b)];
    view.turn = times(times([1, 0, 0, 0, cb, -sb, 0, sb, cb], [ca, 0, sa, 0, 1, 0, -sa, 0, ca]), view.turn);
    drawStructure();
  }

  // The best pairs as CSV; an apostrophe keeps spreadsheets from taking an id for a formula.
  function csv() {
    const { protein, map } = choice, cell = (text) => {
      const plain = /^[=+@-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : String(text);
      return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const rows = ranked(protein, protein.maps[map]).map(([score, i, j], n) => [
      protein.id, map, n + 1, i, j, protein.numbers ? protein.numbers[i] : "", protein.numbers ? protein.numbers[j] : "",
      protein.sequence[i], protein.sequence[j], score.toPrecision(6),
      protein.known ? ["0", "1", ""][protein.state(i, j)] : "", rate(protein.maps[map], n)]);
    const head = ["protein", "map", "rank", "i", "j", "number_i", "number_j", "residue_i", "residue_j", "score", "contact",
      "fdr"];
    return [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  // The false discovery rate of the pair of this rank, from 0; empty without a store of null sequences.
  const rate = (map, rank) => (map.fdr && rank < map.fdr.length ? map.fdr[rank].toPrecision(3) : "");

  // The coupling of amino acid a at i with b at j, or null where the page does not hold this pair.
  function coupling(protein, i, j) {
    const stored = protein.couplings;
    if (!stored) return null;
    const n = stored.index.get(Math.min(i, j) * 65536 + Math.max(i, j));
    if (n === undefined) return null;
    return (a, b) => (stored.scale[n] / 127) * stored.levels[n * 400 + (i < j ? a * 20 + b : b * 20 + a)];
  }

  // An unresolved residue has no number in the structure: its place, from 1, in brackets.
  const number = (protein, i) => (protein.numbers ? protein.numbers[i] || `[${i + 1}]` : String(i + 1));
  const name = (protein, i) => `${protein.sequence[i]}${number(protein, i)}`;
  const words = ["not in contact", "in contact", "not known"];

  function quantiles(protein, map) {
    if (map.range) return map.range;
    const shown = [];
    for (let i = 0; i < protein.length; i += 1)
      for (let j = i + data.separation; j < protein.length; j += 1) if (map.has(i, j)) shown.push(map.score(i, j));
    shown.sort((x, y) => x - y);
    const at = (q) => (shown.length ? shown[Math.floor(q * (shown.length - 1))] : 0);
    map.range = [at(0.5), Math.max(at(0.995), at(0.5) + 1e-9)];
    return map.range;
  }

  function drawMap() {
    const protein = choice.protein, size = protein.length, map = protein.maps[choice.map];
    const [low, high] = quantiles(protein, map);
    const zoom = Math.max(1, Math.floor(1200 / size));
    mapCanvas.width = mapCanvas.height = size * zoom;
    const pen = mapCanvas.getContext("2d");
    for (let i = 0; i < size; i += 1) {
      for (let j = 0; j < size; j += 1) {
        let colour;
        if (Math.abs(i - j) < data.separation || !map.has(i, j)) colour = "#faf2d1";
        else if (j > i || !protein.known) {
          const grey = Math.round(255 * (1 - Math.min(1, Math.max(0, (map.score(i, j) - low) / (high - low)))));
          colour = `rgb(${grey},${grey},${grey})`;
        } else colour = ["#ffffff", "#1f59b3", "#faf2d1"][protein.state(i, j)];
        pen.fillStyle = colour;
        pen.fillRect(j * zoom, i * zoom, zoom, zoom);
      }
    }
    pen.strokeStyle = "#e4572e";
    pen.lineWidth = Math.max(2, zoom / 4);
    for (const [i, j] of [[choice.i, choice.j], [choice.j, choice.i]]) {
      pen.beginPath();
      pen.arc((j + 0.5) * zoom, (i + 0.5) * zoom, Math.max(9, 1.2 * zoom), 0, 7);
      pen.stroke();
    }
  }

  function drawPair() {
    const { protein, i, j, order } = choice, cell = 30, edge = 34;
    const values = coupling(protein, i, j);
    pairCanvas.width = pairCanvas.height = edge + 20 * cell + 4;
    const pen = pairCanvas.getContext("2d");
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, pairCanvas.width, pairCanvas.height);
    const map = protein.maps[choice.map];
    find("pair").textContent =
      `${name(protein, i)} and ${name(protein, j)}, ${Math.abs(i - j)} apart: ${map.told(i, j)}, ` +
      words[protein.state(i, j)];
    find("python").textContent = `In Python, where residues count from 0: store["${protein.id}"].couplings(${i}, ${j})`;
    find("missing").textContent = values ? "" : protein.couplings
      ? "The couplings of this pair are not in the page (the best-scored pairs are): open the store for it."
      : "The store keeps no Jacobian: run predict with keep=[contacts,jacobian] to see couplings.";
    pairCanvas.style.display = find("python").style.display = protein.couplings ? "" : "none";
    if (!values) return;
    let most = 1e-12;
    for (let a = 0; a < 20; a += 1) for (let b = 0; b < 20; b += 1) most = Math.max(most, Math.abs(values(a, b)));
    pen.font = "15px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let row = 0; row < 20; row += 1) {
      const a = data.alphabet.indexOf(order[row]);
      for (const [x, y, here] of [[edge / 2, edge + (row + 0.5) * cell, i], [edge + (row + 0.5) * cell, edge / 2, j]]) {
        pen.fillStyle = protein.sequence[here] === order[row] ? "#e4572e" : "#1c2733";
        pen.fillText(order[row], x, y);
      }
      for (let column = 0; column < 20; column += 1) {
        const share = values(a, data.alphabet.indexOf(order[column])) / most;
        const pale = Math.round(255 * (1 - Math.abs(share)));
        pen.fillStyle = share > 0 ? `rgb(255,${pale},${pale})` : `rgb(${pale},${pale},255)`;
        pen.fillRect(edge + column * cell, edge + row * cell, cell - 1, cell - 1);
      }
    }
    const [row, column] = [order.indexOf(protein.sequence[i]), order.indexOf(protein.sequence[j])];
    if (row >= 0 && column >= 0) {
      pen.strokeStyle = "#1c2733";
      pen.lineWidth = 2;
      pen.strokeRect(edge + column * cell, edge + row * cell, cell - 1, cell - 1);
    }
    find("range").textContent = `red: favoured together, up to +${most.toFixed(3)}; blue: disfavoured. ` +
      `Rows: ${name(protein, i)}, columns: ${name(protein, j)}; the frame is the wild type.`;
    pairCanvas.value = (row, column) =>
      values(data.alphabet.indexOf(order[row]), data.alphabet.indexOf(order[column]));
    pairCanvas.place = (event) => {
      const box = pairCanvas.getBoundingClientRect(), scale = pairCanvas.width / box.width;
      return [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at * scale - edge) / cell));
    };
  }

  function ranked(protein, map) {
    if (map.ranking) return map.ranking;
    const all = [];
    for (let i = 0; i < protein.length; i += 1)
      for (let j = i + data.separation; j < protein.length; j += 1)
        if (map.has(i, j)) all.push([map.score(i, j), i, j]);
    all.sort((x, y) => y[0] - x[0]);
    map.ranking = all.slice(0, Math.max(1, protein.length));
    return map.ranking;
  }

  function listPairs() {
    const protein = choice.protein, body = find("pairs").tBodies[0], rates = protein.maps[choice.map].fdr;
    body.replaceChildren();
    find("fdr").hidden = !(rates && rates.length);
    ranked(protein, protein.maps[choice.map]).forEach(([score, i, j], rank) => {
      const row = body.insertRow();
      const cells = [rank + 1, name(protein, i), name(protein, j), score.toFixed(4)];
      if (protein.known) cells.push(["no", "yes", "not known"][protein.state(i, j)]);
      else cells.push("");
      if (!find("fdr").hidden) cells.push(rate(protein.maps[choice.map], rank));
      cells.forEach((text) => { row.insertCell().textContent = text; });
      row.dataset.pair = `${i}-${j}`;
      row.addEventListener("click", () => select(i, j));
    });
  }

  function select(i, j) {
    choice.i = i;
    choice.j = j;
    drawMap();
    drawPair();
    drawStructure();
    for (const row of find("pairs").tBodies[0].rows)
      row.className = row.dataset.pair === `${Math.min(i, j)}-${Math.max(i, j)}` ? "chosen" : "";
  }

  function show(protein, mapName, pair) {
    decode(protein);
    choice.protein = protein;
    choice.map = mapName in protein.maps ? mapName : Object.keys(protein.maps)[0];
    find("choose-map").replaceChildren(...Object.keys(protein.maps).map((key) => new Option(key, key, false, key === choice.map)));
    find("summary").textContent = `${protein.length} residues, named by ` +
      (protein.numbers ? "the structure's numbers. " : "their place, counted from 1. ") + protein.summary;
    listPairs();
    const best = ranked(protein, protein.maps[choice.map])[0] || [0, 0, 0];
    select(...(pair || [best[1], best[2]]));
  }

  const cellOf = (event) => {
    const box = mapCanvas.getBoundingClientRect(), size = choice.protein.length;
    return [event.clientY - box.top, event.clientX - box.left].map((at) =>
      Math.min(size - 1, Math.max(0, Math.floor((at / box.width) * size))));
  };
  mapCanvas.addEventListener("mousemove", (event) => {
    const [i, j] = cellOf(event), protein = choice.protein;
    find("readout").textContent = `${name(protein, i)} and ${name(protein, j)}: ` +
      `${protein.maps[choice.map].told(i, j)}, ${words[protein.state(i, j)]}`;
  });
  mapCanvas.addEventListener("click", (event) => {
    const [i, j] = cellOf(event);
    if (i !== j) select(Math.min(i, j), Math.max(i, j));
  });
  mapCanvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = choice.protein.length - 1, at = (value) => Math.min(last, Math.max(0, value));
    const [i, j] = [at(choice.i + step[0]), at(choice.j + step[1])];
    if (i !== j) select(i, j);
  });
  pairCanvas.addEventListener("mousemove", (event) => {
    if (!pairCanvas.value) return;
    const [row, column] = pairCanvas.place(event);
    if (row < 0 || column < 0 || row > 19 || column > 19) return;
    const { i, j, order } = choice;
    find("value").textContent = `${order[row]} at ${number(choice.protein, i)}, ${order[column]} at ${number(choice.protein, j)}: ${pairCanvas.value(row, column).toFixed(4)}`;
  });
  find("choose-protein").append(...data.proteins.map((protein, n) => new Option(protein.id, n)));
  find("choose-protein").addEventListener("change", (event) => show(data.proteins[event.target.value], choice.map));
  find("choose-map").addEventListener("change", (event) => show(choice.protein, event.target.value, [choice.i, choice.j]));
  find("choose-order").addEventListener("change", (event) => {
    choice.order = event.target.value === "model" ? data.alphabet : GROUPED;
    drawPair();
  });
  const stage = find("structure");
  stage.addEventListener("pointerdown", (event) => {
    view.from = [event.clientX, event.clientY];
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!view.from) return;
    turnBy((event.clientX - view.from[0]) / 150, (event.clientY - view.from[1]) / 150);
    view.from = [event.clientX, event.clientY];
  });
  stage.addEventListener("pointerup", () => { view.from = null; });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.zoom = Math.min(8, Math.max(0.4, view.zoom * Math.exp(-event.deltaY / 600)));
    drawStructure();
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [0, -0.15], ArrowDown: [0, 0.15], ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    turnBy(...step);
  });
  find("drawn").addEventListener("change", drawStructure);
  find("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `${choice.protein.id.replace(/[^\w.-]+/g, "_")}.${choice.map}.pairs.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  // A link to one pair, residues counted from 1: report.html#1TEN_A:12-57
  const [, wanted, first, second] = decodeURIComponent(location.hash).match(/^#(.+):(\d+)-(\d+)$/) || [];
  const linked = data.proteins.find((protein) => protein.id === wanted);
  const inside = linked && [first, second].every((at) => at >= 1 && at <= linked.length) && first !== second;
  if (linked) find("choose-protein").value = data.proteins.indexOf(linked);
  show(linked || data.proteins[0], "contacts", inside ? [first - 1, second - 1] : null);
})();
