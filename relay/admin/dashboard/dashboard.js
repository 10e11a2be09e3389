// Asks the relay's own API (docs/monitoring.md) and shows the answers. All that comes from mail is shown as text.

const at = (id) => document.getElementById(id);
const STATUS_EVERY = 2000; // milliseconds
const INSIDE_EVERY = 5000;
const STATES = ["queued", "active", "held", "failed", "delivered", "deleted"];
const MARKS = {
  queued: "waits", active: "waits", held: "bad", failed: "bad", delivered: "good", pending: "waits", bounced: "bad",
  expired: "bad", ambiguous: "waits", deferred: "waits",
};

let token = null; // for as long as this page is open, and nowhere else
let next = null; // the cursor of the page of messages behind those that are shown
let shown = null; // the queue id whose details are shown

class Refused extends Error {
  constructor(status, answer) {
    super(answer.remedy ? `${answer.error}: ${answer.remedy}` : (answer.error ?? `status ${status}`));
    this.status = status;
  }
}

async function ask(path, wish) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const request = wish === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(wish) };
  const response = await fetch(path, { ...request, signal: AbortSignal.timeout(10_000) });
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

function element(name, text, mark) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (mark) made.className = mark;
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const column = document.createElement("td");
    column.append(cell ?? "");
    made.append(column);
  }
  return made;
}

const marked = (word) => element("span", word, MARKS[word]);

function span(seconds) {
  if (seconds < 1) return "0 s";
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function moment(iso) {
  if (iso === null) return "";
  const time = new Date(iso);
  return time.toDateString() === new Date().toDateString() ? time.toLocaleTimeString() : time.toLocaleString();
}

function tile(label, value, mark) {
  const made = element("div", label);
  made.prepend(element("b", value, mark));
  return made;
}

function stateTile(state, count) {
  const made = tile(state, count.toLocaleString(), count && state !== "delivered" ? MARKS[state] : "");
  made.addEventListener("click", () => {
    if (token === null) return;
    at("state").value = state;
    attempt(() => look());
  });
  return made;
}

// -- for everybody ---------------------------------------------------------------------------------------------------

function showStatus(status) {
  at("hostname").textContent = status.hostname;
  document.title = `${status.healthy ? "" : "! "}${status.hostname} – sparkpost-relay`;
  at("facts").textContent = `version ${status.version}, up ${span(status.uptime_seconds)}, listening on `
    + status.listeners.flatMap((one) => one.addresses).join(", ");
  const verdict = at("verdict");
  verdict.className = status.healthy ? "good" : status.ready ? "waits" : "bad";
  verdict.textContent = status.healthy ? "Mail flows."
    : status.ready ? "Mail is taken, but not all of it can go now." : "No mail is taken.";
  at("problems").replaceChildren(...status.problems.map((one) =>
    element("li", `${[one.what, one.name].filter(Boolean).join(" ")}: ${one.reason}`)));
  const tiles = [tile("sessions with SparkPost", status.connections.idle + status.connections.busy)];
  if (status.spool?.messages) {
    tiles.unshift(...STATES.map((state) => stateTile(state, status.spool.messages[state])));
    tiles.push(tile("the oldest waits", span(status.spool.oldest_seconds)));
  }
  at("tiles").replaceChildren(...tiles);
}

async function watchStatus() {
  try {
    showStatus(await ask("api/v1/status"));
  } catch (error) {
    at("verdict").className = "bad";
    at("verdict").textContent = `The relay does not answer (${error.message}).`;
    at("problems").replaceChildren();
  }
  setTimeout(watchStatus, STATUS_EVERY);
}

// -- with the token --------------------------------------------------------------------------------------------------

async function showWays() {
  const [{ endpoints }, { credentials }] = await Promise.all([ask("api/v1/endpoints"), ask("api/v1/credentials")]);
  at("endpoints").replaceChildren(...endpoints.map((one) => row(
    one.endpoint, one.up ? element("span", "up", "good") : element("span", one.reason, "bad"),
    `${one.connections.busy} busy, ${one.connections.idle} idle`)));
  at("credentials").replaceChildren(...credentials.map((one) => row(
    one.credential,
    one.ok && !one.refused.length ? element("span", "ok", "good")
      : element("span", one.refused.map((login) => `${login.username}: ${login.reason}`).join("; ") || "held back", "bad"),
    one.host)));
}

function messageRow(message) {
  const chosen = element("input");
  chosen.type = "checkbox";
  chosen.value = message.id;
  chosen.setAttribute("aria-label", `Choose ${message.id}`);
  const open = element("button", message.id, "id");
  open.addEventListener("click", () => attempt(() => showDetail(message.id)));
  const to = message.recipients.map((one) => one.address);
  const some = to.length > 3 ? `${to.slice(0, 3).join(", ")} and ${to.length - 3} more` : to.join(", ");
  const due = message.state === "queued" ? moment(message.due) : "";
  return row(chosen, open, marked(message.state), message.identity, message.reverse_path || "<>", some,
    moment(message.accepted), due, message.attempts);
}

const choices = () => [...at("messages").querySelectorAll("input")];
const chosenIds = () => choices().filter((one) => one.checked).map((one) => one.value);

async function look(cursor = null) {
  let page = { messages: [], cursor };
  do { // a page of a search may be empty, and not the last
    const query = new URLSearchParams({ state: at("state").value, q: at("search").value, cursor: page.cursor ?? "" });
    page = await ask(`api/v1/messages?${query}`);
  } while (!page.messages.length && page.cursor !== null);
  const rows = page.messages.map(messageRow);
  if (cursor === null) at("messages").replaceChildren(...rows);
  else at("messages").append(...rows);
  next = page.cursor;
  at("more").hidden = next === null;
  at("nothing").hidden = next !== null || at("messages").childElementCount > 0;
  at("all").checked = false;
}

async function showDetail(id) {
  const message = await ask(`api/v1/messages/${id}`);
  shown = id;
  at("detail-id").textContent = id;
  const subaccount = message.subaccount === null ? "" : `, subaccount ${message.subaccount}`;
  const facts = {
    state: message.state, why: message.reason, "sent as": `${message.login ?? message.credential}${subaccount}`,
    from: message.reverse_path || "<>", size: `${message.size.toLocaleString()} octets`, came: moment(message.accepted),
    "possibly sent twice": message.possibly_sent_twice ? "yes" : "no",
  };
  at("detail-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  at("recipients").replaceChildren(...message.recipients.map((one) => row(one.address, marked(one.state), one.reply)));
  at("history").replaceChildren(...message.history.map((one) =>
    row(moment(one.time), one.endpoint, marked(one.outcome), one.reply)));
  at("header").textContent = message.header ?? "The content is not kept any more.";
  at("detail").hidden = false;
  at("detail").scrollIntoView({ block: "nearest" });
}

async function move(command) {
  const ids = chosenIds();
  if (!ids.length) {
    at("outcome").textContent = "Choose messages first.";
    return;
  }
  if (command === "delete" && !confirm(`Throw ${ids.length} message${ids.length > 1 ? "s" : ""} away?`)) return;
  const moved = [];
  for (let start = 0; start < ids.length; start += 500) {
    moved.push(...(await ask("api/v1/messages", { command, ids: ids.slice(start, start + 500) })).messages);
  }
  const failed = moved.filter((one) => one.error);
  await look();
  if (ids.includes(shown)) await showDetail(shown);
  at("outcome").textContent = `${command}: ${moved.length - failed.length} of ${moved.length}`
    + failed.slice(0, 3).map((one) => `; ${one.id}: ${one.error}`).join("");
}

async function attempt(work) {
  at("outcome").textContent = "";
  try {
    await work();
  } catch (error) {
    if (error.status === 401 || error.status === 403) lock(error.message);
    else at("outcome").textContent = error.message;
  }
}

function lock(reason) {
  token = null;
  at("refusal").textContent = reason;
  at("inside").hidden = true;
  at("unlock").hidden = false;
}

async function watchInside() {
  if (token === null) return;
  await attempt(async () => {
    await showWays();
    if (!chosenIds().length && at("messages").childElementCount <= 100) await look();
  });
  setTimeout(watchInside, INSIDE_EVERY);
}

at("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("token").value;
  at("token").value = "";
  try {
    await showWays();
  } catch (error) {
    lock(error.message);
    return;
  }
  at("refusal").textContent = "";
  at("unlock").hidden = true;
  at("inside").hidden = false;
  await attempt(() => look());
  setTimeout(watchInside, INSIDE_EVERY);
});
at("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => look());
});
at("more").addEventListener("click", () => attempt(() => look(next)));
at("all").addEventListener("change", () => choices().forEach((one) => { one.checked = at("all").checked; }));
for (const button of at("actions").querySelectorAll("button")) {
  button.addEventListener("click", () => attempt(() => move(button.dataset.command)));
}
watchStatus();
