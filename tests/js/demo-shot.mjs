// Pictures of a running call.
//
//   node demo-shot.mjs [URL]
//
// Opens the demo page, makes a call, and writes what it looks like into demo-shots/: lobby, ringing, wide, narrow, four
// (people), history and history-narrow. Without a URL it starts the program that `cargo build` made, on ports of its own,
// stops it afterwards, and has one picture more: away, taken while the server is gone.

import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { open } from './chromium.mjs';

const ROOT = resolve(import.meta.dirname, '../..');
const FOLDER = join(ROOT, 'demo-shots');
const TIMEOUT_MS = 30_000;

const CONFIGURATION = `
[listen]
udp = ["127.0.0.1:0"]
tcp = []
http = ["127.0.0.1:0"]
metrics = []
[turn]
secrets = ["only for pictures, and gone with them"]
[relay]
addresses = ["127.0.0.1"]
allow_peers = ["127.0.0.0/8"]
[auth]
anonymous = "loopback"
[store]
url = "sqlite::memory:"
[log]
format = "json"
`;

/** Starts the program, and resolves with the address that it logs for its pages. */
async function startServer() {
  const folder = await mkdtemp(join(tmpdir(), 'passerelle-demo-'));
  const config = join(folder, 'passerelle.toml');
  await writeFile(config, CONFIGURATION, { mode: 0o600 });
  const program = join(ROOT, 'target/debug/passerelle');
  const server = spawn(program, ['run', '--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((done) => server.on('close', done));
  const stop = async () => {
    server.kill();
    await ended;
    await rm(folder, { recursive: true });
  };
  const log = [];
  const address = await new Promise((found) => {
    createInterface({ input: server.stderr }).on('line', (line) => {
      log.push(line);
      const [, address] = /"listener":"http","address":"([^"]+)"/.exec(line) ?? [];
      if (address) found(address);
    });
    server.on('error', (error) => log.push(`${error.message}: run cargo build`));
    ended.then(() => found(undefined));
  });
  if (address) return { url: `http://${address}/`, stop, kill: () => server.kill('SIGKILL') };
  await stop();
  throw new Error(`the server does not start:\n${log.join('\n')}`);
}

async function enter(url, name, context) {
  const browser = await open({ origin: new URL(url).origin, fakeMedia: false, context });
  const page = browser.pages()[0] ?? (await browser.newPage());
  await page.goto(`${url}#${new URLSearchParams({ room: 'blue', name })}`);
  await page.click('#enter');
  await state(page, 'idle');
  return { browser, page };
}

const state = (page, wanted) => page.waitForSelector(`body[data-state="${wanted}"]`, { timeout: TIMEOUT_MS });

async function shoot(page, name) {
  const path = join(FOLDER, `${name}.png`);
  await page.screenshot({ path });
  console.log(path);
}

async function connected(page, peers) {
  await state(page, 'connected');
  const decodes = (count) => document.body.dataset.peers === count && Number(document.body.dataset.slowest) > 30;
  await page.waitForFunction(decodes, String(peers), { timeout: TIMEOUT_MS });
}

const WIDE = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 };

async function picture({ url, kill }, people) {
  const come = async (name, context) => {
    people.push(await enter(url, name, context));
    return people.at(-1).page;
  };
  const wide = await come('Ana Lima', { ...WIDE, colorScheme: 'light' });
  const narrow = await come('Bruno', { ...PHONE, colorScheme: 'dark' });
  await wide.click('#call');
  await state(narrow, 'ringing');
  await shoot(narrow, 'ringing');
  await narrow.click('#accept');
  await Promise.all([wide, narrow].map((page) => connected(page, 1)));
  await shoot(wide, 'wide');
  await shoot(narrow, 'narrow');
  for (const name of ['Carla Souza', 'Davi']) {
    const page = await come(name, { ...WIDE, colorScheme: 'dark' });
    await page.click('#call');
  }
  const pages = people.map(({ page }) => page);
  await Promise.all(pages.map((page) => connected(page, 3)));
  await shoot(wide, 'four');
  await shoot(narrow, 'four-narrow');
  for (const page of pages.slice(1)) {
    await page.click('#hangup');
    await state(page, 'idle');
  }
  await wide.click('#hangup');
  for (const page of [narrow, wide]) {
    await page.waitForFunction(() => Number(document.body.dataset.history) > 0, undefined, { timeout: TIMEOUT_MS });
  }
  await wide.click('#notice-close');
  await shoot(wide, 'history');
  await shoot(narrow, 'history-narrow');
  if (kill) await pictureOfAbsence(pages, kill);
  await narrow.click('#leave');
  await shoot(narrow, 'lobby');
}

/** The call of two whose server is gone. */
async function pictureOfAbsence([wide, narrow], kill) {
  await wide.click('#call');
  await state(narrow, 'ringing');
  await narrow.click('#accept');
  await Promise.all([wide, narrow].map((page) => connected(page, 1)));
  kill();
  for (const [page, name] of [[wide, 'away'], [narrow, 'away-narrow']]) {
    await page.waitForSelector('body[data-server="reconnecting"]', { timeout: TIMEOUT_MS });
    await shoot(page, name);
    await page.click('#hangup');
    await state(page, 'idle');
  }
}

await mkdir(FOLDER, { recursive: true });
const [given] = process.argv.slice(2);
const server = given ? { url: given, stop: () => {} } : await startServer();
const people = [];
try {
  await picture(server, people);
} finally {
  await Promise.all(people.map(({ browser }) => browser.close()));
  await server.stop();
}
