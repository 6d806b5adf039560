/** An event of a stream: its bytes as they came, with the empty line that ends it, and its data. */
export interface StreamEvent {
  bytes: Uint8Array;
  data: string;
}

/** Bounds an event. A longer one passes on unread. */
const maxEventBytes = 16 << 20;
const lineFeed = 10;
const carriageReturn = 13;

/**
 * Cuts a stream of server-sent events into events, and keeps every byte. A line ends with CR, LF or both. A CR in an empty line ends the
 * event at once; an LF that follows is an empty line of its own.
 */
export class EventSplitter {
  #pending: Uint8Array = new Uint8Array();
  #scanned = 0; // of #pending
  #lineBytes = 0; // of the line that #scanned is in
  #afterCR = false;

  push(chunk: Uint8Array): StreamEvent[] {
    const bytes = concat([this.#pending, chunk]);
    const events: StreamEvent[] = [];
    let from = 0;
    for (let i = this.#scanned; i < bytes.length; i++) {
      const isLineFeed = bytes[i] === lineFeed;
      const isSecondHalf = isLineFeed && this.#afterCR; // of the end of a line
      this.#afterCR = bytes[i] === carriageReturn;
      if (!isLineFeed && !this.#afterCR) {
        this.#lineBytes++;
      } else if (this.#lineBytes > 0) {
        this.#lineBytes = 0;
      } else if (!isSecondHalf || i === from) {
        events.push(eventOf(bytes.subarray(from, i + 1)));
        from = i + 1;
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
  const lines = new TextDecoder().decode(bytes).split(/[\r\n]/);
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
