// Sets the corners of a zone or a mask on the picture of a camera, by mouse, finger or keys.
"use strict";
(() => {
  const svg = document.getElementById("areas");
  const field = document.getElementById("corners");
  const drawn = document.getElementById("drawn"), cross = document.getElementById("cross");
  let corners = [];
  let at = { x: 0.5, y: 0.5 };

  const share = (value) => Math.min(1, Math.max(0, Math.round(value * 1000) / 1000));

  function draw(shows) {
    drawn.setAttribute("points", corners.map((corner) => `${corner.x},${corner.y}`).join(" "));
    cross.setAttribute("d", shows ? `M${at.x - 0.03} ${at.y}h0.06M${at.x} ${at.y - 0.03}v0.06` : "");
  }

  function tell() {
    field.value = corners.map((corner) => `${corner.x},${corner.y}`).join(",");
  }

  svg.addEventListener("click", (event) => {
    const place = svg.getBoundingClientRect();
    at = { x: share((event.clientX - place.left) / place.width), y: share((event.clientY - place.top) / place.height) };
    corners.push(at);
    tell();
    draw(false);
  });

  svg.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.01;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const [x, y] = moves[event.key];
      at = { x: share(at.x + x), y: share(at.y + y) };
    } else if (event.key === "Enter") {
      corners.push(at);
    } else if (event.key === "Backspace") {
      corners.pop();
    } else {
      return;
    }
    event.preventDefault();
    tell();
    draw(true);
  });

  field.addEventListener("input", () => {
    const values = field.value.split(",").map(Number);
    corners = [];
    for (let i = 0; i + 1 < values.length; i += 2) corners.push({ x: share(values[i] || 0), y: share(values[i + 1] || 0) });
    draw(false);
  });

  document.getElementById("again").addEventListener("click", () => {
    corners = [];
    tell();
    draw(false);
  });
})();
