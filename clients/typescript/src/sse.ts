/** An event of a stream: its bytes as they came, with the empty line that ends it, and its data. */
export interface StreamEvent {
  bytes: Uint8Array;
  data: string;
}

/** Bounds an event. A longer one passes on unread. */
const maxEventBytes = 16 << 20;
const lineFeed = 10;
const carriageReturn = 13;

/** Cuts a stream of server-sent events into events, and keeps every byte. */
export class EventSplitter {
  #pending: Uint8Array = new Uint8Array();
  #scanned = 0; // of #pending
  #lineBytes = 0; // of the line that #scanned is in

  push(chunk: Uint8Array): StreamEvent[] {
    const bytes = concat([this.#pending, chunk]);
    const events: StreamEvent[] = [];
    let from = 0;
    for (let i = this.#scanned; i < bytes.length; i++) {
      if (bytes[i] === lineFeed) {
        if (this.#lineBytes === 0) {
          events.push(eventOf(bytes.subarray(from, i + 1)));
          from = i + 1;
        }
        this.#lineBytes = 0;
      } else if (bytes[i] !== carriageReturn) {
        this.#lineBytes++;
      }
    }
    if (bytes.length - from > maxEventBytes) {
      events.push(eventOf(bytes.subarray(from)));
      from = bytes.length;
    }
    this.#pending = bytes.subarray(from);
    this.#scanned = this.#pending.length;
    return events;
  }

  /** What came after the last whole event. */
  end(): StreamEvent {
    return eventOf(this.#pending);
  }
}

function eventOf(bytes: Uint8Array): StreamEvent {
  const lines = new TextDecoder().decode(bytes).split(/\r?\n/);
  const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice("data:".length).trimStart());
  return { bytes, data: data.join("\n") };
}

export function concat(parts: Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
