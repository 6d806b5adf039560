package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

// Limits of the check whether a server is ready.
const (
	healthTimeout  = 5 * time.Second
	maxHealthBytes = 16 << 10
)

func newHealth() *cobra.Command {
	c := &connection{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a server whether it is ready, for health checks in containers",
		Long: `Ask a server whether it is ready. It exits with 0 if it is, and with 1 if it is not or does
not answer, and prints what is away.`,
		Example: "  earmark health --url http://127.0.0.1:8080",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.connect(cmd); err != nil {
				return err
			}
			return askHealth(cmd, c, asJSON)
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's JSON")
	return cmd
}

// readyAnswer is what /readyz answers, ready or not.
type readyAnswer struct {
	Checks map[string]struct {
		Status string `json:"status"`
		Detail string `json:"detail"`
	} `json:"checks"`
}

func askHealth(cmd *cobra.Command, c *connection, asJSON bool) error {
	// The address may include the path of the check.
	base := strings.TrimSuffix(strings.TrimRight(c.url, "/"), "/readyz")
	ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return usageError{fmt.Errorf("--url: %w", err)}
	}
	response, err := (&http.Client{Transport: c.transport()}).Do(request)
	if err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "no server answers at %s (%s)", base, rootCause(err))
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealthBytes))
	if err != nil {
		return fmt.Errorf("%s broke off its answer: %w", base, err)
	}
	var ready readyAnswer
	if json.Unmarshal(body, &ready) != nil || len(ready.Checks) == 0 {
		return fmt.Errorf("%s answers %s, and not in the words of an Earmark; is it the address of one?", base, response.Status)
	}
	if asJSON {
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n", strings.TrimSpace(string(body)))
	}
	var away, details []string
	for _, name := range sortedKeys(ready.Checks) {
		check := ready.Checks[name]
		switch detail := name + ": " + clean(check.Detail); {
		case check.Status != "up":
			away = append(away, detail)
		case check.Detail != "":
			details = append(details, detail)
		}
	}
	switch {
	case response.StatusCode == http.StatusOK && len(away) == 0:
		if !asJSON {
			fmt.Fprintf(cmd.OutOrStdout(), "ready: %s answer\n", strings.Join(sortedKeys(ready.Checks), ", "))
			for _, detail := range details {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", detail)
			}
		}
		return nil
	case len(away) == 0:
		return fmt.Errorf("%s is not ready: it answers %s", base, response.Status)
	}
	return fmt.Errorf("%s is not ready\n  %s", base, strings.Join(away, "\n  "))
}
