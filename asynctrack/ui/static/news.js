// One stream of news for all tabs: a browser opens six connections to a host at once, all tabs together.
// The tab that holds the lock opens the stream, for the runs of all tabs that are seen, and tells the others.
import { eventsAddress } from "./wire.js";

const NAME = `asynctrack.news ${location.pathname}`;

export class News {
  /** `heard`: of each event. `opened`: whether there is a stream now. */
  constructor({ heard, opened }) {
    this.heard = heard;
    this.opened = opened;
    this.version = 0;
    this.ids = [];
    this.others = new Map(); // the runs of the other tabs, by tab
    this.me = `${Date.now()}.${Math.random()}`;
    this.stream = null;
    this.streamed = null;
    this.release = null; // gives the lock back
    this.turn = null; // the wish for it
    // Without locks (in a page that is not from this machine) each tab has a stream of its own.
    this.channel = navigator.locks && window.BroadcastChannel ? new BroadcastChannel(NAME) : null;
    this.channel?.addEventListener("message", ({ data }) => this.told(data));
    addEventListener("pagehide", () => this.rest());
  }

  /** Hear of these runs from now on. */
  watch(ids) {
    this.ids = ids;
    this.tell({ wants: ids });
    if (!this.channel) this.open();
    else if (this.release) this.open();
    else if (!this.turn) this.queue();
  }

  async queue() {
    const turn = (this.turn = new AbortController());
    try {
      await navigator.locks.request(NAME, { signal: turn.signal }, () => {
        if (this.turn !== turn) return undefined;
        this.tell({ who: true });
        this.open();
        return new Promise((resolve) => { this.release = resolve; });
      });
    } catch {
      // it was not wanted any more
    }
    if (this.turn === turn) this.turn = null;
  }

  /** Nobody looks at this tab: let another one have the stream. */
  rest() {
    this.tell({ wants: null });
    this.turn?.abort();
    this.turn = null;
    this.close();
    this.release?.();
    this.release = null;
  }

  tell(what) {
    this.channel?.postMessage({ from: this.me, ...what });
  }

  told({ from, wants, who, event, open }) {
    if (who) {
      if (!document.hidden) this.tell({ wants: this.ids });
    } else if (wants !== undefined) {
      if (wants) this.others.set(from, wants);
      else this.others.delete(from);
      if (this.release) {
        this.open();
        this.tell({ open: this.stream?.readyState === 1 });
      }
    } else if (!document.hidden) {
      if (event) this.take(event);
      else this.opened(open);
    }
  }

  take(event) {
    this.version = Math.max(this.version, event.version);
    this.heard(event);
  }

  open() {
    const ids = [...new Set([...this.ids, ...[...this.others.values()].flat()])].sort();
    const what = ids.join(".");
    if (this.stream && this.streamed === what && this.stream.readyState !== 2) return;
    this.close();
    this.streamed = what;
    this.stream = new EventSource(eventsAddress(ids, this.version));
    const say = (open) => {
      this.opened(open);
      this.tell({ open });
    };
    this.stream.onopen = () => say(true);
    this.stream.onerror = () => say(false);
    this.stream.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      this.tell({ event });
      this.take(event);
    };
  }

  close() {
    this.stream?.close();
    this.stream = null;
  }
}
