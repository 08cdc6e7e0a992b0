// Debian's Chromium, started so that it runs as root in a namespace and talks to nobody but the page.

import { chromium } from 'playwright-core';

const QUIET = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--autoplay-policy=no-user-gesture-required',
  // The relay's certificate in the tests is signed by nobody.
  '--ignore-certificate-errors',
];

/** A browser that starts on a busy machine needs its time. */
const START_TIMEOUT_MS = 80_000;

const FAKE_MEDIA = [
  '--use-fake-device-for-media-stream=fps=15',
  '--use-fake-ui-for-media-stream',
  '--auto-select-desktop-capture-source=Entire screen',
];

/**
 * Opens a browser.
 *
 * @param {object} options
 * @param {string} options.origin of the page; treated as a secure context though it is plain http
 * @param {string} [options.profile] an empty folder; default: one of playwright's own
 * @param {boolean} [options.fakeMedia] a made-up camera and microphone, without asking
 * @param {object} [options.context] options of the browser context
 */
export function open({ origin, profile = '', fakeMedia = true, context = {} }) {
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    timeout: START_TIMEOUT_MS,
    // Host candidates carry addresses, not mDNS names that nobody in the namespaces answers for.
    args: [
      ...QUIET,
      ...(fakeMedia ? FAKE_MEDIA : []),
      '--disable-features=WebRtcHideLocalIpsWithMdns',
      `--unsafely-treat-insecure-origin-as-secure=${origin}`,
    ],
    ...context,
  });
}

/**
 * Opens a browser with one page, whose few methods another browser could have as well.
 *
 * @param {{origin: string, profile: string, init: () => void, log: (text: string) => void}} options `init` runs before any
 *   script of a page
 */
export async function openPage({ origin, profile, init, log }) {
  const context = await open({ origin, profile });
  const page = context.pages()[0] ?? (await context.newPage());
  page.on('console', (message) => log(`console ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => log(`page error: ${error.stack}`));
  await page.addInitScript(init);
  return {
    goto: (url) => page.goto(url),
    evaluate: (code, argument) => page.evaluate(code, argument),
    click: (selector, timeout) => page.click(selector, { timeout }),
    waitFor: (code, timeout) => page.waitForFunction(code, undefined, { timeout }),
    screenshot: (path) => page.screenshot({ path }),
    close: () => context.close(),
  };
}
