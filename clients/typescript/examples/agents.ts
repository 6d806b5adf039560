import { OpenAIProvider, Runner } from "@openai/agents";
import OpenAI from "openai";
import { wrap } from "@earmark-dev/client";

const openAIClient = wrap(new OpenAI(), { scopes: ["acme/ml"], on_expiry: "commit" });
export const runner = new Runner({ modelProvider: new OpenAIProvider({ openAIClient }) });
