/**
 * The smallest possible event source.
 *
 * @module emitter
 */

/** Something that others listen to. A listener that throws never stops the others. */
export class Emitter {
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #listeners = new Map();

  /**
   * Listens to an event.
   *
   * @param {string} type name of the event
   * @param {(detail: any) => void} listener called with the event's detail
   * @returns {() => void} stops listening
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    listeners.add(listener);
    this.#listeners.set(type, listeners);
    return () => listeners.delete(listener);
  }

  /**
   * Tells every listener.
   *
   * @param {string} type name of the event
   * @param {any} [detail] what happened
   */
  emit(type, detail) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        console.error(`passerelle: a listener of "${type}" failed`, error);
      }
    }
  }
}
