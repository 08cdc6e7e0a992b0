// The example of docs/examples, as it is, in two pages with the stock client's script:
//
//   node example-call.mjs URL
//
// Ends with {"frames": [of each page]} once both have played some video.

import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { open } from './chromium.mjs';

const [url] = process.argv.slice(2);
const FRAMES = 30;
const TIMEOUT_MS = 60_000;
const SERVED = {
  '/example.html': ['text/html', '<!doctype html><video id="video" autoplay playsinline></video><script src="socket.io.min.js"></script><script src="example.js" type="module"></script>'],
  '/socket.io.min.js': ['text/javascript', await readFile(resolve(import.meta.dirname, 'node_modules/socket.io-client/dist/socket.io.min.js'))],
  '/example.js': ['text/javascript', await readFile(resolve(import.meta.dirname, '../../docs/examples/socketio-call.js'))],
};

const browser = await open({ origin: new URL(url).origin });
try {
  for (const [path, [contentType, body]] of Object.entries(SERVED)) {
    await browser.route(new URL(path, url).href, (route) => route.fulfill({ contentType, body }));
  }
  const pages = [];
  for (let count = 0; count < 2; count += 1) {
    const page = await browser.newPage();
    page.on('pageerror', (error) => console.error(`page error: ${error.stack}`));
    const told = page.waitForEvent('console', { predicate: (message) => message.text().includes('USER_OFFLINE'), timeout: TIMEOUT_MS });
    await page.goto(new URL('/example.html', url).href);
    // The first to come is told that nobody is there.
    if (count === 0) await told;
    else told.catch(() => {});
    pages.push(page);
  }
  const frames = [];
  for (const page of pages) {
    const played = () => document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames;
    await page.waitForFunction(`(${played})() > ${FRAMES}`, undefined, { timeout: TIMEOUT_MS });
    frames.push(await page.evaluate(played));
  }
  console.log(JSON.stringify({ frames }));
} finally {
  await browser.close();
}
