import { Earmark, type EarmarkOptions, type UnsettledError } from "@earmark-dev/client";

export interface Seen {
  verb: string;
  key: string | null;
  authorization: string | null;
  body: any;
}

/** An Earmark without a network. It admits everything; intercept answers in its place. */
export class FakeEarmark {
  readonly calls: Seen[] = [];
  readonly unsettled: UnsettledError[] = [];
  readonly logged: string[] = [];
  intercept: (verb: string) => Response | Promise<Response> | undefined = () => undefined;
  #held: any = {};

  get verbs(): string[] {
    return this.calls.map(({ verb }) => verb);
  }

  client(options: EarmarkOptions = {}): Earmark {
    const note = (message: string) => void this.logged.push(message);
    return new Earmark({
      baseUrl: "http://earmark.test",
      fetch: this.fetch,
      logger: { warn: note, error: note },
      onUnsettled: (error) => void this.unsettled.push(error),
      ...options,
    });
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const verb = verbOf(new URL(String(input)).pathname);
    const headers = new Headers(init?.headers);
    const body = init?.body === undefined ? undefined : JSON.parse(String(init.body));
    this.calls.push({ verb, key: headers.get("Idempotency-Key"), authorization: headers.get("Authorization"), body });
    const instead = await this.intercept(verb);
    if (instead) return instead;
    init?.signal?.throwIfAborted();
    switch (verb) {
      case "reserve":
        this.#held = { amounts: { tokens: 1_000 }, ...body, id: "rsv_1", state: "held", usage: null };
        return Response.json(this.#held, { status: 201 });
      case "commit":
        return Response.json({ ...this.#held, state: "committed", usage: body.usage });
      case "release":
        return Response.json({ ...this.#held, state: "released" });
    }
    return Response.json(this.#held);
  };
}

function verbOf(path: string): string {
  const parts = path.split("/");
  return parts[4] ?? (parts[2] === "reservations" ? "reserve" : (parts[2] ?? path));
}

export const problem = (status: number, code: string, more: object = {}): Response =>
  Response.json({ code, detail: `it is ${code}`, ...more }, { status, headers: { "Content-Type": "application/problem+json" } });
