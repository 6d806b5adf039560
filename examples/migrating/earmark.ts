export async function earmark(path, body, headers = {}) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(process.env.EARMARK_URL + path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(body),
    }).catch((error) => ({ status: 503, json: async () => ({ detail: String(error) }) }));
    // The calls below count once however often they are sent.
    if (response.status < 500 || attempt === 4) return { status: response.status, body: await response.json() };
    await new Promise((resolve) => setTimeout(resolve, attempt * 500));
  }
}
