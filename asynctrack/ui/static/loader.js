// Fetches the charts that are seen, and those of them again whose metrics have news. One request at a time.
import * as wire from "./wire.js";

/** charts of one request */
const AT_ONCE = 6;
/** ms between two requests for news, and as a multiple of what one takes */
const REST = 100, SHARE = 2;

export class Loader {
  /** `query`: (key) => what is asked for of a chart, or null for nothing yet; one request is for charts that ask alike. `done`: (key, chart, query), `failed`: (error or null),
   * `trouble`: what the store does not do. */
  constructor({ query, done, failed }) {
    this.query = query;
    this.done = done;
    this.failed = failed;
    this.seen = new Set();
    this.loaded = new Map(); // key -> the request it was drawn from
    this.stale = new Set();
    this.version = 0;
    this.busy = null;
    this.rest = 0;
    this.timer = 0;
  }

  see(key, visible) {
    if (visible) this.seen.add(key);
    else this.seen.delete(key);
    this.soon();
  }

  /** These have new points. */
  news(keys) {
    for (const key of keys) this.stale.add(key);
    this.soon(this.rest);
  }

  /** Something else is asked for: what is on its way is not wanted any more. */
  changed() {
    if (this.busy && this.busy.keys.every((key) => this.query(key) !== this.busy.query)) this.busy.stop.abort();
    this.soon();
  }

  soon(wait = 0) {
    if (this.timer && wait > 0) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.timer = 0; this.pump(); }, wait);
  }

  async pump() {
    if (this.busy) return;
    const old = [...this.seen].filter((key) => {
      const query = this.query(key);
      return query !== null && (this.loaded.get(key) !== query || this.stale.has(key));
    });
    if (!old.length) return;
    const query = this.query(old[0]);
    const wanted = old.filter((key) => this.query(key) === query).slice(0, AT_ONCE);
    const begun = performance.now();
    const busy = (this.busy = { query, keys: wanted, stop: new AbortController() });
    for (const key of wanted) this.stale.delete(key);
    let wait = 0;
    try {
      const found = await wire.charts(wanted, query, busy.stop.signal);
      this.failed(null);
      for (const chart of found.charts) {
        this.loaded.set(chart.key, query);
        this.done(chart.key, chart, query);
      }
      // News is drawn a few times a second, and never so often that the page or the server does nothing else.
      this.rest = Math.max(REST, SHARE * (performance.now() - begun));
      wait = [...this.seen].some((key) => this.loaded.get(key) !== this.query(key)) ? 0 : this.rest;
    } catch (error) {
      if (error.name !== "AbortError") {
        this.failed(error);
        wait = 3000;
        for (const key of wanted) this.loaded.delete(key);
      }
    } finally {
      this.busy = null;
      this.soon(wait);
    }
  }
}
