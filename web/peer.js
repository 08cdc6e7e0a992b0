/**
 * One remote participant: an RTCPeerConnection with perfect negotiation, trickle ICE and ICE restart.
 *
 * @module peer
 */

import { Emitter } from './emitter.js';
import { digest } from './stats.js';

/** How long the side that was there first waits for the newcomer's offer before it makes one itself. */
const OFFER_PATIENCE_MS = 4_000;
/** How long a connection may be disturbed before ICE starts anew. */
const DISCONNECTED_MS = 5_000;

/**
 * @typedef {object} Signal
 * @property {'offer' | 'answer' | 'ice-candidate' | 'ice-restart' | 'renegotiate' | 'bye'} type
 * @property {string} [sdp]
 * @property {string | RTCIceCandidateInit} [candidate]
 * @property {string | null} [sdpMid]
 * @property {number | null} [sdpMLineIndex]
 */

/**
 * Events: `state` ({@link RTCPeerConnectionState}), `stream` (MediaStream of the remote side), `error`.
 */
export class Peer extends Emitter {
  /** @type {MediaStream} */
  remoteStream = new MediaStream();

  #pc;
  #send;
  /** @type {Map<string, MediaStreamTrack | null>} what this side sends, by kind */
  #tracks;
  #local = new MediaStream();
  #attached = false;
  #makingOffer = false;
  #ignoringOffer = false;
  #tasks = Promise.resolve();
  #offerTimer;
  #restartTimer;
  #maxKbps;

  /**
   * @param {object} options
   * @param {boolean} options.polite yields when both sides offer at once
   * @param {boolean} options.offers makes the first offer; the other side waits for it
   * @param {RTCConfiguration} options.configuration
   * @param {Map<string, MediaStreamTrack>} options.tracks what this side sends, by kind
   * @param {number} [options.maxKbps] the most that this side sends of video
   * @param {(signal: Signal) => void} options.send hands a signal to the call
   */
  constructor({ polite, offers, configuration, tracks, maxKbps, send }) {
    super();
    this.polite = polite;
    this.#send = send;
    this.#tracks = new Map(tracks);
    this.#maxKbps = maxKbps;
    this.#pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', ...configuration });
    this.#pc.onnegotiationneeded = () => this.#offer();
    this.#pc.onicecandidate = ({ candidate }) => this.#onCandidate(candidate);
    this.#pc.onconnectionstatechange = () => this.#onState();
    this.#pc.ontrack = ({ track }) => this.#onTrack(track);
    if (offers) this.#attach();
    else this.#offerTimer = setTimeout(() => this.#attach(), OFFER_PATIENCE_MS);
  }

  /** @returns {RTCPeerConnectionState} */
  get state() {
    return this.#pc.connectionState;
  }

  /**
   * Takes a signal of the other side, in the order of arrival.
   *
   * @param {Signal} signal
   * @returns {Promise<void>}
   */
  handle(signal) {
    return this.#run(() => this.#apply(signal));
  }

  /**
   * Whether an offer comes from another connection than the one talked to so far (the other side was reloaded).
   *
   * @param {Signal} signal
   * @returns {boolean}
   */
  isForeign({ type, sdp }) {
    const known = this.#pc.remoteDescription?.sdp;
    return type === 'offer' && known !== undefined && originOf(known) !== originOf(sdp);
  }

  /** @param {RTCConfiguration} configuration for what is gathered from now on */
  configure(configuration) {
    if (this.#pc.signalingState !== 'closed') this.#pc.setConfiguration({ bundlePolicy: 'max-bundle', ...configuration });
  }

  /** Searches a new path; takes effect at once when signaling works. */
  restart() {
    clearTimeout(this.#restartTimer);
    if (this.#pc.signalingState !== 'closed' && this.#attached) this.#pc.restartIce();
  }

  /** Signals were lost: an offer without an answer is made anew, and a path is searched where there is none. */
  recover() {
    return this.#run(async () => {
      if (this.#pc.signalingState === 'have-local-offer') await this.#pc.setLocalDescription({ type: 'rollback' });
      if (this.state !== 'connected') this.restart();
    });
  }

  /**
   * Replaces what this side sends of one kind; negotiates only when nothing of the kind was sent before.
   *
   * @param {'audio' | 'video'} kind
   * @param {MediaStreamTrack | null} track
   */
  async replaceTrack(kind, track) {
    this.#tracks.set(kind, track);
    if (!this.#attached || this.#pc.signalingState === 'closed') return;
    const transceiver = this.#pc.getTransceivers().find(({ receiver }) => receiver.track.kind === kind);
    if (transceiver) {
      await transceiver.sender.replaceTrack(track);
      if (track && transceiver.direction === 'recvonly') transceiver.direction = 'sendrecv';
    } else if (track) {
      this.#pc.addTrack(track, this.#local);
    }
    this.#cap();
  }

  /** @returns {Promise<import('./stats.js').PeerStats>} */
  async stats() {
    return digest(await this.#pc.getStats());
  }

  /** Ends the connection. */
  close() {
    clearTimeout(this.#offerTimer);
    clearTimeout(this.#restartTimer);
    this.#pc.close();
  }

  #run(task) {
    this.#tasks = this.#tasks.then(task).catch((error) => this.#fail(error));
    return this.#tasks;
  }

  /** Adding tracks is what makes the browser ask for a negotiation, so a waiting side does it late. */
  #attach() {
    clearTimeout(this.#offerTimer);
    if (this.#attached) return;
    this.#attached = true;
    const answers = this.#pc.signalingState !== 'stable' || this.#pc.remoteDescription;
    for (const kind of ['audio', 'video']) {
      const track = this.#tracks.get(kind);
      if (track) this.#pc.addTrack(track, this.#local);
      else if (!answers) this.#pc.addTransceiver(kind, { direction: 'recvonly' });
    }
  }

  async #offer() {
    try {
      this.#makingOffer = true;
      await this.#pc.setLocalDescription();
      this.#sendDescription();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#makingOffer = false;
    }
  }

  async #apply(signal) {
    switch (signal.type) {
      case 'offer':
      case 'answer':
        return this.#onDescription({ type: signal.type, sdp: signal.sdp });
      case 'ice-candidate':
        return this.#onRemoteCandidate(signal);
      case 'ice-restart':
      case 'renegotiate':
        return signal.sdp ? this.#onDescription({ type: 'offer', sdp: signal.sdp }) : this.restart();
      default:
        return undefined;
    }
  }

  async #onDescription(description) {
    const pc = this.#pc;
    if (description.type === 'answer' && pc.signalingState !== 'have-local-offer') return;
    const collision = description.type === 'offer' && (this.#makingOffer || pc.signalingState !== 'stable');
    this.#ignoringOffer = collision && !this.polite;
    if (this.#ignoringOffer) return;
    await pc.setRemoteDescription(description);
    if (description.type === 'answer') return;
    this.#attach();
    await pc.setLocalDescription();
    this.#sendDescription();
  }

  async #onRemoteCandidate({ candidate, sdpMid, sdpMLineIndex }) {
    const init = typeof candidate === 'object' && candidate ? candidate : { candidate, sdpMid, sdpMLineIndex };
    try {
      await this.#pc.addIceCandidate(init);
    } catch (error) {
      // Candidates of an offer that was refused or ignored belong to nothing; losing one candidate never ends a call.
      if (!this.#ignoringOffer) console.debug('passerelle: a candidate does not fit', error);
    }
  }

  #onCandidate(candidate) {
    if (!candidate?.candidate) return;
    const { candidate: line, sdpMid, sdpMLineIndex } = candidate;
    this.#send({ type: 'ice-candidate', candidate: line, sdpMid, sdpMLineIndex });
  }

  #sendDescription() {
    const { type, sdp } = this.#pc.localDescription;
    this.#send({ type, sdp });
  }

  #onTrack(track) {
    const replaced = this.remoteStream.getTracks().filter((known) => known.kind === track.kind);
    replaced.forEach((known) => this.remoteStream.removeTrack(known));
    this.remoteStream.addTrack(track);
    this.emit('stream', this.remoteStream);
  }

  #onState() {
    clearTimeout(this.#restartTimer);
    if (this.state === 'connected') this.#cap();
    if (this.state === 'failed') this.restart();
    if (this.state === 'disconnected') this.#restartTimer = setTimeout(() => this.restart(), DISCONNECTED_MS);
    this.emit('state', this.state);
  }

  /** Keeps what is sent below what this user may send. */
  #cap() {
    if (!this.#maxKbps) return;
    for (const sender of this.#pc.getSenders().filter(({ track }) => track?.kind === 'video')) {
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings ?? []) encoding.maxBitrate = this.#maxKbps * 1000;
      sender.setParameters(parameters).catch((error) => this.#fail(error));
    }
  }

  #fail(error) {
    if (this.#pc.signalingState !== 'closed') this.emit('error', error);
  }
}

/** The session id of a description (RFC 8866 section 5.2): constant for the life of a connection. */
function originOf(sdp) {
  return /^o=\S+ (\S+)/m.exec(sdp ?? '')?.[1];
}
