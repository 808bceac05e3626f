// Forms work without this file. With it, a form marked data-live is sent without leaving the page, and a button marked
// data-every="MILLISECONDS" sends the form it belongs to again and again until it is pressed a second time.
"use strict";
(() => {
  let timer = 0, ticking = "", busy = false;
  const said = text => { document.getElementById("said").textContent = text; };
  const toggles = () => document.querySelectorAll("button[data-every]");

  function show(page, url) {
    const old = document.activeElement, id = old && old.id, main = document.getElementById("main");
    const caret = id && "selectionStart" in old ? [old.value, old.selectionStart, old.selectionEnd] : null;
    main.replaceChildren(...page.getElementById("main").childNodes);
    document.title = page.title;
    history.replaceState(null, "", url);
    const again = id && document.getElementById(id);
    if (again) {
      again.focus({ preventScroll: true });
      if (caret && again.value === caret[0] && again.setSelectionRange) again.setSelectionRange(caret[1], caret[2]);
    }
    const news = main.querySelector("[data-announce]");
    if (news) said(news.dataset.announce);
    ready();
  }

  async function send(form, by) {
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(new FormData(form, by));
      const answer = await fetch(form.action, { method: "POST", body, credentials: "same-origin" });
      show(new DOMParser().parseFromString(await answer.text(), "text/html"), answer.ok ? answer.url : location.href);
      if (!answer.ok) stop();
    } catch {
      stop();
      said("The program does not answer any more. Start it again.");
      document.getElementById("said").classList.remove("unseen");
    } finally {
      form.removeAttribute("aria-busy");
      busy = false;
    }
  }

  function stop() { clearInterval(timer); timer = 0; ticking = ""; mark(); }

  function mark() {
    for (const button of toggles()) {
      const on = ticking === button.id;
      button.hidden = false;
      button.setAttribute("aria-pressed", String(on));
      button.textContent = on ? button.dataset.stop : button.dataset.start;
    }
  }

  function ready() {
    mark();
    for (const box of document.querySelectorAll("[data-end]")) box.scrollTop = box.scrollHeight;
  }

  document.addEventListener("submit", event => {
    if (!event.target.matches("form[data-live]")) return;
    event.preventDefault();
    send(event.target, event.submitter);
  });
  document.addEventListener("click", event => {
    const button = event.target.closest("button[data-every]");
    if (!button) return;
    if (ticking) return stop();
    ticking = button.id;
    const tick = () => {
      const form = document.getElementById(ticking)?.form;
      if (!form) return stop();
      if (!document.hidden) send(form);
    };
    timer = setInterval(tick, Number(button.dataset.every));
    tick();
    mark();
  });
  ready();
})();
