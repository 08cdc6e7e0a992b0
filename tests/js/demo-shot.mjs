// Pictures of a running call.
//
//   node demo-shot.mjs [URL] [FOLDER]
//
// Opens the demo page of a running server twice, makes a call, and writes wide.png, narrow.png and ringing.png.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { open } from './chromium.mjs';

const [url = 'http://127.0.0.1:8080/', folder = 'demo-shots'] = process.argv.slice(2);
const TIMEOUT_MS = 30_000;

const state = (page, wanted) => page.waitForSelector(`body[data-state="${wanted}"]`, { timeout: TIMEOUT_MS });

async function enter(name, context) {
  const browser = await open({ origin: new URL(url).origin, fakeMedia: false, context });
  const page = browser.pages()[0] ?? (await browser.newPage());
  await page.goto(`${url}#${new URLSearchParams({ room: 'blue', name })}`);
  await page.click('#enter');
  await state(page, 'idle');
  return { browser, page };
}

async function shoot(page, name) {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  console.log(path);
}

await mkdir(folder, { recursive: true });
const people = [];
try {
  people.push(await enter('Ana Lima', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' }));
  people.push(
    await enter('Bruno', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: 'dark' }),
  );
  const [{ page: wide }, { page: narrow }] = people;
  await wide.click('#call');
  await state(narrow, 'ringing');
  await shoot(narrow, 'ringing');
  await narrow.click('#accept');
  for (const page of [wide, narrow]) {
    await state(page, 'connected');
    await page.waitForFunction(() => Number(document.body.dataset.framesDecoded) > 30, undefined, { timeout: TIMEOUT_MS });
  }
  await shoot(wide, 'wide');
  await shoot(narrow, 'narrow');
  await wide.click('#hangup');
} finally {
  await Promise.all(people.map(({ browser }) => browser.close()));
}
