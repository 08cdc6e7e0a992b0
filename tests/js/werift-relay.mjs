// Two peers of werift that know only the relay, and a data channel between them.
//
//   node werift-relay.mjs URL USERNAME PASSWORD
//
// URL is turn:HOST:PORT?transport=udp, …?transport=tcp or turns:…?transport=tcp. A line for each thing that worked; any
// failure is exit code 1.

import { RTCPeerConnection } from 'werift';

const [url, username, credential] = process.argv.slice(2);
const TIMEOUT_MS = 40_000;
const SIZES = [1, 3, 160, 1000];

const within = (what, promise) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`${what}: nothing within ${TIMEOUT_MS} ms`)), TIMEOUT_MS).unref()),
  ]);

const peer = () => new RTCPeerConnection({ iceServers: [{ urls: url, username, credential }], iceTransportPolicy: 'relay' });

const candidates = (description) => description.sdp.split('\r\n').filter((line) => line.startsWith('a=candidate:'));

/** Waits until every candidate is in the description. */
async function gathered(connection) {
  while (connection.iceGatheringState !== 'complete') await new Promise((done) => setTimeout(done, 20));
  const found = candidates(connection.localDescription);
  if (found.length === 0 || !found.every((line) => line.includes(' typ relay'))) throw new Error(`candidates: ${found}`);
  return connection.localDescription;
}

const one = peer();
const two = peer();
try {
  const channel = one.createDataChannel('test');
  const opened = new Promise((done) => channel.stateChanged.subscribe((state) => state === 'open' && done()));
  const remote = new Promise((done) => two.onDataChannel.subscribe(done));
  await one.setLocalDescription(await one.createOffer());
  await two.setRemoteDescription(await within('gathering', gathered(one)));
  await two.setLocalDescription(await two.createAnswer());
  await one.setRemoteDescription(await within('gathering', gathered(two)));
  console.log('gathered: ok');
  await within('opening', opened);
  const other = await within('the other side', remote);
  other.onMessage.subscribe((message) => other.send(message));
  for (const size of SIZES) {
    const data = Buffer.from(Array.from({ length: size }, (_, index) => index % 251));
    const echoed = new Promise((done) => channel.onMessage.once(done));
    channel.send(data);
    const answer = Buffer.from(await within(`${size} bytes`, echoed));
    if (!answer.equals(data)) throw new Error(`${size} bytes came back changed`);
  }
  console.log('relayed: ok');
  await Promise.all([one.close(), two.close()]);
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}
