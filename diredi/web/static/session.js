// Tells when a session has ended under a page, or the service does not answer.
"use strict";
(() => {
  const away = document.getElementById("away");
  const tell = (isAway) => { if (away) away.hidden = !isAway; };
  document.addEventListener("htmx:after:request", (event) => {
    const status = event.detail.ctx?.response?.status;
    if (status === 401) {
      event.preventDefault();
      window.location.reload();
    } else {
      tell(false);
    }
  });
  document.addEventListener("htmx:error", () => tell(true));
  document.addEventListener("htmx:sse:after:connection", () => tell(false));
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) window.location.reload();
    else tell(true);
  });
})();
