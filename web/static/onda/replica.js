/**
 * A feed's state as this screen has it: a snapshot and the patches after it, counted so that none is missed.
 */

/** The stream skipped or repeated a version: what this screen shows can no longer be trusted. */
export class VersionError extends Error {}

/**
 * @typedef {object} Envelope
 * @property {string} id
 * @property {string} cursor
 * @property {string} stream
 * @property {number} version
 * @property {string} type
 * @property {string} time
 * @property {string} by
 * @property {string} [cause]
 * @property {any} data
 * @property {Record<string, Record<string, any>>} [patch]
 */

export class Replica {
  /**
   * `{collection: {id: entity}}`, replaced by a snapshot and changed in place by patches.
   * @type {Record<string, Record<string, any>>}
   */
  state = {};
  /** Where this state is in the stream; opaque. @type {string | null} */
  cursor = null;
  /** Version of the last event; null after a snapshot, until it is known. @type {number | null} */
  version = null;
  /** Names of collections that changed since `takeChanges`. @type {Set<string>} */
  #changed = new Set();

  /** @param {{cursor: string, state: Record<string, Record<string, any>>, version?: number}} snapshot */
  replace(snapshot) {
    for (const name of Object.keys(this.state)) this.#changed.add(name);
    for (const name of Object.keys(snapshot.state)) this.#changed.add(name);
    this.state = snapshot.state;
    this.cursor = snapshot.cursor;
    this.version = snapshot.version ?? null;
  }

  /**
   * @param {Envelope} envelope
   * @throws {VersionError} nothing was changed
   */
  apply(envelope) {
    const { version } = envelope;
    if (this.version !== null && version !== this.version + 1) {
      throw new VersionError(`after version ${this.version} came ${version}`);
    }
    for (const [collection, entities] of Object.entries(envelope.patch ?? {})) {
      const target = (this.state[collection] ??= {});
      for (const [id, entity] of Object.entries(entities)) {
        if (entity === null) delete target[id];
        else target[id] = entity;
      }
      this.#changed.add(collection);
    }
    this.version = version;
    this.cursor = envelope.cursor;
  }

  /** The collections that changed since the last call. */
  takeChanges() {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }
}
