/**
 * The transport: one session over WebSockets that speak `passerelle.v1.json`. It survives its sockets: what the server
 * sent meanwhile is replayed, and what this side asked for is asked again without being done twice. Knows nothing of
 * calls.
 *
 * @module signaling
 */

import { Emitter } from './emitter.js';

const SUBPROTOCOL = 'passerelle.v1.json';
const VERSION = '0.1.0';
/** How long an answer may take before the connection is taken for dead, and how long to a probe. */
const ANSWER_MS = 10_000;
const PROBE_MS = 3_000;
/** A connection that is silent for this long is probed. */
const SILENCE_MS = 20_000;
const READY_MS = 10_000;
const BACKOFF_MS = [300, 10_000];
/** Requests that may wait for the connection to come back. */
const PENDING_LIMIT = 256;
/** Received events are acknowledged with the next frame, after this many, or after this long. */
const ACK_EVENTS = 64;
const ACK_MS = 5_000;
/** Closes after which trying again cannot help: protocol, authentication, origin, taken over. */
const FATAL_CLOSES = new Set([4400, 4401, 4403, 4409]);
/** Refusals of a hello that stay refused. */
const FATAL_CODES = new Set(['NOT_AUTHENTICATED', 'TOKEN_EXPIRED', 'PERMISSION_DENIED', 'UNSUPPORTED_VERSION']);

/** A refusal of the server, or a failure on the way to it. */
export class PasserelleError extends Error {
  /**
   * @param {string} code wire code (`USER_OFFLINE`, …), or `NOT_CONNECTED`, `UNREACHABLE`, `CLOSED`
   * @param {string} message for people
   * @param {object} [details] further fields of the server's error (`callId`, `retryAfterMs`)
   */
  constructor(code, message, details = {}) {
    super(message);
    this.name = 'PasserelleError';
    this.code = code;
    this.details = details;
  }
}

/**
 * The address of the signaling endpoint.
 *
 * @param {string | URL} [url] of the server (`http`, `https`, `ws`, `wss`, or relative); default: where the page is from
 * @returns {string} WebSocket URL
 */
export function endpoint(url = '/') {
  const target = new URL(url, globalThis.location?.href);
  target.protocol = target.protocol.replace(/^http/, 'ws');
  if (target.pathname === '/') target.pathname = '/ws';
  target.hash = '';
  return target.href;
}

/**
 * Events: `state` (`connecting` | `ready` | `reconnecting` | `closed`), `ready` (payload of `session:ready`, whose
 * `resumed` says that nothing was lost), `event` (`{name, payload}` for every event of the server), `closed`
 * ({@link PasserelleError}).
 */
export class Signaling extends Emitter {
  /** @type {'connecting' | 'ready' | 'reconnecting' | 'closed'} */
  state = 'connecting';

  #url;
  #token;
  #hello;
  /** @type {WebSocket | undefined} */
  #socket;
  /** Requests without an answer, in the order they were made. */
  #pending = new Map();
  #nextId = 1;
  #attempt = 0;
  /** @type {{sid: string, key: string} | undefined} what a resume needs; the key is good once */
  #resume;
  /** Number of the last event of the session, and of the last that the server knows to have arrived. */
  #seen = 0;
  #acked = 0;
  #timers = {};
  #onChange = () => this.probe();

  /**
   * @param {object} options
   * @param {string | URL} [options.url]
   * @param {string | (() => string | Promise<string>)} [options.token] a function is asked before each connection
   * @param {string} [options.name]
   * @param {string} [options.anonymousKey] makes a user without a token the same one on every connection
   */
  constructor({ url, token, name, anonymousKey }) {
    super();
    this.#url = endpoint(url);
    this.#token = token;
    this.#hello = { name, anonymousKey: token ? undefined : anonymousKey, client: { name: 'passerelle.js', version: VERSION } };
  }

  /**
   * Connects for the first time. Later losses are mended on their own; a first failure is not.
   *
   * @returns {Promise<any>} payload of `session:ready`
   */
  open() {
    globalThis.addEventListener?.('online', this.#onChange);
    globalThis.document?.addEventListener('visibilitychange', this.#onChange);
    globalThis.navigator?.connection?.addEventListener?.('change', this.#onChange);
    return new Promise((resolve, reject) => {
      const settled = [
        this.on('ready', (ready) => finish(() => resolve(ready))),
        this.on('closed', (error) => finish(() => reject(error))),
      ];
      const finish = (settle) => {
        settled.forEach((stop) => stop());
        settle();
      };
      this.#connect();
    });
  }

  /**
   * Makes a request and waits for its outcome, over as many connections as it takes: the server handles it once.
   *
   * @param {string} event name of the event
   * @param {object} [payload]
   * @returns {Promise<any>} the ack's data
   */
  request(event, payload = {}) {
    if (this.state === 'closed' || this.state === 'connecting' || this.#pending.size >= PENDING_LIMIT) {
      return Promise.reject(new PasserelleError('NOT_CONNECTED', 'not connected to the server'));
    }
    const id = String(this.#nextId++);
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { event, payload: { ...payload, msgId: id }, resolve, reject });
      if (this.state === 'ready') this.#ask(id);
    });
  }

  /** Finds out whether the connection works, and makes a new one if not: networks change without a word. */
  probe() {
    if (this.state === 'reconnecting' && !this.#socket) this.#connect();
    if (this.state !== 'ready' || this.#timers.probe) return;
    this.#send('call:heartbeat', {}, 'probe');
    this.#wait('probe', PROBE_MS, () => this.#drop());
  }

  /** The token of the next connection. */
  async token() {
    return typeof this.#token === 'function' ? this.#token() : this.#token;
  }

  /** Ends the session. */
  close() {
    if (this.state === 'ready') this.#send('session:bye', {});
    this.#end(new PasserelleError('CLOSED', 'closed by this side'));
  }

  #wait(name, ms, then) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(() => {
      delete this.#timers[name];
      then();
    }, ms);
  }

  #stop(...names) {
    for (const name of names) {
      clearTimeout(this.#timers[name]);
      delete this.#timers[name];
    }
  }

  /** Sends a frame; with it goes what has arrived. */
  #send(t, p, id) {
    const ls = this.#seen > this.#acked ? this.#seen : undefined;
    this.#acked = this.#seen;
    this.#stop('ack');
    this.#socket?.send(JSON.stringify({ v: 1, t, id, p, ls }));
  }

  #ask(id) {
    const { event, payload } = this.#pending.get(id);
    this.#send(event, payload, id);
    if (!this.#timers.answer) this.#wait('answer', ANSWER_MS, () => this.#drop());
  }

  #connect() {
    const socket = new WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    this.#stop('retry');
    this.#wait('ready', READY_MS, () => this.#drop());
    socket.onopen = () => this.#greet(socket).catch((error) => this.#end(error));
    socket.onmessage = ({ data }) => this.#socket === socket && this.#onData(data);
    socket.onclose = ({ code, reason }) => this.#socket === socket && this.#onClose(code, reason);
  }

  async #greet(socket) {
    const token = await this.token();
    if (this.#socket !== socket) return;
    const resume = this.#resume && { ...this.#resume, seq: this.#seen };
    this.#acked = this.#seen;
    this.#send('hello', { ...this.#hello, token, resume }, 'hello');
  }

  /** Lets go of a socket that may never notice that its connection is gone. */
  #drop() {
    const socket = this.#socket;
    this.#onClose(1006, '');
    socket?.close();
  }

  #onData(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    this.#stop('probe');
    this.#wait('silence', SILENCE_MS, () => this.probe());
    if (frame.t === 'ack') this.#onAck(frame);
    else if (frame.t === 'session:ready') this.#onReady(frame.p ?? {});
    else if (typeof frame.t === 'string' && this.#isNew(frame.seq)) {
      this.emit('event', { name: frame.t, payload: frame.p ?? {} });
    }
  }

  /** Counts an event. One that was seen on another connection is not told again. */
  #isNew(seq) {
    if (!Number.isInteger(seq)) return true;
    if (seq <= this.#seen) return false;
    this.#seen = seq;
    if (seq - this.#acked >= ACK_EVENTS) this.#acknowledge();
    else if (!this.#timers.ack) this.#wait('ack', ACK_MS, () => this.#acknowledge());
    return true;
  }

  #acknowledge() {
    if (this.state === 'ready') this.#send('seq');
  }

  #onAck({ re, ok, p, error }) {
    const { code = 'INTERNAL', message = code, ...details } = error ?? {};
    const refusal = new PasserelleError(code, message, details);
    if (re === 'hello') {
      if (!ok) this.#onHelloRefused(refusal);
      return;
    }
    const request = this.#pending.get(re);
    if (!request) return;
    this.#pending.delete(re);
    this.#stop('answer');
    if (this.#pending.size > 0) this.#wait('answer', ANSWER_MS, () => this.#drop());
    if (ok) request.resolve(p ?? {});
    else request.reject(refusal);
  }

  #onHelloRefused(error) {
    if (this.state === 'connecting' || FATAL_CODES.has(error.code)) this.#end(error);
    else this.#drop();
  }

  #onReady(ready) {
    this.#stop('ready');
    this.#attempt = 0;
    this.#resume = ready.resume?.key ? { sid: ready.sid, key: ready.resume.key } : undefined;
    if (!ready.resumed) {
      // Another session: its events count from one, and it knows nothing of what was asked before.
      this.#seen = 0;
      this.#acked = 0;
      this.#failPending();
    }
    this.#become('ready');
    for (const id of this.#pending.keys()) this.#ask(id);
    this.emit('ready', ready);
  }

  #onClose(code, reason) {
    this.#stop('ready', 'probe', 'silence', 'answer', 'ack');
    this.#socket = undefined;
    if (this.state === 'closed') return;
    if (FATAL_CLOSES.has(code)) {
      return this.#end(new PasserelleError(`CLOSED_${code}`, reason || `the server closed the connection (${code})`));
    }
    if (this.state === 'connecting') {
      return this.#end(new PasserelleError('UNREACHABLE', 'the server cannot be reached'));
    }
    this.#become('reconnecting');
    const [first, last] = BACKOFF_MS;
    const ceiling = Math.min(last, first * 2 ** this.#attempt++);
    this.#wait('retry', ceiling * (0.5 + Math.random() / 2), () => this.#connect());
  }

  #failPending() {
    for (const { reject } of this.#pending.values()) {
      reject(new PasserelleError('NOT_CONNECTED', 'the connection was lost'));
    }
    this.#pending.clear();
  }

  #end(error) {
    if (this.state === 'closed') return;
    this.#stop(...Object.keys(this.#timers));
    globalThis.removeEventListener?.('online', this.#onChange);
    globalThis.document?.removeEventListener('visibilitychange', this.#onChange);
    globalThis.navigator?.connection?.removeEventListener?.('change', this.#onChange);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#become('closed');
    this.#failPending();
    socket?.close(1000);
    this.emit('closed', error);
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit('state', state);
  }
}
