// Pictures of a running call.
//
//   node demo-shot.mjs [URL]
//
// Opens the demo page twice, makes a call, and writes ringing.png, wide.png and narrow.png into demo-shots/. Without a
// URL it starts the program that `cargo build` made, on ports of its own, and stops it afterwards.

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
  if (address) return { url: `http://${address}/`, stop };
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

async function picture(url, people) {
  people.push(await enter(url, 'Ana Lima', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' }));
  const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: 'dark' };
  people.push(await enter(url, 'Bruno', phone));
  const [{ page: wide }, { page: narrow }] = people;
  await wide.click('#call');
  await state(narrow, 'ringing');
  await shoot(narrow, 'ringing');
  await narrow.click('#accept');
  for (const page of [wide, narrow]) {
    await state(page, 'connected');
    const decodes = () => Number(document.body.dataset.framesDecoded) > 30 && document.body.dataset.path;
    await page.waitForFunction(decodes, undefined, { timeout: TIMEOUT_MS });
  }
  await shoot(wide, 'wide');
  await shoot(narrow, 'narrow');
  await wide.click('#hangup');
  await state(narrow, 'idle');
}

await mkdir(FOLDER, { recursive: true });
const [given] = process.argv.slice(2);
const server = given ? { url: given, stop: () => {} } : await startServer();
const people = [];
try {
  await picture(server.url, people);
} finally {
  await Promise.all(people.map(({ browser }) => browser.close()));
  await server.stop();
}
