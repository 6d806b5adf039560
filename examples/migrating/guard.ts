import { post } from "./earmark.ts";

const settleAttempts = 20; // about half a minute

// guard reserves, runs work and charges what work used. work returns { reply, usage }. If it throws,
// on_expiry decides, unless the error says with nothingSent that the model was certainly not called.
export async function guard(request, key, work) {
  const admission = await post("/v1/reservations", request, { key });
  if (admission.status === 402) throw new Error("over limit");
  if (admission.status !== 201) throw new Error(admission.body.detail); // no decision is not a yes
  if (admission.hit) throw new Error("this request is running already");
  const path = `/v1/reservations/${admission.body.id}`;
  const stop = keepLease(path, request.ttl_seconds);
  let done;
  try {
    done = await work();
  } catch (error) {
    if (error.nothingSent) await post(`${path}/release`, { reason: "nothing was sent" });
    throw error;
  } finally {
    stop();
  }
  const settled = await post(`${path}/commit`, { usage: done.usage }, { attempts: settleAttempts });
  if (settled.status !== 200 && settled.status !== 202) {
    console.error("not settled", { id: admission.body.id, usage: done.usage, detail: settled.body.detail });
  }
  return done.reply;
}

// keepLease extends the lease with a third of it left, until the function that it returns is called.
function keepLease(path, ttlSeconds) {
  const limitMs = Math.min(Math.max(ttlSeconds * 167, 1_000), 10_000);
  let stopped = false;
  let timer;
  const extendIn = (ms) => {
    timer = setTimeout(async () => {
      const { status } = await post(`${path}/extend`, { ttl_seconds: ttlSeconds }, { attempts: 1, limitMs });
      if (stopped || status === 409 || status === 410) return; // it is over: let the model finish
      extendIn(status === 200 ? ttlSeconds * 667 : ttlSeconds * 67);
    }, ms);
  };
  extendIn(ttlSeconds * 667);
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
