/**
 * The demo page: what a person sees of `passerelle.js`. Its whole state can be read from `document.body.dataset`
 * (`state`, `path`, `quality`, `server`, `media`, `peers`, `framesDecoded`, `localCandidate`, `remoteCandidate`, `screen`,
 * `history`, `lastEnd`).
 *
 * @module demo
 */

import { openDevice, showDevices } from './demo-devices.js';
import { clockText, showHistory } from './demo-history.js';
import { openMedia } from './demo-media.js';
import { Ringer } from './demo-sound.js';
import { connect } from './passerelle.js';

const $ = (id) => document.getElementById(id);
const show = (id, visible) => ($(id).hidden = !visible);
const { dataset } = document.body;

const ringer = new Ringer();
/** @type {import('./passerelle.js').Client | undefined} */
let client;
/** @type {import('./passerelle.js').Call | undefined} */
let call;
/** @type {import('./demo-media.js').Media | undefined} */
let media;
let me = '';
let room = '';
/** @type {string | undefined} for servers that admit nobody without: `#token=…`, which no server sees in a log */
let token;

/** For the console, and for whoever drives this page. */
globalThis.passerelle = {
  get client() {
    return client;
  },
  get call() {
    return call;
  },
};

const STATES = {
  idle: () => `In room “${room}”`,
  calling: () => 'Ringing',
  ringing: () => 'Incoming call',
  connecting: () => 'Connecting',
  connected: () => 'Connected',
  reconnecting: () => 'Reconnecting',
};
const SERVER = { ready: 'Connected to server', reconnecting: 'Reconnecting…', connecting: 'Connecting…', offline: 'Not connected' };
const PATHS = {
  direct: ['Direct', 'host to host', 'Media travels straight from host to host.'],
  stun: ['STUN', 'through NAT', 'Media travels straight between the two of you, through addresses found by STUN.'],
  relay: ['Relay', 'through this server', 'Media passes through the TURN relay of this server, still encrypted end to end.'],
};
const ERRORS = {
  USER_OFFLINE: 'Nobody else is in this room yet. Open this page in a second tab or send someone the link, then call again.',
  NOT_CONNECTED: 'The connection to the server is down. It is being restored; try again in a moment.',
  UNREACHABLE: 'The server cannot be reached. Is it running, and does it allow this page to connect?',
  TIMEOUT: 'The server did not answer in time. Try again.',
  NOT_AUTHENTICATED: 'This server wants a token: open this page with #token=…, or see auth.anonymous in its configuration.',
  PERMISSION_DENIED: 'The server does not allow this.',
  RATE_LIMIT_EXCEEDED: 'That was a little fast for the server. Wait a moment and try again.',
  CALL_NOT_FOUND: 'This call no longer exists.',
  DRAINING: 'The server is about to restart and starts no new calls.',
  MAX_PARTICIPANTS_REACHED: 'This call is full.',
};
const ENDINGS = {
  completed: 'The call has ended',
  rejected: 'Your call was declined',
  declined: 'Your call was declined',
  cancelled: 'The call was cancelled',
  missed: 'Nobody answered',
  busy: 'Everyone is busy',
  answeredElsewhere: 'Answered on another device',
  negotiationTimeout: 'The two browsers did not find each other in time',
  connectionLost: 'The connection was lost',
  kicked: 'You were removed from the call',
  banned: 'You were removed from the call for good',
};
const QUALITIES = { good: 'Good', fair: 'Fair', poor: 'Poor' };
const FAILURES = new Set(['failed', 'negotiationTimeout', 'connectionLost']);

// What is shown

function become(state) {
  const focused = [$('call'), $('hangup')].includes(document.activeElement);
  dataset.state = state;
  const inCall = ['connecting', 'connected', 'reconnecting'].includes(state);
  show('lobby', state === 'lobby');
  show('room-view', state !== 'lobby');
  $('stage').classList.toggle('in-call', inCall);
  $('state-text').textContent = STATES[state]?.() ?? '';
  const alone = inCall && $('tiles').childElementCount === 0;
  const waitingFor = call?.connectedAt ? 'Everyone else has left' : 'Connecting…';
  $('waiting-text').textContent = state === 'calling' ? `Ringing everyone in “${room}”…` : waitingFor;
  show('waiting', state === 'calling' || alone);
  show('call', state === 'idle' || state === 'ringing');
  show('hangup', inCall || state === 'calling');
  show('copy-link', !inCall);
  show('leave', !inCall && state !== 'calling');
  show('screen', inCall && Boolean(navigator.mediaDevices?.getDisplayMedia));
  show('history', !inCall && state !== 'calling' && $('history-list').childElementCount > 0);
  showAway();
  if (focused) $($('hangup').hidden ? 'call' : 'hangup').focus();
  $('hangup-text').textContent = state === 'calling' ? 'Cancel' : 'Hang up';
  $('relay-only').disabled = inCall || state === 'calling';
  ringer.play(state);
  document.title = state === 'ringing' ? 'Incoming call · passerelle' : 'passerelle';
}

function notify(text, kind = 'info') {
  $('notice-text').textContent = text;
  $('notice').dataset.kind = kind;
  show('notice', Boolean(text));
}

function report(error) {
  console.warn(error);
  notify(ERRORS[error.code] ?? `That did not work: ${error.message}`, 'error');
}

function showServer(state) {
  const wasAway = dataset.server === 'reconnecting';
  dataset.server = state in SERVER ? state : 'offline';
  $('server-text').textContent = SERVER[dataset.server];
  showAway();
  if (wasAway && state === 'ready' && call) notify('The server is back, and your call never stopped.');
}

/** Calls outlive the connection to the server, and even the server. */
function showAway() {
  show('away', Boolean(call) && dataset.server === 'reconnecting');
}

function showQuality(qualities = new Map()) {
  const levels = Object.keys(QUALITIES);
  const known = [...qualities.values()].filter(({ path }) => path);
  const [worst] = known.sort((a, b) => levels.indexOf(b.level) - levels.indexOf(a.level));
  dataset.quality = worst?.level ?? '';
  show('quality-chip', Boolean(worst));
  for (const [id, { level }] of qualities) tileOf({ id }).dataset.quality = level;
  if (!worst) return;
  const { level, roundTripMs, jitterMs, packetLoss, bitrate } = worst;
  $('quality-text').textContent = `${QUALITIES[level]}${roundTripMs === undefined ? '' : ` · ${roundTripMs} ms`}`;
  const facts = [`${(packetLoss * 100).toFixed(1)} % lost`, `jitter ${jitterMs ?? 0} ms`, `${Math.round(bitrate / 1000)} kbit/s`];
  $('quality-chip').title = facts.join(', ');
}

async function refreshHistory() {
  try {
    dataset.history = String(await showHistory($('history-list'), $('history-template'), client));
  } catch (error) {
    console.warn('passerelle: no history', error);
  }
  if (dataset.state === 'idle') become('idle');
}

function showPath(path) {
  dataset.path = path ?? '';
  show('path-chip', Boolean(path));
  if (!path) return;
  const [label, detail, explanation] = PATHS[path];
  $('path-chip').replaceChildren(label, ' ', Object.assign(document.createElement('small'), { textContent: detail }));
  $('path-chip').title = explanation;
}

const initials = (name) =>
  name
    .split(/\s+/)
    .map((word) => [...word][0] ?? '')
    .slice(0, 2)
    .join('')
    .toUpperCase();

function tileOf(participant) {
  const known = $('tiles').querySelector(`[data-participant="${CSS.escape(participant.id)}"]`);
  if (known) return known;
  const tile = $('tile-template').content.firstElementChild.cloneNode(true);
  tile.dataset.participant = participant.id;
  tile.dataset.video = 'none';
  $('tiles').append(tile);
  return tile;
}

function showParticipants(participants) {
  for (const tile of [...$('tiles').children]) {
    if (!participants.some(({ id }) => id === tile.dataset.participant)) tile.remove();
  }
  $('stage').dataset.tiles = String(participants.length);
  for (const participant of participants) {
    const tile = tileOf(participant);
    const name = participant.name ?? 'Guest';
    const hasStream = Boolean(tile.querySelector('video').srcObject);
    tile.dataset.audio = participant.audioEnabled ? 'on' : 'off';
    tile.dataset.video = !participant.videoEnabled && !participant.screenEnabled ? 'off' : hasStream ? 'on' : 'none';
    tile.dataset.screen = participant.screenEnabled ? 'on' : 'off';
    tile.dataset.link = participant.reconnecting ? 'reconnecting' : 'up';
    tile.querySelector('.avatar').textContent = initials(name);
    tile.querySelector('.who').textContent = name;
  }
  if (call) become(call.state);
}

function showStream({ participant, stream }) {
  const video = tileOf(participant).querySelector('video');
  if (video.srcObject !== stream) video.srcObject = stream;
  video.play().catch(() => notify('The browser waits for a click before it plays sound.'));
  showParticipants([...call.participants.values()]);
}

function showToggle(id, off, icon, [turnOff, turnOn]) {
  $(id).setAttribute('aria-pressed', String(off));
  $(id).setAttribute('aria-label', off ? turnOn : turnOff);
  $(id).title = `${off ? turnOn : turnOff} (${id === 'mute' ? 'M' : 'V'})`;
  $(id).querySelector('use').setAttribute('href', `#icon-${icon}${off ? '-off' : ''}`);
}

function showSelf() {
  const on = (kind) => media?.stream.getTracks().find((track) => track.kind === kind)?.enabled ?? false;
  $('self').dataset.audio = on('audio') ? 'on' : 'off';
  $('self').dataset.video = on('video') ? 'on' : 'off';
  $('self').classList.toggle('mirrored', media?.kind === 'camera');
  $('self-name').textContent = me;
  $('self-avatar').textContent = initials(me);
  showToggle('mute', !on('audio'), 'mic', ['Mute microphone', 'Unmute microphone']);
  showToggle('camera', !on('video'), 'camera', ['Turn camera off', 'Turn camera on']);
}

async function tick() {
  if (!call?.connectedAt) return;
  show('clock', true);
  $('duration').textContent = clockText(Math.floor((Date.now() - call.connectedAt) / 1000));
  const stats = [...(await call.stats()).values()];
  dataset.peers = String(stats.filter(({ path }) => path).length);
  dataset.slowest = String(Math.min(...stats.map((peer) => peer.framesDecoded)));
  dataset.framesDecoded = String(stats.reduce((sum, peer) => sum + peer.framesDecoded, 0));
  dataset.localCandidate = stats[0]?.localCandidateType ?? '';
  dataset.remoteCandidate = stats[0]?.remoteCandidateType ?? '';
}

// What happens

function adopt(next) {
  call = next;
  notify('');
  call.on('state', (state) => state !== 'ended' && become(state));
  call.on('participants', showParticipants);
  call.on('stream', showStream);
  call.on('path', showPath);
  call.on('quality', showQuality);
  call.on('screen', showScreen);
  call.on('error', (error) => console.warn('passerelle:', error));
  call.on('ended', onEnded);
  become(call.state);
}

function onEnded({ reason, duration, endedBy }) {
  const byMe = endedBy === client?.userId;
  const { direction, connectedAt } = call;
  call = undefined;
  $('incoming').close();
  $('tiles').replaceChildren();
  show('clock', false);
  showPath();
  showQuality();
  showScreen(false);
  for (const name of ['framesDecoded', 'slowest', 'peers']) delete dataset[name];
  dataset.lastEnd = reason;
  const missed = direction === 'incoming' && !connectedAt && !byMe;
  const text = missed && ['missed', 'cancelled'].includes(reason) ? 'You missed a call' : (ENDINGS[reason] ?? 'The call has ended');
  const seconds = duration ?? (connectedAt && Math.floor((Date.now() - connectedAt) / 1000));
  if (!(byMe && !connectedAt)) notify(seconds ? `${text} after ${clockText(seconds)}.` : `${text}.`, FAILURES.has(reason) ? 'error' : 'info');
  if (dataset.state === 'lobby') return;
  become('idle');
  // The record is written a moment after the call has ended.
  setTimeout(refreshHistory, 400);
}

function onIncoming(incoming) {
  if (call) return void incoming.decline('busy').catch(report);
  const { displayName, username } = incoming.initiator ?? {};
  const name = displayName ?? username ?? 'Someone';
  $('caller').textContent = name;
  $('caller-avatar').textContent = initials(name);
  $('caller-text').textContent = `is calling everyone in “${room}”`;
  adopt(incoming);
  $('incoming').showModal();
}

async function enter() {
  me = $('name').value.trim();
  room = $('room').value.trim();
  if (!me || !room) return;
  $('enter').disabled = true;
  notify('');
  showServer('connecting');
  try {
    client = await connect({ name: me, token });
    client.on('state', showServer);
    client.on('incoming', onIncoming);
    client.on('closed', onClosed);
    const { activeCall } = await client.joinRoom(room);
    $('call-text').textContent = activeCall ? 'Join call' : 'Call';
    refreshHistory();
    showServer(client.state);
    media = await openMedia(me);
    dataset.media = media.kind;
    $('media-note').textContent = media.note;
    $('self-video').srcObject = media.stream;
    history.replaceState(null, '', `#${new URLSearchParams({ room })}`);
    showSelf();
    become(call?.state ?? 'idle');
    $('call').focus();
  } catch (error) {
    report(error);
    await leave();
  } finally {
    $('enter').disabled = false;
  }
}

async function leave() {
  const leaving = client;
  client = undefined;
  await leaving?.close();
  media?.stop();
  media = undefined;
  become('lobby');
  showServer('offline');
}

async function onClosed(error) {
  if (!client || error.code === 'CLOSED') return;
  await leave();
  report(error);
}

const callOptions = () => ({ stream: media.stream, iceTransportPolicy: $('relay-only').checked ? 'relay' : undefined });

async function start() {
  if (call) return;
  $('call').disabled = true;
  $('call-text').textContent = 'Call';
  notify('');
  try {
    adopt(await client.call({ roomId: room, type: 'video', ...callOptions() }));
  } catch (error) {
    if (error.code === 'CALL_ALREADY_ACTIVE' && error.details.callId) await enterRunning(error.details.callId);
    else report(error);
  } finally {
    $('call').disabled = false;
  }
}

async function enterRunning(callId) {
  try {
    const joining = client.join(callId, callOptions());
    adopt(client.calls.get(callId));
    await joining;
  } catch (error) {
    report(error);
  }
}

async function accept() {
  $('incoming').close();
  try {
    await call?.accept(callOptions());
  } catch (error) {
    report(error);
  }
}

async function toggle(kind) {
  const track = media?.stream.getTracks().find((candidate) => candidate.kind === kind);
  if (!track) return;
  track.enabled = !track.enabled;
  showSelf();
  try {
    await (kind === 'audio' ? call?.setAudio(track.enabled) : call?.setVideo(track.enabled));
  } catch (error) {
    report(error);
  }
}

function showScreen(enabled) {
  dataset.screen = enabled ? 'on' : 'off';
  $('screen').setAttribute('aria-pressed', String(enabled));
  $('screen').setAttribute('aria-label', enabled ? 'Stop sharing' : 'Share screen');
  $('screen').title = `${enabled ? 'Stop sharing' : 'Share screen'} (S)`;
}

async function toggleScreen() {
  try {
    await (call?.sharesScreen ? call.stopScreen() : call?.shareScreen());
  } catch (error) {
    // Whoever closes the browser's question has changed their mind.
    if (error.name !== 'NotAllowedError') report(error);
  }
}

async function switchDevice(kind, deviceId) {
  try {
    const track = await openDevice(kind, deviceId);
    for (const old of media.stream.getTracks().filter((other) => other.kind === kind)) {
      track.enabled = old.enabled;
      media.stream.removeTrack(old);
      old.stop();
    }
    media.stream.addTrack(track);
    await call?.replaceTrack(track);
    showSelf();
  } catch (error) {
    report(error);
  }
}

const deviceSelects = () => ({ video: $('camera-device'), audio: $('microphone-device') });

async function copyLink() {
  const link = location.href.replace(/#.*/, `#${new URLSearchParams({ room })}`);
  try {
    await navigator.clipboard.writeText(link);
    notify('The link to this room is on the clipboard.');
  } catch {
    notify(`The link to this room: ${link}`);
  }
}

function onKey({ key, target, ctrlKey, metaKey, altKey }) {
  if (dataset.state === 'lobby' || ctrlKey || metaKey || altKey || target.matches('input:not([type=checkbox]), select')) return;
  if (key.toLowerCase() === 'm') toggle('audio');
  if (key.toLowerCase() === 'v') toggle('video');
  if (key.toLowerCase() === 's' && !$('screen').hidden) toggleScreen();
}

function prefill() {
  const link = new URLSearchParams(location.hash.slice(1));
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const invented = `${pick(['Calm', 'Bright', 'Swift', 'Merry', 'Gentle'])} ${pick(['Otter', 'Heron', 'Lynx', 'Finch', 'Fox'])}`;
  token = link.get('token') ?? undefined;
  $('name').value = link.get('name') ?? invented;
  $('room').value = link.get('room') ?? 'demo';
  ($('name').value && link.get('name') ? $('enter') : $('name')).focus();
}

$('enter-form').addEventListener('submit', (event) => {
  event.preventDefault();
  enter();
});
$('call').addEventListener('click', start);
$('hangup').addEventListener('click', () => call?.hangUp());
$('accept').addEventListener('click', accept);
$('decline').addEventListener('click', () => call?.decline());
$('incoming').addEventListener('cancel', () => call?.decline());
$('mute').addEventListener('click', () => toggle('audio'));
$('camera').addEventListener('click', () => toggle('video'));
$('screen').addEventListener('click', toggleScreen);
$('device-menu').addEventListener('toggle', ({ newState }) => newState === 'open' && media && showDevices(deviceSelects(), media.stream));
for (const [kind, select] of Object.entries(deviceSelects())) {
  select.addEventListener('change', () => switchDevice(kind, select.value));
}
$('copy-link').addEventListener('click', copyLink);
$('leave').addEventListener('click', leave);
$('notice-close').addEventListener('click', () => notify(''));
$('sound').addEventListener('change', ({ target }) => {
  ringer.enabled = target.checked;
  ringer.play(dataset.state);
});
document.addEventListener('keydown', onKey);
addEventListener('pagehide', () => client?.close());
setInterval(tick, 1000);
prefill();
showServer('offline');
