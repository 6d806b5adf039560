// Reserves over HTTP, calls a model, and tells the reservation's workflow what was
// used by a plain JSON signal: no Earmark library, and no Earmark worker has to run
// for the signal to be kept.
//
//   npm ci && npm start        # with `make dev` in another terminal

import { Client, Connection } from '@temporalio/client';

const earmark = process.env.EARMARK_URL ?? 'http://127.0.0.1:8080';
const apiKey = process.env.EARMARK_API_KEY; // not needed on the development stack
const temporal = process.env.TEMPORAL_ADDRESS ?? '127.0.0.1:7233';

async function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(earmark + path, {
    method,
    headers: { 'Content-Type': 'application/json', ...(apiKey && { Authorization: `Bearer ${apiKey}` }), ...headers },
    body: JSON.stringify(body),
  });
}

interface Reservation {
  id: string;
  state: string;
  workflow_id: string;
  usage: Record<string, number> | null;
}

// 201 makes the budget; 409 says that it is there.
const budget = await call('POST', '/v1/budgets', { scope: 'acme', unit: 'tokens', limit: 100_000 });
if (budget.status !== 201 && budget.status !== 409) {
  throw new Error(`the budget: ${budget.status} ${await budget.text()}`);
}

const answer = await call(
  'POST',
  '/v1/reservations',
  { scopes: ['acme/u1'], amounts: { tokens: 1000 } },
  { 'Idempotency-Key': `signal-example-${Date.now()}` },
);
if (answer.status !== 201) {
  throw new Error(`not admitted: ${answer.status} ${await answer.text()}`);
}
const reservation = (await answer.json()) as Reservation;

// … call the model here …
const used = 412;

const connection = await Connection.connect({ address: temporal });
const client = new Client({ connection, namespace: process.env.TEMPORAL_NAMESPACE ?? 'default' });
await client.workflow.getHandle(reservation.workflow_id).signal('commit', { usage: { tokens: used } });

// The signal is durable; the charge follows at once when a worker runs.
let settled = reservation;
for (let look = 0; look < 100 && settled.state === 'held'; look++) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  const looked = await call('GET', `/v1/reservations/${reservation.id}`);
  if (looked.status === 200) {
    settled = (await looked.json()) as Reservation;
  }
}
console.log(`${settled.state}: ${settled.usage?.tokens} tokens`);
await connection.close();
