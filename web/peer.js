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
const DISCONNECTED_MS = 4_000;
/** The polite side leaves the first restart to the other one. */
const POLITE_RESTART_MS = 2_000;

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
  #local;
  #attached = false;
  #makingOffer = false;
  #ignoringOffer = false;
  #tasks = Promise.resolve();
  #offerTimer;
  #restartTimer;

  /**
   * @param {object} options
   * @param {string} options.id participant on the other side
   * @param {boolean} options.polite yields when both sides offer at once
   * @param {boolean} options.offers makes the first offer; the other side waits for it
   * @param {RTCConfiguration} options.configuration
   * @param {MediaStream | undefined} options.stream what this side sends
   * @param {(signal: Signal) => void} options.send hands a signal to the call
   */
  constructor({ id, polite, offers, configuration, stream, send }) {
    super();
    this.id = id;
    this.polite = polite;
    this.#send = send;
    this.#local = stream;
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
    this.#tasks = this.#tasks.then(() => this.#apply(signal)).catch((error) => this.#fail(error));
    return this.#tasks;
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

  /** Searches a new path; takes effect at once when signaling works. */
  restart() {
    clearTimeout(this.#restartTimer);
    if (this.#pc.signalingState === 'closed' || !this.#attached) return;
    this.#pc.restartIce();
  }

  /** Signaling was interrupted: sends again what may have been lost, and searches a new path where there is none. */
  recover() {
    const pending = this.#pc.signalingState === 'have-local-offer' ? this.#pc.localDescription : undefined;
    if (pending) this.#send({ type: 'offer', sdp: pending.sdp });
    else if (this.state !== 'connected' && this.state !== 'new') this.restart();
  }

  /**
   * Replaces what this side sends, without a new negotiation where the kinds match.
   *
   * @param {MediaStream} stream
   */
  async replaceStream(stream) {
    this.#local = stream;
    if (!this.#attached) return;
    const senders = this.#pc.getSenders();
    for (const track of stream.getTracks()) {
      const sender = senders.find((candidate) => candidate.track?.kind === track.kind);
      if (sender) await sender.replaceTrack(track);
      else this.#pc.addTrack(track, stream);
    }
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

  /** Adding tracks is what makes the browser ask for a negotiation, so a waiting side does it late. */
  #attach() {
    clearTimeout(this.#offerTimer);
    if (this.#attached) return;
    this.#attached = true;
    const tracks = this.#local?.getTracks() ?? [];
    for (const track of tracks) this.#pc.addTrack(track, this.#local);
    const missing = ['audio', 'video'].filter((kind) => !tracks.some((track) => track.kind === kind));
    if (this.#pc.signalingState !== 'stable' || this.#pc.remoteDescription) return;
    for (const kind of missing) this.#pc.addTransceiver(kind, { direction: 'recvonly' });
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
        return this.restart();
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
    const patience = { disconnected: DISCONNECTED_MS, failed: this.polite ? POLITE_RESTART_MS : 0 }[this.state];
    if (patience !== undefined) this.#restartTimer = setTimeout(() => this.restart(), patience);
    this.emit('state', this.state);
  }

  #fail(error) {
    if (this.#pc.signalingState !== 'closed') this.emit('error', error);
  }
}

/** The session id of a description (RFC 8866 section 5.2): constant for the life of a connection. */
function originOf(sdp) {
  return /^o=\S+ (\S+)/m.exec(sdp ?? '')?.[1];
}
