import { ChatOpenAI } from "@langchain/openai";
import { guardedFetch } from "@earmark-dev/client";

const fetch = guardedFetch({ scopes: ["acme/ml"], on_expiry: "commit" });
export const chat = new ChatOpenAI({ model: "gpt-5", configuration: { fetch } }); // ChatAnthropic: clientOptions: { fetch }
