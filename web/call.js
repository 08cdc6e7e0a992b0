/**
 * A call: its participants, one {@link Peer} to each of them, and what the server says about it.
 *
 * @module call
 */

import { Emitter } from './emitter.js';
import { Peer } from './peer.js';
import { PasserelleError } from './signaling.js';
import { qualityOf } from './stats.js';

const MEASURE_MS = 2_000;
/** The server keeps one report in five seconds. */
const REPORT_MS = 6_000;
/** Credentials are renewed when this much of their life is over, or a failed attempt this long ago. */
const REFRESH_AT = 0.8;
const REFRESH_RETRY_MS = 30_000;
/** The longest that a timer of a browser can wait. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** How long a hang-up waits for the server's account of the call. */
const FAREWELL_MS = 600;
/** States of a participant that is in the call, if only by its grace. */
const PRESENT = new Set(['joined', 'connected', 'grace']);
/** From the best to the worst: a call is as good as its worst connection. */
const PATHS = ['direct', 'stun', 'relay'];
const LEVELS = ['good', 'fair', 'poor'];

/**
 * @typedef {'calling' | 'ringing' | 'connecting' | 'connected' | 'reconnecting' | 'ended'} CallState `calling` rings the
 *   others, `ringing` rings here
 *
 * @typedef {object} Participant
 * @property {string} id
 * @property {string | undefined} name
 * @property {boolean} audioEnabled
 * @property {boolean} videoEnabled
 * @property {boolean} screenEnabled
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
 * `path` ({@link import('./stats.js').Path}), `quality` (Map of {@link import('./stats.js').Quality} by participant),
 * `screen` (whether this side shares its screen), `muted`, `declined` (`{userId}`), `ended` ({@link Ending}), `error`.
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
  #configuration;
  #maxKbps;
  /** @type {MediaStream | undefined} */
  #stream;
  /** @type {MediaStreamTrack | undefined} */
  #screen;
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  #settings = { audioEnabled: true, videoEnabled: true };
  #joined = false;
  #early = [];
  #measured = { at: 0, peers: new Map() };
  #measureTimer;
  #refreshTimer;
  #reportedAt = 0;

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
   * @param {number} [options.ttl] life of the credentials in it, seconds
   * @param {number} [options.maxKbps] the most that this side sends of video
   * @param {MediaStream} [options.stream]
   */
  constructor({ id, type, direction, initiator, signaling, me, configuration, ttl, maxKbps, stream }) {
    super();
    this.id = id;
    this.type = type;
    this.direction = direction;
    this.initiator = initiator;
    this.#signaling = signaling;
    this.#me = me;
    this.#configuration = configuration;
    this.#maxKbps = maxKbps;
    this.#stream = stream;
    this.#joined = direction === 'outgoing';
    this.state = direction === 'outgoing' ? 'calling' : 'ringing';
    if (this.#joined) this.#useIce({ ttl });
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
      const joined = await this.#request('call:join', { settings: this.#readSettings() });
      this.#useIce(joined);
      this.#joined = true;
      this.welcome(joined.callSession, { offers: true });
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

  /**
   * Sends another camera or microphone from now on.
   *
   * @param {MediaStreamTrack} track takes the place of the one of its kind
   */
  async replaceTrack(track) {
    const kind = /** @type {'audio' | 'video'} */ (track.kind);
    track.enabled = this.#settings[`${kind}Enabled`];
    const kept = (this.#stream?.getTracks() ?? []).filter((other) => other.kind !== kind);
    this.#stream = new MediaStream([...kept, track]);
    await this.#refreshTrack(kind);
  }

  /** @param {MediaStream} stream sent from now on */
  async replaceStream(stream) {
    this.#stream = stream;
    await Promise.all(['audio', 'video'].map((kind) => this.#refreshTrack(kind)));
  }

  /**
   * Shows the screen in place of the camera, until {@link Call.stopScreen} or until the person ends it in the browser.
   *
   * @param {MediaStream} [display] default: the browser asks the person what to share
   */
  async shareScreen(display) {
    const { mediaDevices } = navigator;
    const [track] = (display ?? (await mediaDevices.getDisplayMedia({ video: true }))).getVideoTracks();
    this.#screen = track;
    track.addEventListener('ended', () => this.#screen === track && this.stopScreen());
    await this.#showScreen(true);
  }

  /** Shows the camera again. */
  async stopScreen() {
    if (!this.#screen) return;
    this.#screen.stop();
    this.#screen = undefined;
    await this.#showScreen(false);
  }

  /** @returns {boolean} whether this side shares its screen */
  get sharesScreen() {
    return Boolean(this.#screen);
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
    const all = session?.participants ?? [];
    const idOf = (participant) => participant.userId ?? participant.id;
    const mine = all.find((participant) => idOf(participant) === this.#me)?.joinedAt ?? '';
    for (const participant of all) {
      const id = idOf(participant);
      if (id === this.#me) continue;
      if (PRESENT.has(participant.state)) {
        this.#learn(id, participant);
        const polite = offers || mine > (participant.joinedAt ?? '');
        if (!this.#peers.has(id)) this.#connect(id, { polite, offers });
      } else if (participant.leftAt) {
        this.#forget(id);
      }
    }
    for (const payload of this.#early.splice(0)) this.#onSignal(payload);
  }

  /** Signaling is back with a new session: joins again within the grace. Made for the client. */
  async rejoin() {
    if (!this.#joined || this.state === 'ended') return;
    try {
      const joined = await this.#request('call:join', { settings: this.#readSettings() });
      this.#useIce(joined);
      this.welcome(joined.callSession, { offers: false });
      if (this.#screen) await this.#request('call:toggle-screen', { enabled: true });
      for (const peer of this.#peers.values()) peer.recover();
    } catch (error) {
      if (error.code !== 'NOT_CONNECTED') this.#end({ reason: 'connectionLost' });
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
        return this.#update(payload, { [`${payload.mediaType}Enabled`]: payload.enabled });
      case 'call:state':
        return this.#joined ? this.welcome(payload.call, { offers: false }) : undefined;
      case 'call:declined':
        return this.emit('declined', payload);
      case 'call:muted':
        return this.emit('muted', payload);
      case 'call:already-answered':
        return this.#end({ reason: 'answeredElsewhere' });
      case 'call:missed':
        return this.state === 'ringing' && this.#end({ reason: 'missed' });
      case 'call:kicked':
        return this.#end({ reason: 'kicked', ...payload });
      case 'call:ice-servers-refreshed':
        return this.#useIce(payload);
      case 'call:error':
        return this.emit('error', new PasserelleError(payload.code, payload.message, payload));
      case 'call:ended':
        return this.#end(payload);
      default:
        return undefined;
    }
  }

  #onJoined({ participant = {}, polite = false, ...payload }) {
    const id = participant.userId ?? participant.id ?? payload.participantId;
    if (!id || id === this.#me) return;
    this.#useIce(payload);
    this.#learn(id, participant);
    if (this.#joined && !this.#peers.has(id)) this.#connect(id, { polite, offers: false });
    if (this.state === 'calling') this.#become('connecting');
  }

  #onSignal(payload) {
    const { signal } = payload;
    const from = signal?.from ?? payload.from;
    if (!from || from === this.#me) return;
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

  #update({ participantId, userId }, change) {
    const participant = this.participants.get(participantId ?? userId);
    if (!participant) return;
    Object.assign(participant, change);
    this.#announceParticipants();
  }

  #learn(id, { displayName, username, state, isAudioEnabled, isVideoEnabled, isScreenEnabled }) {
    this.participants.set(id, {
      id,
      name: displayName ?? username ?? this.participants.get(id)?.name,
      audioEnabled: isAudioEnabled ?? true,
      videoEnabled: isVideoEnabled ?? true,
      screenEnabled: isScreenEnabled ?? false,
      reconnecting: state === 'grace',
    });
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
    const tracks = new Map(['audio', 'video'].map((kind) => [kind, this.#trackOf(kind)]));
    const send = (signal) => this.#post({ ...signal, to: id });
    const peer = new Peer({ polite, offers, configuration: this.#configuration, tracks, maxKbps: this.#maxKbps, send });
    this.#peers.set(id, peer);
    peer.on('state', () => this.#reconsider());
    peer.on('stream', (stream) => this.emit('stream', { participant: this.participants.get(id) ?? { id }, stream }));
    peer.on('error', (error) => this.emit('error', error));
    this.#measureTimer ??= setInterval(() => this.#measure(), MEASURE_MS);
    return peer;
  }

  #reconsider() {
    const states = [...this.#peers.values()].map((peer) => peer.state);
    if (this.state === 'ended' || states.length === 0) return;
    // Where media does not come through any more, signaling may not either, and be the last to notice.
    if (states.includes('disconnected')) this.#signaling.probe();
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
    const stats = await this.stats();
    if (this.state === 'ended') return;
    const now = performance.now();
    const seconds = (now - this.#measured.at) / 1000;
    if (seconds < 0.5) return this.#notePath([...stats.values()]);
    const quality = new Map([...stats].map(([id, peer]) => [id, qualityOf(peer, this.#measured.peers.get(id), seconds)]));
    this.#measured = { at: now, peers: stats };
    this.#notePath([...stats.values()]);
    this.emit('quality', quality);
    this.#report([...quality.values()], now);
    return undefined;
  }

  #notePath(measured) {
    const paths = measured.map(({ path }) => path).filter(Boolean);
    const path = paths.sort((a, b) => PATHS.indexOf(b) - PATHS.indexOf(a))[0];
    if (!path || path === this.path) return;
    this.path = path;
    this.emit('path', path);
  }

  /** Tells the server how the worst connection is, for the record of the call. */
  #report(qualities, now) {
    const connected = qualities.filter(({ path }) => path);
    if (!connected.length || now - this.#reportedAt < REPORT_MS || this.#signaling.state !== 'ready') return;
    this.#reportedAt = now;
    const [worst] = connected.sort((a, b) => LEVELS.indexOf(b.level) - LEVELS.indexOf(a.level));
    const { roundTripMs: rtt, jitterMs: jitter, bitrate } = worst;
    const candidateType = { direct: 'host', stun: 'srflx', relay: 'relay' }[worst.path];
    const stats = { rtt, jitter, bitrate, candidateType, packetLoss: worst.packetLoss * 100 };
    // A server that takes no reports has its reasons.
    this.#request('call:quality-report', { stats }).catch(() => {});
  }

  #trackOf(kind) {
    const tracks = this.#stream?.getTracks() ?? [];
    return (kind === 'video' && this.#screen) || (tracks.find((track) => track.kind === kind) ?? null);
  }

  async #refreshTrack(kind) {
    const track = this.#trackOf(kind);
    await Promise.all([...this.#peers.values()].map((peer) => peer.replaceTrack(kind, track)));
  }

  async #showScreen(enabled) {
    this.emit('screen', enabled);
    await this.#refreshTrack('video');
    if (this.#joined && this.state !== 'ended') await this.#request('call:toggle-screen', { enabled });
  }

  async #toggle(kind, enabled) {
    this.#settings[`${kind}Enabled`] = enabled;
    for (const track of this.#stream?.getTracks() ?? []) {
      if (track.kind === kind) track.enabled = enabled;
    }
    if (this.#joined) await this.#request(`call:toggle-${kind}`, { enabled });
  }

  /** A stream may come with its tracks switched off: what the others are told has to agree. */
  #readSettings() {
    for (const track of this.#stream?.getTracks() ?? []) this.#settings[`${track.kind}Enabled`] = track.enabled;
    return this.#settings;
  }

  #post(signal) {
    if (this.state === 'ended') return;
    this.#request('call:signal', { signal }).catch((error) => {
      // The impolite side's offer is on its way and wins; what a lost session swallowed is made good by the next one.
      if (['OFFER_COLLISION', 'NOT_CONNECTED'].includes(error.code) || this.state === 'ended') return;
      if (signal.type !== 'ice-candidate') this.emit('error', error);
    });
  }

  #useIce({ iceServers, ttl }) {
    if (iceServers?.length) {
      this.#configuration = { ...this.#configuration, iceServers };
      for (const peer of this.#peers.values()) peer.configure(this.#configuration);
    }
    if (ttl > 0) this.#refreshIn(ttl * 1000 * REFRESH_AT);
  }

  #refreshIn(ms) {
    clearTimeout(this.#refreshTimer);
    if (this.state === 'ended') return;
    this.#refreshTimer = setTimeout(() => this.#refreshIce(), Math.min(ms, LONGEST_TIMER_MS));
  }

  async #refreshIce() {
    try {
      this.#useIce(await this.#request('call:request-ice-servers'));
    } catch {
      this.#refreshIn(REFRESH_RETRY_MS);
    }
  }

  #request(event, payload = {}) {
    return this.#signaling.request(event, { callId: this.id, ...payload });
  }

  async #leave(event, outcome, reason) {
    if (this.state === 'ended') return;
    this.#closePeers();
    const ended = new Promise((resolve) => this.on('ended', resolve));
    const soon = new Promise((resolve) => setTimeout(resolve, FAREWELL_MS));
    // A call that the server has forgotten, or cannot hear about, is over for this side all the same.
    const told = this.#request(event, reason ? { reason } : {}).then(() => Promise.race([ended, soon]), () => {});
    await (this.#signaling.state === 'ready' ? told : soon);
    this.#end({ reason: outcome, endedBy: this.#me });
  }

  #closePeers() {
    clearInterval(this.#measureTimer);
    this.#measureTimer = undefined;
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  #end({ reason, duration, endedBy, status }) {
    if (this.state === 'ended') return;
    clearTimeout(this.#refreshTimer);
    this.#closePeers();
    this.#screen?.stop();
    this.#become('ended');
    this.emit('ended', { reason: reason ?? status ?? 'completed', duration, endedBy, status });
  }

  #become(state) {
    if (this.state === state || this.state === 'ended') return;
    this.state = state;
    this.emit('state', state);
  }
}
