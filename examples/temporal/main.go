// Command temporal is a Temporal worker whose activity calls a model within a budget:
// Earmark reserves before the activity runs, and receives its usage by signal. It runs on
// the development stack:
//
//	make dev                       # in another terminal
//	go run ./examples/temporal
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	temporalclient "go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/activityguard"
)

const taskQueue = "answers"

// maxTokens is the worst case of one call: prompt and answer.
const maxTokens = 1000

// Question is the workflow's input.
type Question struct {
	Customer string
	Prompt   string
}

// Answer asks the model once, within the customer's budget.
func Answer(ctx workflow.Context, question Question) (string, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	var answer string
	err := workflow.ExecuteActivity(ctx, CallModel, question).Get(ctx, &answer)
	return answer, err
}

// CallModel stands for the call of a model. It counts tokens as they arrive, so that they
// are charged even if the stream breaks.
func CallModel(ctx context.Context, question Question) (string, error) {
	meter := activityguard.Meter(ctx)
	meter.Add(earmark.Amounts{"tokens": int64(len(question.Prompt) / 4)})
	answer := "It depends."
	meter.Add(earmark.Amounts{"tokens": int64(len(answer) / 4)})
	return answer, nil
}

func main() {
	earmarkURL := flag.String("earmark", "http://127.0.0.1:8080", "address of Earmark")
	flag.Parse()
	if err := run(context.Background(), *earmarkURL); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, earmarkURL string) error {
	earmarks, err := client.New(earmarkURL, client.WithAPIKey(os.Getenv("EARMARK_API_KEY"))) // none is needed on the development stack
	if err != nil {
		return err
	}
	// TEMPORAL_ADDRESS and the like; without them, the development stack's.
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return err
	}
	temporal, err := temporalclient.Dial(options)
	if err != nil {
		return err
	}
	defer temporal.Close()

	limit := int64(100_000)
	_, err = earmarks.CreateBudget(ctx, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	var known *earmark.Error
	if err != nil && (!errors.As(err, &known) || known.Code != earmark.CodeBudgetExists) {
		return err
	}

	w := worker.New(temporal, taskQueue, worker.Options{Interceptors: []interceptor.WorkerInterceptor{
		activityguard.NewInterceptor(activityguard.Options{Earmark: earmarks, Temporal: temporal, Request: reserveFor}),
	}})
	w.RegisterWorkflow(Answer)
	w.RegisterActivity(CallModel)
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Stop()

	started, err := temporal.ExecuteWorkflow(ctx, temporalclient.StartWorkflowOptions{TaskQueue: taskQueue},
		Answer, Question{Customer: "u1", Prompt: "Is it worth it to reserve before spending?"})
	if err != nil {
		return err
	}
	var answer string
	if err := started.Get(ctx, &answer); err != nil {
		return err
	}
	fmt.Println("answer:", answer)
	return nil
}

// reserveFor returns the most that an attempt of an activity may use, and the scopes of its
// budgets.
func reserveFor(_ context.Context, activityType string, args []any) (earmark.ReservationRequest, bool, error) {
	if activityType != "CallModel" {
		return earmark.ReservationRequest{}, false, nil
	}
	question, ok := args[0].(Question)
	if !ok {
		return earmark.ReservationRequest{}, false, fmt.Errorf("CallModel has a %T and not a Question", args[0])
	}
	scope, err := earmark.ScopeOf("acme", question.Customer)
	if err != nil {
		return earmark.ReservationRequest{}, false, err
	}
	return earmark.ReservationRequest{
		Scopes: []string{scope}, Amounts: earmark.Amounts{"tokens": maxTokens},
		OnExpiry: earmark.OnExpiryCommit, // a call whose worker dies may have been paid for
	}, true, nil
}
