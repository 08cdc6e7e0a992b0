/**
 * The client of a passerelle server: calls between browsers, without dependencies and without a build step.
 *
 * ```js
 * import { connect } from './passerelle.js';
 *
 * const client = await connect({ url: 'https://calls.example.org', token });
 * client.on('incoming', async (call) => {
 *   call.on('stream', ({ stream }) => (video.srcObject = stream));
 *   await call.accept({ stream: await navigator.mediaDevices.getUserMedia({ audio: true, video: true }) });
 * });
 * await client.joinRoom('blue');
 * const call = await client.call({ roomId: 'blue', stream });
 * ```
 *
 * @module passerelle
 */

import { Call } from './call.js';
import { Emitter } from './emitter.js';
import { PasserelleError, Signaling } from './signaling.js';

export { Call } from './call.js';
export { PasserelleError } from './signaling.js';

const KEY = 'passerelle.anonymousKey';

/**
 * @typedef {object} ConnectOptions
 * @property {string | URL} [url] of the server; default: where the page is from
 * @property {string | (() => string | Promise<string>)} [token] of the user, or what gets a fresh one for each connection;
 *   anonymous servers need none
 * @property {string} [name] shown to the others when the token has none
 * @property {string} [anonymousKey] secret of 16 to 128 characters by which a user without a token is known again;
 *   default: one made up for this tab, that survives a reload
 *
 * @typedef {object} CallOptions
 * @property {string} [roomId] rings everyone else in the room
 * @property {string} [conversationId]
 * @property {string | string[]} [to] users to ring
 * @property {'video' | 'audio'} [type]
 * @property {MediaStream} [stream] what this side sends
 * @property {RTCIceTransportPolicy} [iceTransportPolicy] `relay` keeps this side's addresses private
 * @property {object} [metadata] at most 8 KiB
 * @property {number} [ringTimeoutMs]
 */

/**
 * Connects to a server. After the first success the client reconnects by itself: nothing is lost over a short
 * interruption, and after a long one, or a restart of the server, it joins rooms and calls again.
 *
 * @param {ConnectOptions} [options]
 * @returns {Promise<Client>}
 * @throws {import('./signaling.js').PasserelleError} when the server cannot be reached or refuses
 */
export async function connect(options = {}) {
  const settings = { anonymousKey: anonymousKey(), ...options };
  const signaling = new Signaling(settings);
  return new Client(signaling, await signaling.open(), settings);
}

/** A secret of this tab: whoever comes back with it is the same user. */
function anonymousKey() {
  const make = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  try {
    const key = sessionStorage.getItem(KEY) ?? make();
    sessionStorage.setItem(KEY, key);
    return key;
  } catch {
    // There is no storage here, or none is allowed.
    return make();
  }
}

/**
 * A connected user. Events: `state` (`ready` | `reconnecting` | `closed`), `incoming` ({@link Call}), `draining` (the
 * server is about to restart), `closed` (Error).
 */
export class Client extends Emitter {
  /** @type {string} */
  userId;
  /** @type {RTCIceServer[]} */
  iceServers = [];
  /** @type {Map<string, Call>} calls that have not ended */
  calls = new Map();

  #signaling;
  #rooms = new Set();
  #iceTransportPolicy;
  #maxKbps;
  #rest;

  /**
   * @param {Signaling} signaling
   * @param {any} ready payload of `session:ready`
   * @param {{url?: string | URL, anonymousKey?: string}} options
   */
  constructor(signaling, ready, { url = '/', anonymousKey }) {
    super();
    this.#signaling = signaling;
    this.#rest = { url, anonymousKey };
    this.#welcome(ready);
    signaling.on('state', (state) => this.emit('state', state));
    signaling.on('closed', (error) => this.#onClosed(error));
    signaling.on('ready', (again) => this.#onReconnected(again));
    signaling.on('event', ({ name, payload }) => this.#onEvent(name, payload));
    // Calls that ring already are told once the caller had the chance to listen.
    setTimeout(() => this.#ring(ready.activeCalls));
  }

  /** @returns {'connecting' | 'ready' | 'reconnecting' | 'closed'} */
  get state() {
    return this.#signaling.state;
  }

  /**
   * Enters a room: calls to the room ring here.
   *
   * @param {string} roomId
   * @returns {Promise<any>} what the server tells about the room
   */
  async joinRoom(roomId) {
    const answer = await this.#signaling.request('room:join', { roomId });
    this.#rooms.add(roomId);
    return answer;
  }

  /** @param {string} roomId */
  async leaveRoom(roomId) {
    this.#rooms.delete(roomId);
    await this.#signaling.request('room:leave', { roomId });
  }

  /**
   * Starts a call and rings the others.
   *
   * @param {CallOptions} options
   * @returns {Promise<Call>}
   * @throws {import('./signaling.js').PasserelleError} `USER_OFFLINE` when nobody can be rung; `CALL_ALREADY_ACTIVE`,
   *   with `details.callId`, when there is one to {@link Client.join}
   */
  async call({ type = 'video', stream, iceTransportPolicy, ...target }) {
    const answer = await this.#signaling.request('call:initiate', { type, ...target });
    const call = this.#adopt(answer.callId, { type, direction: 'outgoing', stream, iceTransportPolicy }, answer);
    if (answer.existing) call.welcome(answer.call, { offers: true });
    return call;
  }

  /**
   * Enters a call that is running.
   *
   * @param {string} callId
   * @param {{type?: 'video' | 'audio', stream?: MediaStream, iceTransportPolicy?: RTCIceTransportPolicy}} [options]
   * @returns {Promise<Call>}
   */
  async join(callId, { type = 'video', stream, iceTransportPolicy } = {}) {
    const call = this.calls.get(callId) ?? this.#adopt(callId, { type, direction: 'incoming' });
    await call.accept({ stream, iceTransportPolicy });
    return call;
  }

  /**
   * The calls of this user, the latest first.
   *
   * @param {{limit?: number, cursor?: string, direction?: 'incoming' | 'outgoing', status?: string}} [query]
   * @returns {Promise<{calls: any[], next: string | null}>} `next` is the cursor of the following page
   */
  async history(query = {}) {
    const token = await this.#signaling.token();
    const url = new URL('/api/v1/calls', new URL(this.#rest.url, globalThis.location?.href));
    url.protocol = url.protocol.replace(/^ws/, 'http');
    url.search = new URLSearchParams(Object.entries(query)).toString();
    const authorization = token ? `Bearer ${token}` : `Anonymous ${this.#rest.anonymousKey}`;
    const response = await fetch(url, { headers: { authorization } });
    const body = await response.json();
    if (response.ok) return body;
    throw new PasserelleError(body.error?.code ?? 'INTERNAL', body.error?.message ?? `the server answered ${response.status}`);
  }

  /** Leaves every call and closes the connection. */
  async close() {
    await Promise.all([...this.calls.values()].map((call) => call.hangUp()));
    this.#signaling.close();
  }

  #adopt(id, { iceTransportPolicy = this.#iceTransportPolicy, ...options }, { iceServers, ttl } = {}) {
    const configuration = { iceServers: iceServers ?? this.iceServers, ...(iceTransportPolicy && { iceTransportPolicy }) };
    const call = new Call({ id, signaling: this.#signaling, me: this.userId, configuration, ttl, maxKbps: this.#maxKbps, ...options });
    this.calls.set(id, call);
    call.on('ended', () => this.calls.delete(id));
    return call;
  }

  #welcome({ userId, iceServers = [], iceTransportPolicy, limits }) {
    this.userId = userId;
    this.iceServers = iceServers;
    this.#iceTransportPolicy = iceTransportPolicy;
    this.#maxKbps = limits?.maxKbps;
  }

  #onEvent(name, payload) {
    if (name === 'call:initiated') return this.#onInitiated(payload);
    if (name === 'session:draining') return this.emit('draining', payload);
    return this.calls.get(payload.callId)?.onEvent(name, payload);
  }

  #onInitiated({ callId, type, initiator, iceServers, self }) {
    if (self || initiator?.userId === this.userId || this.calls.has(callId)) return;
    this.emit('incoming', this.#adopt(callId, { type, direction: 'incoming', initiator }, { iceServers }));
  }

  /** Rings for calls whose invitation was sent while this user was away. */
  #ring(sessions = []) {
    for (const session of sessions) {
      const participant = (id) => session.participants?.find((one) => (one.userId ?? one.id) === id);
      if (!['invited', 'ringing'].includes(participant(this.userId)?.state)) continue;
      const { callId = session.id, type, initiatorId } = session;
      this.#onInitiated({ callId, type, initiator: { userId: initiatorId, ...participant(initiatorId) } });
    }
  }

  async #onReconnected(ready) {
    this.#welcome(ready);
    // Then everything that was missed follows, as events.
    if (ready.resumed) return;
    const alive = new Set((ready.activeCalls ?? []).map((session) => session.callId ?? session.id));
    for (const call of [...this.calls.values()]) {
      if (call.state === 'ringing' && !alive.has(call.id)) call.abandon('missed');
    }
    const rooms = [...this.#rooms].map((roomId) => this.#signaling.request('room:join', { roomId }));
    await Promise.allSettled(rooms);
    await Promise.all([...this.calls.values()].map((call) => call.rejoin()));
    this.#ring(ready.activeCalls);
  }

  #onClosed(error) {
    for (const call of [...this.calls.values()]) call.abandon('connectionLost');
    this.emit('closed', error);
  }
}
