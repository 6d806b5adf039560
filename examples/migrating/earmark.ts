const shortestPauseMs = 100;
const longestPauseMs = 2_000;
const longestRetryAfterSeconds = 5;

// post sends a call until Earmark answers it. Each call here counts once, however often it is sent.
// status is 0 if nothing answered: the call may have taken effect.
export async function post(path, body, { key = "", attempts = 4, limitMs = 10_000 } = {}) {
  const { EARMARK_API_KEY: apiKey } = process.env;
  const headers = { "Content-Type": "application/json", ...(apiKey && { Authorization: `Bearer ${apiKey}` }), ...(key && { "Idempotency-Key": key }) };
  for (let attempt = 1; ; attempt++) {
    const answer = await send(path, { method: "POST", headers, body: JSON.stringify(body) }, limitMs);
    const away = [0, 502, 503, 504].includes(answer.status);
    // A hit on a later attempt may be this call's own.
    if (!away || attempt >= attempts) return { ...answer, hit: answer.hit && attempt === 1 };
    const pauseMs = Math.min(shortestPauseMs * 2 ** (attempt - 1), longestPauseMs) * (1 - Math.random() / 2);
    await sleep(pauseMs + Math.min(answer.retryAfter, longestRetryAfterSeconds) * 1_000);
  }
}

async function send(path, request, limitMs) {
  try {
    const response = await fetch(process.env.EARMARK_URL + path, { ...request, signal: AbortSignal.timeout(limitMs) });
    return {
      status: response.status,
      hit: response.headers.get("Idempotency-Hit") === "true",
      retryAfter: Number(response.headers.get("Retry-After")) || 0,
      body: parse(await response.text()),
    };
  } catch (error) {
    return { status: 0, hit: false, retryAfter: 0, body: { detail: `Earmark did not answer: ${error}` } };
  }
}

// parse also takes what a proxy answers in Earmark's place.
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: text.slice(0, 200) };
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
