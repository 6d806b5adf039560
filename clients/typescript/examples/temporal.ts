import { openai } from "@ai-sdk/openai";
import { earmarkMiddleware } from "@earmark-dev/client/ai";
import { activityInfo } from "@temporalio/activity";
import { AiSdkPlugin } from "@temporalio/ai-sdk";
import { ApplicationFailure } from "@temporalio/common";
import { wrapProvider } from "ai";

const middleware = earmarkMiddleware({
  scopes: ["acme/ml"],
  on_expiry: "commit",
  key() {
    const { workflowExecution, activityId, attempt } = activityInfo();
    return `${workflowExecution?.runId}/${activityId}/${attempt}`;
  },
  onDenied: ({ retryable }) => ApplicationFailure.create({ message: "The budget is used up.", type: "budget_exceeded", nonRetryable: !retryable }),
});
export const modelProvider = wrapProvider({ provider: openai, languageModelMiddleware: middleware });
export const plugin = new AiSdkPlugin({ modelProvider }); // of the worker; workflow code does not change
