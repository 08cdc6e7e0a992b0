// One participant: a real browser on the demo page, driven through stdin and stdout.
//
//   node browser-call.mjs PROFILE_DIR
//
// A command a line in, JSON a line out: {"reply": command, …} or {"reply": command, "error": …}.
//
//   open URL NAME ROOM [relay] [token=…] [firefox]   starts the browser and enters the room
//   state                        what the page says: state, path, candidate types, framesDecoded
//   call | accept | decline | hangup | screen
//   microphone                   switches to the next microphone; {device} is the one in use then
//   drop                         cuts the signaling connection, and waits until the page has noticed
//   stats                        the statistics of every connection
//   shot FILE                    a screenshot
//   get URL                      {status, body}; 0 when there is no answer
//   quit

import { createInterface } from 'node:readline';
import { openPage as openChromium } from './chromium.mjs';
import { open as openFirefox } from './firefox.mjs';

const [profile] = process.argv.slice(2);
const CLICK_TIMEOUT_MS = 30_000;
let page;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const readState = () => page.evaluate(() => ({
  ...document.body.dataset,
  framesDecoded: Number(document.body.dataset.framesDecoded ?? 0),
  tiles: [...document.querySelectorAll('#tiles .tile')].map((tile) => ({ ...tile.dataset })),
  notice: document.getElementById('notice').hidden ? '' : document.getElementById('notice-text').textContent,
}));

const click = async (selector) => {
  await page.click(selector, CLICK_TIMEOUT_MS);
  return readState();
};

/** Remembers the WebSockets of the page. */
function rememberSockets() {
  globalThis.sockets = [];
  globalThis.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      globalThis.sockets.push(this);
    }
  };
}

const commands = {
  async open(url, name, room, ...options) {
    const start = options.includes('firefox') ? openFirefox : openChromium;
    page = await start({ origin: new URL(url).origin, profile, init: rememberSockets, log: console.error });
    const token = options.find((option) => option.startsWith('token='))?.slice('token='.length);
    await page.goto(`${url}#${new URLSearchParams({ room, name, ...(token && { token }) })}`);
    if (options.includes('relay')) await click('label:has(#relay-only)');
    await click('#enter');
    await page.waitFor(() => document.body.dataset.state !== 'lobby', CLICK_TIMEOUT_MS);
    return readState();
  },
  state: () => readState(),
  call: () => click('#call'),
  accept: () => click('#accept'),
  decline: () => click('#decline'),
  hangup: () => click('#hangup'),
  screen: () => click('#screen'),
  async microphone() {
    await click('#devices');
    await page.waitFor(() => document.getElementById('microphone-device').options.length > 1, CLICK_TIMEOUT_MS);
    await page.evaluate(() => {
      const select = document.getElementById('microphone-device');
      select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
      globalThis.chosen = select.value;
      select.dispatchEvent(new Event('change'));
    });
    const inUse = () => {
      const track = document.getElementById('self-video').srcObject.getAudioTracks()[0];
      return track?.getSettings().deviceId === globalThis.chosen && globalThis.chosen;
    };
    await page.waitFor(inUse, CLICK_TIMEOUT_MS);
    return { device: await page.evaluate(inUse) };
  },
  async drop() {
    await page.evaluate(() => globalThis.sockets.at(-1).close());
    const noticed = () => globalThis.sockets.at(-2)?.readyState === WebSocket.CLOSED || document.body.dataset.server !== 'ready';
    await page.waitFor(noticed, CLICK_TIMEOUT_MS);
    return readState();
  },
  stats: async () => ({
    peers: await page.evaluate(async () => Object.fromEntries((await globalThis.passerelle.call?.stats()) ?? [])),
  }),
  async shot(path) {
    await page.screenshot(path);
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
  await page?.close().catch(() => {});
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
