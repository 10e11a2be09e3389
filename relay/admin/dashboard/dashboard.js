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
let asked = {}; // the filter that the list of messages was made by
let looking = null; // the look at messages that is under way
let next = null; // the cursor of the page of messages behind those that are shown
let quick = true; // whether the first page of them took one question
let shown = null; // the queue id whose details are shown
let moving = false; // an action is under way
let trouble = ""; // what the watch could not do last

class Refused extends Error {
  constructor(status, answer) {
    super(answer.remedy ? `${answer.error}: ${answer.remedy}` : (answer.error ?? `no answer of a relay, status ${status}`));
    this.status = status;
  }
}

async function ask(path, wish) {
  const headers = token === null ? {} : { Authorization: `Bearer ${octets(token)}` };
  const request = wish === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(wish) };
  const response = await fetch(path, { ...request, signal: AbortSignal.timeout(10_000) });
  const answer = await response.json().catch((error) => {
    throw error instanceof SyntaxError ? new Refused(response.status, {}) : error; // a proxy, in HTML
  });
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

const octets = (text) => String.fromCharCode(...new TextEncoder().encode(text)); // UTF-8, as a header field takes it

// What has no shape of its own, or changes the direction of what stands beside it, is shown escaped.
const printable = (text) => String(text).replace(/(?![\t\n\r])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
  (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`);

function say(place, text) { // the same words once more would be read aloud once more
  if (place.textContent !== text) place.textContent = text;
}

function fill(place, children) { // what is as it was stays, and what has the focus keeps it
  const made = place.cloneNode(false);
  made.append(...children);
  if (made.innerHTML === place.innerHTML) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...made.childNodes);
  if (focused) at(focused)?.focus({ preventScroll: true });
}

function element(name, text, mark) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = printable(text);
  if (mark) made.className = mark;
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    const column = document.createElement("td");
    column.append(cell instanceof Node ? cell : printable(cell ?? ""));
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
  say(verdict, status.healthy ? "Mail flows."
    : status.ready ? "Mail is taken, but not all of it can go now." : "No mail is taken.");
  fill(at("problems"), status.problems.map((one) =>
    element("li", `${[one.what, one.name].filter(Boolean).join(" ")}: ${one.reason}`)));
  const tiles = [tile("sessions with SparkPost", status.connections.idle + status.connections.busy)];
  if (status.spool?.messages) {
    tiles.unshift(...STATES.map((state) => stateTile(state, status.spool.messages[state])));
    tiles.push(tile("the oldest waits", span(status.spool.oldest_seconds)));
  }
  fill(at("tiles"), tiles);
}

async function watchStatus() {
  try {
    showStatus(await ask("api/v1/status"));
  } catch (error) {
    at("verdict").className = "bad";
    say(at("verdict"), `The relay does not answer (${error.message}).`);
    at("problems").replaceChildren();
  }
  setTimeout(watchStatus, STATUS_EVERY);
}

// -- with the token --------------------------------------------------------------------------------------------------

async function showWays() {
  const [{ endpoints }, { credentials }] = await Promise.all([ask("api/v1/endpoints"), ask("api/v1/credentials")]);
  fill(at("endpoints"), endpoints.map((one) => row(
    one.endpoint, one.up ? element("span", "up", "good") : element("span", one.reason, "bad"),
    `${one.connections.busy} busy, ${one.connections.idle} idle`)));
  fill(at("credentials"), credentials.map((one) => row(
    one.credential,
    one.ok && !one.refused.length ? element("span", "ok", "good")
      : element("span", one.refused.map((login) => `${login.username}: ${login.reason}`).join("; ") || "held back", "bad"),
    one.host)));
}

function messageRow(message) {
  const chosen = element("input");
  chosen.type = "checkbox";
  chosen.id = `choose-${message.id}`;
  chosen.value = message.id;
  chosen.setAttribute("aria-label", `Choose ${message.id}`);
  const open = element("button", message.id, "id");
  open.id = `open-${message.id}`;
  open.addEventListener("click", () => attempt(() => showDetail(message.id)));
  const to = message.recipients.map((one) => one.address);
  const some = to.length > 3 ? `${to.slice(0, 3).join(", ")} and ${to.length - 3} more` : to.join(", ");
  const due = message.state === "queued" ? moment(message.due) : "";
  return row(chosen, open, marked(message.state), message.identity, message.reverse_path || "<>", some,
    moment(message.accepted), due, message.attempts);
}

const choices = () => [...at("messages").querySelectorAll("input")];
const chosenIds = () => choices().filter((one) => one.checked).map((one) => one.value);

// What is typed into the filter counts once it is sent; a newer look overtakes an older one.
async function look({ more = false, again = false } = {}) {
  const mine = looking = {};
  if (!more && !again) asked = { state: at("state").value, q: at("search").value };
  let page = { cursor: more ? next : null };
  let questions = 0;
  try {
    do { // a page of a search may be empty, and not the last
      page = await ask(`api/v1/messages?${new URLSearchParams({ ...asked, cursor: page.cursor ?? "" })}`);
      questions += 1;
      if (looking !== mine || (again && chosenIds().length)) return;
    } while (!page.messages.length && page.cursor !== null);
  } finally {
    if (looking === mine) looking = null;
  }
  const rows = page.messages.map(messageRow);
  if (!more) choices().forEach((one) => { one.checked = false; });
  if (more) at("messages").append(...rows);
  else fill(at("messages"), rows);
  if (!more) quick = questions === 1;
  next = page.cursor;
  at("more").hidden = next === null;
  at("nothing").hidden = next !== null || at("messages").childElementCount > 0;
  at("all").checked = false;
}

async function showDetail(id) {
  shown = id;
  const message = await ask(`api/v1/messages/${id}`);
  if (shown !== id) return;
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
  at("header").textContent = printable(message.header ?? "The content is not kept any more.");
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

function complain(error) {
  if (error.status === 401 || error.status === 403) lock(error.message);
  else say(at("outcome"), error.message);
}

async function attempt(work) {
  at("outcome").textContent = "";
  try {
    await work();
  } catch (error) {
    complain(error);
  }
}

function lock(reason) {
  token = null;
  at("refusal").textContent = reason;
  at("inside").hidden = true;
  at("unlock").hidden = false;
}

async function watchInside() {
  try {
    if (!at("inside").hidden) {
      await showWays();
      const still = looking === null && !chosenIds().length && at("messages").childElementCount <= 100;
      if (still && quick) await look({ again: true });
      if (at("outcome").textContent === trouble) at("outcome").textContent = "";
      trouble = "";
    }
  } catch (error) {
    trouble = error.message;
    complain(error);
  }
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
});
at("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => look());
});
at("more").addEventListener("click", () => attempt(() => look({ more: true })));
at("all").addEventListener("change", () => choices().forEach((one) => { one.checked = at("all").checked; }));
for (const button of at("actions").querySelectorAll("button")) {
  button.addEventListener("click", async () => {
    if (moving) return;
    moving = true;
    await attempt(() => move(button.dataset.command));
    moving = false;
  });
}
watchStatus();
watchInside();
