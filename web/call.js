/**
 * A call: its participants, one {@link Peer} to each of them, and what the server says about it.
 *
 * @module call
 */

import { Emitter } from './emitter.js';
import { Peer } from './peer.js';
import { PasserelleError } from './signaling.js';

const STATS_EVERY_MS = 1_000;
/** How long a hang-up waits for the server's account of the call. */
const FAREWELL_MS = 600;
/** Signals kept while signaling is away; a call never needs more to get going again. */
const OUTBOX_LIMIT = 64;
/** States of a participant that is in the call, if only by its grace. */
const PRESENT = new Set(['joined', 'connected', 'grace']);
/** From the best path to the worst: a call is as good as its worst connection. */
const PATHS = ['direct', 'stun', 'relay'];

/**
 * @typedef {'calling' | 'ringing' | 'connecting' | 'connected' | 'reconnecting' | 'ended'} CallState `calling` rings the
 *   others, `ringing` rings here
 *
 * @typedef {object} Participant
 * @property {string} id
 * @property {string | undefined} name
 * @property {boolean} audioEnabled
 * @property {boolean} videoEnabled
 * @property {boolean} reconnecting its signaling is interrupted; media may flow all the same
 *
 * @typedef {object} Ending
 * @property {string} reason `completed`, `declined`, `cancelled`, `missed`, `connectionLost`, …
 * @property {number | undefined} duration whole seconds from answer to end
 * @property {string | undefined} endedBy user
 * @property {string | undefined} status of the call's record
 */

/**
 * Events: `state` ({@link CallState}), `participants` (list of {@link Participant}), `stream` (`{participant, stream}`),
 * `path` ({@link import('./stats.js').Path}), `declined` (`{userId}`), `ended` ({@link Ending}), `error` (Error).
 */
export class Call extends Emitter {
  /** @type {CallState} */
  state;
  /** @type {Map<string, Participant>} the others */
  participants = new Map();
  /** @type {import('./stats.js').Path | undefined} */
  path;
  /** @type {Date | undefined} when media connected first */
  connectedAt;

  #signaling;
  /** @type {string} */
  #me;
  /** Every id this side had in the call: an anonymous user comes back under a new one. */
  #mine;
  #configuration;
  /** @type {MediaStream | undefined} */
  #stream;
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  #settings = { audioEnabled: true, videoEnabled: true };
  #joined = false;
  #early = [];
  #outbox = [];
  #statsTimer;

  /**
   * Made by {@link import('./passerelle.js').Client}.
   *
   * @param {object} options
   * @param {string} options.id
   * @param {'video' | 'audio'} options.type
   * @param {'outgoing' | 'incoming'} options.direction
   * @param {{userId?: string, displayName?: string, username?: string} | undefined} options.initiator
   * @param {import('./signaling.js').Signaling} options.signaling
   * @param {string} options.me this user
   * @param {RTCConfiguration} options.configuration
   * @param {MediaStream} [options.stream]
   */
  constructor({ id, type, direction, initiator, signaling, me, configuration, stream }) {
    super();
    this.id = id;
    this.type = type;
    this.direction = direction;
    this.initiator = initiator;
    this.#signaling = signaling;
    this.#me = me;
    this.#mine = new Set([me]);
    this.#configuration = configuration;
    this.#stream = stream;
    this.#joined = direction === 'outgoing';
    this.state = direction === 'outgoing' ? 'calling' : 'ringing';
  }

  /**
   * Joins: answers an incoming call, or enters one that is running.
   *
   * @param {object} [options]
   * @param {MediaStream} [options.stream] what this side sends
   * @param {RTCIceTransportPolicy} [options.iceTransportPolicy] `relay` keeps this side's addresses private
   */
  async accept({ stream = this.#stream, iceTransportPolicy } = {}) {
    this.#stream = stream;
    if (iceTransportPolicy) this.#configuration = { ...this.#configuration, iceTransportPolicy };
    this.#become('connecting');
    try {
      const { callSession, iceServers } = await this.#request('call:join', { settings: this.#readSettings() });
      this.#useIceServers(iceServers);
      this.#joined = true;
      this.welcome(callSession, { offers: true });
    } catch (error) {
      this.#end({ reason: error.code === 'CALL_ENDED' ? 'missed' : 'failed' });
      throw error;
    }
  }

  /**
   * Refuses an incoming call.
   *
   * @param {string} [reason]
   */
  async decline(reason) {
    await this.#leave('call:decline', 'declined', reason);
  }

  /**
   * Leaves the call; before the answer, this cancels it.
   *
   * @param {string} [reason]
   */
  async hangUp(reason) {
    await this.#leave('call:leave', this.state === 'calling' ? 'cancelled' : 'completed', reason);
  }

  /** @param {boolean} enabled whether the others hear this side */
  async setAudio(enabled) {
    await this.#toggle('audio', enabled);
  }

  /** @param {boolean} enabled whether the others see this side */
  async setVideo(enabled) {
    await this.#toggle('video', enabled);
  }

  /** @param {MediaStream} stream sent from now on */
  async replaceStream(stream) {
    this.#stream = stream;
    await Promise.all([...this.#peers.values()].map((peer) => peer.replaceStream(stream)));
  }

  /**
   * Measures every connection.
   *
   * @returns {Promise<Map<string, import('./stats.js').PeerStats>>} by participant
   */
  async stats() {
    const measured = [...this.#peers].map(async ([id, peer]) => [id, await peer.stats()]);
    return new Map(await Promise.all(measured));
  }

  /**
   * Takes over the server's view of who is in the call. Made for the client.
   *
   * @param {any} session CallSession
   * @param {{offers: boolean}} options whether this side is the newcomer
   */
  welcome(session, { offers }) {
    for (const participant of session?.participants ?? []) {
      const id = participant.userId ?? participant.id;
      if (this.#mine.has(id)) continue;
      if (PRESENT.has(participant.state)) {
        this.#learn(id, participant);
        if (!this.#peers.has(id)) this.#connect(id, { polite: offers, offers });
      } else if (participant.leftAt) {
        this.#forget(id);
      }
    }
    for (const payload of this.#early.splice(0)) this.#onSignal(payload);
  }

  /**
   * Signaling is back with a new session: joins again within the grace. Made for the client.
   *
   * @param {string} me this user; another one than before when it has no account
   */
  async rejoin(me) {
    const renamed = !this.#mine.has(me);
    this.#me = me;
    this.#mine.add(me);
    if (!this.#joined || this.state === 'ended') return;
    if (renamed) this.#startOver();
    try {
      const { callSession, iceServers } = await this.#request('call:join', { settings: this.#readSettings() });
      this.#useIceServers(iceServers);
      this.welcome(callSession, { offers: renamed });
      for (const payload of this.#outbox.splice(0)) this.#post(payload);
      for (const peer of this.#peers.values()) peer.recover();
    } catch (error) {
      if (error.code !== 'NOT_CONNECTED' && error.code !== 'TIMEOUT') this.#end({ reason: 'connectionLost' });
    }
  }

  /** Ends the call on this side only. Made for the client. */
  abandon(reason) {
    this.#end({ reason });
  }

  /**
   * Takes an event of the server. Made for the client.
   *
   * @param {string} name
   * @param {any} payload
   */
  onEvent(name, payload) {
    switch (name) {
      case 'call:participant-joined':
        return this.#onJoined(payload);
      case 'call:participant-left':
        return this.#forget(payload.participantId ?? payload.userId);
      case 'call:signal':
        return this.#onSignal(payload);
      case 'call:participant-state':
        return this.#update(payload, { reconnecting: payload.state === 'reconnecting' });
      case 'call:media-toggled':
        return this.#onToggled(payload);
      case 'call:declined':
        return this.emit('declined', payload);
      case 'call:already-answered':
        return this.#end({ reason: 'answeredElsewhere' });
      case 'call:missed':
        return this.state === 'ringing' && this.#end({ reason: 'missed' });
      case 'call:ice-servers-refreshed':
        return this.#useIceServers(payload.iceServers);
      case 'call:error':
        return this.emit('error', new PasserelleError(payload.code, payload.message, payload));
      case 'call:ended':
        return this.#end(payload);
      default:
        return undefined;
    }
  }

  #onJoined({ participant = {}, polite = false, iceServers, ...payload }) {
    const id = participant.userId ?? participant.id ?? payload.participantId;
    if (!id || this.#mine.has(id)) return;
    this.#useIceServers(iceServers);
    this.#learn(id, participant);
    if (this.#joined && !this.#peers.has(id)) this.#connect(id, { polite, offers: false });
    if (this.state === 'calling') this.#become('connecting');
  }

  #onSignal(payload) {
    const { signal } = payload;
    const from = signal?.from ?? payload.from;
    if (!from || this.#mine.has(from)) return;
    if (!this.#joined) {
      this.#early.push(payload);
      return;
    }
    let peer = this.#peers.get(from);
    if (!peer || peer.isForeign(signal)) {
      peer?.close();
      peer = this.#connect(from, { polite: peer?.polite ?? false, offers: false });
    }
    peer.handle(signal);
  }

  #onToggled({ mediaType, enabled, ...payload }) {
    if (mediaType === 'audio') this.#update(payload, { audioEnabled: enabled });
    if (mediaType === 'video') this.#update(payload, { videoEnabled: enabled });
  }

  #update({ participantId, userId }, change) {
    const participant = this.participants.get(participantId ?? userId);
    if (!participant) return;
    Object.assign(participant, change);
    this.#announceParticipants();
  }

  #learn(id, { displayName, username, state, isAudioEnabled: audioEnabled = true, isVideoEnabled: videoEnabled = true }) {
    const name = displayName ?? username ?? this.participants.get(id)?.name;
    this.participants.set(id, { id, name, audioEnabled, videoEnabled, reconnecting: state === 'grace' });
    this.#announceParticipants();
  }

  #forget(id) {
    this.#peers.get(id)?.close();
    this.#peers.delete(id);
    if (this.participants.delete(id)) this.#announceParticipants();
    this.#reconsider();
  }

  #announceParticipants() {
    this.emit('participants', [...this.participants.values()]);
  }

  #connect(id, { polite, offers }) {
    const peer = new Peer({
      id,
      polite,
      offers,
      configuration: this.#configuration,
      stream: this.#stream,
      send: (signal) => this.#post({ ...signal, to: id }),
    });
    this.#peers.set(id, peer);
    peer.on('state', () => this.#reconsider());
    peer.on('stream', (stream) => this.emit('stream', { participant: this.participants.get(id) ?? { id }, stream }));
    peer.on('error', (error) => this.emit('error', error));
    this.#statsTimer ??= setInterval(() => this.#measure(), STATS_EVERY_MS);
    return peer;
  }

  #reconsider() {
    const states = [...this.#peers.values()].map((peer) => peer.state);
    if (this.state === 'ended' || states.length === 0) return;
    if (states.includes('connected')) {
      this.connectedAt ??= new Date();
      this.#become('connected');
      this.#measure();
    } else if (this.connectedAt) {
      this.#become('reconnecting');
    } else {
      this.#become('connecting');
    }
  }

  async #measure() {
    const paths = [...(await this.stats()).values()].map((stats) => stats.path).filter(Boolean);
    const path = paths.toSorted((a, b) => PATHS.indexOf(b) - PATHS.indexOf(a))[0];
    if (this.state === 'ended' || !path || path === this.path) return;
    this.path = path;
    this.emit('path', path);
  }

  async #toggle(kind, enabled) {
    this.#settings[`${kind}Enabled`] = enabled;
    for (const track of this.#stream?.getTracks() ?? []) {
      if (track.kind === kind) track.enabled = enabled;
    }
    // While signaling is away, the settings travel with the next join.
    if (this.#joined && this.#signaling.state === 'ready') await this.#request(`call:toggle-${kind}`, { enabled });
  }

  /** A stream may come with its tracks switched off: what the others are told has to agree. */
  #readSettings() {
    for (const track of this.#stream?.getTracks() ?? []) this.#settings[`${track.kind}Enabled`] = track.enabled;
    return this.#settings;
  }

  #post(signal) {
    if (this.state === 'ended') return;
    if (this.#signaling.state !== 'ready') {
      if (this.#outbox.length < OUTBOX_LIMIT) this.#outbox.push(signal);
      return;
    }
    this.#request('call:signal', { signal }).catch((error) => this.#onSignalRefused(error, signal));
  }

  #onSignalRefused(error, signal) {
    // The impolite side's offer is on its way and wins: perfect negotiation answers it.
    if (error.code === 'OFFER_COLLISION') return;
    if (error.code === 'NOT_CONNECTED') this.#outbox.push(signal);
    else if (signal.type !== 'ice-candidate' && this.state !== 'ended') this.emit('error', error);
  }

  #useIceServers(iceServers) {
    if (iceServers?.length) this.#configuration = { ...this.#configuration, iceServers };
  }

  #request(event, payload = {}) {
    return this.#signaling.request(event, { callId: this.id, ...payload });
  }

  async #leave(event, outcome, reason) {
    if (this.state === 'ended') return;
    this.#closePeers();
    const ended = new Promise((resolve) => this.on('ended', resolve));
    try {
      await this.#request(event, reason ? { reason } : {});
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, FAREWELL_MS))]);
    } catch {
      // A call that the server has forgotten, or cannot hear about, is over for this side all the same.
    }
    this.#end({ reason: outcome, endedBy: this.#me });
  }

  /** To the others, a new participant comes: what was negotiated with the former one is void. */
  #startOver() {
    this.#closePeers();
    this.#outbox = [];
    if (this.state !== 'calling') this.#become(this.connectedAt ? 'reconnecting' : 'connecting');
  }

  #closePeers() {
    clearInterval(this.#statsTimer);
    this.#statsTimer = undefined;
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  #end({ reason, duration, endedBy, status }) {
    if (this.state === 'ended') return;
    this.#closePeers();
    this.#become('ended');
    this.emit('ended', { reason: reason ?? status ?? 'completed', duration, endedBy, status });
  }

  #become(state) {
    if (this.state === state || this.state === 'ended') return;
    this.state = state;
    this.emit('state', state);
  }
}
