/**
 * The ring, made of oscillators: nothing to download.
 *
 * @module demo-sound
 */

/** Notes of a ring: frequency in hertz, start and length in seconds; then how long until it comes again. */
const RINGS = {
  ringing: { notes: [[587, 0, 0.22], [784, 0.2, 0.22], [587, 0.6, 0.22], [784, 0.8, 0.3]], everyMs: 2600, gain: 0.12 },
  calling: { notes: [[425, 0, 0.9]], everyMs: 3600, gain: 0.05 },
};

/** Plays at most one ring at a time. */
export class Ringer {
  /** Whether rings may be heard. */
  enabled = true;

  #audio;
  #timer;

  /**
   * Starts a ring, or stops with a kind that has none.
   *
   * @param {string} kind `ringing` (someone calls) or `calling` (someone is being called)
   */
  play(kind) {
    this.stop();
    const ring = RINGS[kind];
    if (!ring || !this.enabled) return;
    this.#audio = new AudioContext();
    const once = () => this.#sound(ring);
    once();
    this.#timer = setInterval(once, ring.everyMs);
  }

  /** Silence. */
  stop() {
    clearInterval(this.#timer);
    this.#audio?.close();
    this.#audio = undefined;
  }

  #sound({ notes, gain }) {
    const audio = this.#audio;
    for (const [frequency, start, length] of notes) {
      const begin = audio.currentTime + start;
      const note = new OscillatorNode(audio, { frequency });
      const volume = new GainNode(audio, { gain: 0 });
      volume.gain.setTargetAtTime(gain, begin, 0.02);
      volume.gain.setTargetAtTime(0, begin + length, 0.05);
      note.connect(volume).connect(audio.destination);
      note.start(begin);
      note.stop(begin + length + 0.4);
    }
  }
}
