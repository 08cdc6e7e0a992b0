/**
 * The transport: one WebSocket that speaks `passerelle.v1.json`, with acks by id and automatic reconnects.
 * Knows nothing of calls.
 *
 * @module signaling
 */

import { Emitter } from './emitter.js';

const SUBPROTOCOL = 'passerelle.v1.json';
const VERSION = '0.1.0';
const KEY_ITEM = 'passerelle.anonymousKey';
const REQUEST_TIMEOUT_MS = 10_000;
const READY_TIMEOUT_MS = 10_000;
const BACKOFF_FIRST_MS = 300;
const BACKOFF_LAST_MS = 10_000;
/** Closes after which trying again cannot help: protocol, authentication, origin, taken over. */
const FATAL_CLOSES = new Set([4400, 4401, 4403, 4409]);

/** Refusals of a hello that stay refused. */
const FATAL_CODES = new Set(['NOT_AUTHENTICATED', 'TOKEN_EXPIRED', 'PERMISSION_DENIED', 'UNSUPPORTED_VERSION']);

/** A refusal of the server, or a failure on the way to it. */
export class PasserelleError extends Error {
  /**
   * @param {string} code wire code (`USER_OFFLINE`, …), or `NOT_CONNECTED`, `TIMEOUT`, `UNREACHABLE`
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
 * The secret by which a caller without a token stays the same user in this tab, also after the page was loaded again.
 *
 * @returns {string}
 */
function rememberedKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const fresh = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  try {
    const known = sessionStorage.getItem(KEY_ITEM);
    if (known) return known;
    sessionStorage.setItem(KEY_ITEM, fresh);
  } catch {
    // Without storage the key lives as long as this object.
  }
  return fresh;
}

/**
 * Events: `state` (`connecting` | `ready` | `reconnecting` | `closed`), `ready` (payload of `session:ready`),
 * `event` (`{name, payload}` for every event of the server), `closed` ({@link PasserelleError}).
 */
export class Signaling extends Emitter {
  /** @type {'connecting' | 'ready' | 'reconnecting' | 'closed'} */
  state = 'connecting';

  #url;
  #hello;
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {Map<string, {resolve: (value: any) => void, reject: (error: Error) => void, timer: any}>} */
  #pending = new Map();
  #nextId = 1;
  #attempt = 0;
  #retryTimer;
  #readyTimer;
  #onOnline = () => this.#retryNow();

  /**
   * What a resume needs: the session, its single-use key, the last sequence number seen. Sent with every hello; a
   * server that cannot resume answers `resumed: false` and the calls are joined again.
   *
   * @type {{sid: string, key: string, seq: number} | undefined}
   */
  #resume;

  /**
   * @param {{url?: string | URL, token?: string, name?: string, anonymousKey?: string}} options
   */
  constructor({ url, token, name, anonymousKey = token ? undefined : rememberedKey() }) {
    super();
    this.#url = endpoint(url);
    const client = { name: 'passerelle.js', version: VERSION };
    this.#hello = { ...(token && { token }), ...(name && { name }), ...(anonymousKey && { anonymousKey }), client };
  }

  /**
   * Connects for the first time. Later losses are mended on their own; a first failure is not.
   *
   * @returns {Promise<any>} payload of `session:ready`
   */
  open() {
    globalThis.addEventListener?.('online', this.#onOnline);
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
   * Sends a request and waits for its ack.
   *
   * @param {string} event name of the event
   * @param {object} [payload]
   * @returns {Promise<any>} the ack's data
   */
  request(event, payload = {}) {
    if (this.state !== 'ready') {
      return Promise.reject(new PasserelleError('NOT_CONNECTED', 'not connected to the server'));
    }
    return this.#send(event, payload);
  }

  /** Closes for good. */
  close() {
    this.#end(new PasserelleError('CLOSED', 'closed by this side'));
  }

  #send(event, payload) {
    const id = String(this.#nextId++);
    const frame = { v: 1, t: event, id, p: payload };
    if (this.#resume?.seq) frame.ls = this.#resume.seq;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new PasserelleError('TIMEOUT', `no answer to ${event}`));
      }, REQUEST_TIMEOUT_MS);
      this.#pending.set(id, { resolve, reject, timer });
      this.#socket?.send(JSON.stringify(frame));
    });
  }

  #connect() {
    const socket = new WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    this.#readyTimer = setTimeout(() => socket.close(), READY_TIMEOUT_MS);
    socket.onopen = () => {
      const hello = this.#resume ? { ...this.#hello, resume: this.#resume } : this.#hello;
      this.#send('hello', hello).catch((error) => this.#onHelloRefused(socket, error));
    };
    socket.onmessage = ({ data }) => this.#socket === socket && this.#onFrame(data);
    socket.onclose = ({ code, reason }) => this.#socket === socket && this.#onClose(code, reason);
  }

  #onHelloRefused(socket, error) {
    if (this.#socket !== socket || error.code === 'NOT_CONNECTED' || error.code === 'TIMEOUT') return;
    if (this.state === 'connecting' || FATAL_CODES.has(error.code)) this.#end(error);
    else socket.close();
  }

  #onFrame(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (frame?.t === 'ack') return this.#onAck(frame);
    if (typeof frame?.t !== 'string') return;
    if (Number.isInteger(frame.seq) && this.#resume) this.#resume.seq = frame.seq;
    if (frame.t === 'session:ready') this.#onReady(frame);
    this.emit('event', { name: frame.t, payload: frame.p ?? {} });
  }

  #onAck({ re, ok, p, error }) {
    const request = this.#pending.get(re);
    if (!request) return;
    this.#pending.delete(re);
    clearTimeout(request.timer);
    if (ok) return request.resolve(p ?? {});
    const { code = 'INTERNAL', message = code, ...details } = error ?? {};
    request.reject(new PasserelleError(code, message, details));
  }

  #onReady({ p = {}, seq = 0 }) {
    clearTimeout(this.#readyTimer);
    this.#attempt = 0;
    this.#resume = p.resume?.key ? { sid: p.sid, key: p.resume.key, seq } : undefined;
    this.#become('ready');
    this.emit('ready', p);
  }

  #onClose(code, reason) {
    clearTimeout(this.#readyTimer);
    this.#failPending();
    if (this.state === 'closed') return;
    if (FATAL_CLOSES.has(code)) {
      return this.#end(new PasserelleError(`CLOSED_${code}`, reason || `the server closed the connection (${code})`));
    }
    if (this.state === 'connecting') {
      return this.#end(new PasserelleError('UNREACHABLE', 'the server cannot be reached'));
    }
    this.#become('reconnecting');
    const ceiling = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** this.#attempt++);
    this.#retryTimer = setTimeout(() => this.#retryNow(), ceiling * (0.5 + Math.random() / 2));
  }

  #retryNow() {
    if (this.state !== 'reconnecting' || this.#socket?.readyState === WebSocket.CONNECTING) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  #failPending() {
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new PasserelleError('NOT_CONNECTED', 'the connection was lost'));
    }
    this.#pending.clear();
  }

  #end(error) {
    if (this.state === 'closed') return;
    clearTimeout(this.#readyTimer);
    clearTimeout(this.#retryTimer);
    globalThis.removeEventListener?.('online', this.#onOnline);
    this.#become('closed');
    this.#failPending();
    this.#socket?.close(1000);
    this.emit('closed', error);
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit('state', state);
  }
}
