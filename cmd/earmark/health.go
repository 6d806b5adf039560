package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealth() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:     "health",
		Short:   "Ask a server whether it is ready, for health checks in containers",
		Example: "  earmark health --url http://127.0.0.1:8080/readyz",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const (
				timeout  = 5 * time.Second
				maxBytes = 16 << 10
			)
			if address := os.Getenv(urlEnv); address != "" && !cmd.Flags().Changed("url") {
				url = strings.TrimRight(address, "/") + "/readyz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return usageError{fmt.Errorf("--url: %w", err)}
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }()
			if response.StatusCode != http.StatusOK {
				body, _ := io.ReadAll(io.LimitReader(response.Body, maxBytes))
				return fmt.Errorf("%s answers %s: %s", url, response.Status, body)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://127.0.0.1:8080/readyz", "what to ask (without it, /readyz of the server in env "+urlEnv+")")
	return cmd
}
