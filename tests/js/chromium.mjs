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
];

/** A browser that starts on a busy machine needs its time. */
const START_TIMEOUT_MS = 80_000;

const FAKE_MEDIA = ['--use-fake-device-for-media-stream=fps=15', '--use-fake-ui-for-media-stream'];

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
