/**
 * Tones made by the browser: one each for new orders, calls, what is taken back, and lateness. Silent until a tap allows it.
 */

import { setSetting, setting } from "./session.js";

/** Notes of each signal: when (s), pitch (Hz), length (s). */
const SIGNALS = {
  new: [
    [0, 784, 0.16],
    [0.18, 988, 0.16],
    [0.36, 1319, 0.34],
  ],
  call: [
    [0, 1047, 0.12],
    [0.2, 1047, 0.12],
    [0.5, 1047, 0.12],
    [0.7, 1047, 0.2],
  ],
  void: [
    [0, 659, 0.14],
    [0.18, 523, 0.14],
    [0.36, 392, 0.3],
  ],
  late: [
    [0, 440, 0.25],
    [0.3, 349, 0.4],
  ],
};
const REPEAT_MS = 5_000;

/** @typedef {keyof typeof SIGNALS} Signal */

export class Sound {
  /** @type {AudioContext | null} */
  #audio = null;
  #volume = Number(setting("volume") ?? "0.8");
  /** @type {Partial<Record<Signal, number>>} */
  #lastAt = {};
  /** Wanted before: any first tap of this page brings it back. */
  #wanted = setting("sound") === "on";

  constructor() {
    const first = () => {
      if (this.#wanted) this.enable();
    };
    addEventListener("pointerdown", first, { once: true });
    addEventListener("keydown", first, { once: true });
  }

  get on() {
    return this.#audio !== null;
  }

  get volume() {
    return this.#volume;
  }

  set volume(value) {
    this.#volume = value;
    setSetting("volume", String(value));
  }

  /** Call it in a tap: browsers allow sound only then. */
  enable() {
    this.#audio ??= new AudioContext();
    void this.#audio.resume();
    setSetting("sound", "on");
  }

  disable() {
    void this.#audio?.close();
    this.#audio = null;
    this.#wanted = false;
    setSetting("sound", "off");
  }

  /**
   * Play, unless it was played a moment ago: call it as often as there is a reason.
   * @param {Signal} signal
   */
  repeat(signal) {
    if (Date.now() - (this.#lastAt[signal] ?? 0) >= REPEAT_MS) this.play(signal);
  }

  /** @param {Signal} signal */
  play(signal) {
    const audio = this.#audio;
    if (audio === null || this.#volume === 0) return;
    this.#lastAt[signal] = Date.now();
    for (const [at, pitch, length] of SIGNALS[signal])
      this.#note(audio, audio.currentTime + at, pitch, length);
  }

  /** @param {AudioContext} audio @param {number} at @param {number} pitch @param {number} length */
  #note(audio, at, pitch, length) {
    const tone = new OscillatorNode(audio, { type: "triangle", frequency: pitch });
    const gain = new GainNode(audio, { gain: 0 });
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(this.#volume, at + 0.01);
    gain.gain.exponentialRampToValueAtTime(0.001, at + length);
    tone.connect(gain).connect(audio.destination);
    tone.start(at);
    tone.stop(at + length);
  }
}
