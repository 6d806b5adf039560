import { Webhook } from "standardwebhooks";
import type { Event } from "@earmark-dev/client";

/** Checks a delivery. body is the text of the request as it came; an error means to answer 401. */
export function received(body: string, headers: Record<string, string>, secret: string): Event {
  const { data } = new Webhook(secret).verify(body, headers) as { type: string; timestamp: string; data: Event };
  return data;
}
