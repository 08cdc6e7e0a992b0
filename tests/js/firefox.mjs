// Debian's Firefox, driven over WebDriver BiDi, so that it runs as root in a namespace and talks to nobody but the page.

import puppeteer from 'puppeteer-core';

/** A browser that starts on a busy machine needs its time. */
const START_TIMEOUT_MS = 80_000;

const PREFERENCES = {
  // A made-up camera and microphone, on a page that is plain http, without asking.
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.devices.insecure.enabled': true,
  'media.getusermedia.insecure.enabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  // Host candidates carry addresses, not mDNS names that nobody in the namespaces answers for.
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.gmp-manager.updateEnabled': false,
  'app.update.disabledForTesting': true,
  'browser.safebrowsing.downloads.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,none',
};

/**
 * Opens a browser with one page.
 *
 * @param {{profile: string, init: () => void, log: (text: string) => void}} options `init` runs before any script of a page
 */
export async function open({ profile, init, log }) {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
    headless: true,
    timeout: START_TIMEOUT_MS,
    protocolTimeout: START_TIMEOUT_MS,
    userDataDir: profile,
    extraPrefsFirefox: PREFERENCES,
  });
  const page = await browser.newPage();
  page.on('console', (message) => log(`console ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => log(`page error: ${error.stack}`));
  await page.evaluateOnNewDocument(init);
  return {
    goto: (url) => page.goto(url),
    evaluate: (code, argument) => page.evaluate(code, argument),
    click: (selector, timeout) => page.locator(selector).setTimeout(timeout).click(),
    waitFor: (code, timeout) => page.waitForFunction(code, { timeout, polling: 100 }),
    screenshot: (path) => page.screenshot({ path }),
    close: () => browser.close(),
  };
}
