// One participant: a real browser on the demo page, driven through stdin and stdout.
//
//   node browser-call.mjs PROFILE_DIR
//
// A command a line in, JSON a line out. Each command has one line {"reply": command, …} or {"reply": command, "error": …};
// besides, every change of the page's state is told as {"event": "state", …}.
//
//   open URL NAME ROOM [relay] [token=…]   starts the browser and enters the room
//   state                        what the page says: state, path, candidate types, framesDecoded
//   call | accept | decline | hangup
//   drop                         cuts the signaling connection, and waits until the page has noticed
//   stats                        the statistics of every connection
//   shot FILE                    a screenshot
//   get URL                      {status, body}; 0 when there is no answer
//   quit

import { createInterface } from 'node:readline';
import { open as openBrowser } from './chromium.mjs';

const [profile] = process.argv.slice(2);
const CLICK_TIMEOUT_MS = 30_000;
let context;
let page;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const readState = () => page.evaluate(() => ({
  ...document.body.dataset,
  framesDecoded: Number(document.body.dataset.framesDecoded ?? 0),
  notice: document.getElementById('notice').hidden ? '' : document.getElementById('notice-text').textContent,
}));

const click = async (selector) => {
  await page.click(selector, { timeout: CLICK_TIMEOUT_MS });
  return readState();
};

const commands = {
  async open(url, name, room, ...options) {
    context = await openBrowser({ origin: new URL(url).origin, profile });
    page = context.pages()[0] ?? (await context.newPage());
    page.on('console', (message) => console.error(`console ${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => console.error(`page error: ${error.stack}`));
    await page.exposeFunction('tellState', (state) => say({ event: 'state', ...state }));
    await page.addInitScript(() => {
      globalThis.sockets = [];
      globalThis.WebSocket = class extends WebSocket {
        constructor(...args) {
          super(...args);
          globalThis.sockets.push(this);
        }
      };
    });
    const token = options.find((option) => option.startsWith('token='))?.slice('token='.length);
    await page.goto(`${url}#${new URLSearchParams({ room, name, ...(token && { token }) })}`);
    await page.evaluate(() => {
      const tell = () => globalThis.tellState({ ...document.body.dataset });
      new MutationObserver(tell).observe(document.body, { attributeFilter: ['data-state', 'data-path'] });
    });
    if (options.includes('relay')) await page.click('label:has(#relay-only)');
    await page.click('#enter');
    await page.waitForFunction(() => document.body.dataset.state !== 'lobby', undefined, { timeout: CLICK_TIMEOUT_MS });
    return readState();
  },
  state: () => readState(),
  call: () => click('#call'),
  accept: () => click('#accept'),
  decline: () => click('#decline'),
  hangup: () => click('#hangup'),
  async drop() {
    await page.evaluate(() => globalThis.sockets.at(-1).close());
    const noticed = () => globalThis.sockets.at(-2)?.readyState === WebSocket.CLOSED || document.body.dataset.server !== 'ready';
    await page.waitForFunction(noticed, undefined, { timeout: CLICK_TIMEOUT_MS });
    return readState();
  },
  stats: async () => ({
    peers: await page.evaluate(async () => Object.fromEntries((await globalThis.passerelle.call?.stats()) ?? [])),
  }),
  async shot(path) {
    await page.screenshot({ path });
  },
  async get(url) {
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(5_000) });
      return { status: response.status, body: await response.text() };
    } catch (error) {
      return { status: 0, body: String(error.cause ?? error) };
    }
  },
};

async function quit() {
  await context?.close().catch(() => {});
  process.exit(0);
}

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = line.trim().split(/\s+/);
  if (name === 'quit') break;
  try {
    if (!Object.hasOwn(commands, name)) throw new Error('unknown command');
    say({ reply: line, ...(await commands[name](...words)) });
  } catch (error) {
    say({ reply: line, error: String(error.message ?? error) });
  }
}
await quit();
