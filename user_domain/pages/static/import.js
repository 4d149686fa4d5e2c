// Sends the chosen file as it is, and shows the page that answers.
"use strict";
(() => {
  const form = document.getElementById("import");
  const told = document.getElementById("import-told");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = form.elements.file.files[0];
    const camera = form.elements.camera.value.trim();
    form.querySelector("button").disabled = true;
    told.hidden = false;
    try {
      const answer = await fetch(`${form.action}?camera=${encodeURIComponent(camera || "imported")}`, {
        method: "POST",
        body: file,
        headers: {
          "Accept": "text/html",
          "Content-Type": "application/zip",
          "X-CSRF-Token": document.querySelector('meta[name="csrf"]').content,
        },
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = page.querySelector("main");
      document.querySelector("main").replaceWith(document.adoptNode(main));
      main.focus();
    } catch {
      told.textContent = form.dataset.failed;
      form.querySelector("button").disabled = false;
    }
  });
})();
