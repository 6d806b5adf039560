package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/certificate"
)

const (
	defaultURL = "http://127.0.0.1:8080"
	urlEnv     = "EARMARK_URL"
	caFileEnv  = "EARMARK_CA_FILE"

	cliUserAgent = "earmark-cli"
)

// connection says how a command reaches a server. It is complete after connect.
type connection struct {
	url    string
	caFile string
	roots  *x509.CertPool // nil: the system's
}

func (c *connection) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.url, "url", defaultURL, "`URL` of the server (env "+urlEnv+")")
	cmd.Flags().StringVar(&c.caFile, "ca-file", "", "PEM `file` with the certificate authority of an https server, besides the system's (env "+caFileEnv+")")
}

// connectionOf is what a command's flags say.
func connectionOf(cmd *cobra.Command) (c connection, err error) {
	if c.url, err = cmd.Flags().GetString("url"); err != nil {
		return c, err
	}
	c.caFile, err = cmd.Flags().GetString("ca-file")
	return c, err
}

// connect takes from the environment what no flag has set, and reads the file.
func (c *connection) connect(cmd *cobra.Command) error {
	take := func(flag, env string, value *string) {
		if set := os.Getenv(env); set != "" && !cmd.Flags().Changed(flag) {
			*value = set
		}
	}
	take("url", urlEnv, &c.url)
	take("ca-file", caFileEnv, &c.caFile)
	if c.caFile == "" {
		return nil
	}
	var err error
	if c.roots, err = certificate.Roots(c.caFile); err != nil {
		return usageError{fmt.Errorf("--ca-file (or %s): %w", caFileEnv, err)}
	}
	return nil
}

// client makes a client of the server, with the key that the environment has.
func (c *connection) client(userAgent string, options ...client.Option) (*client.Client, error) {
	key, err := apiKey()
	if err != nil {
		return nil, usageError{err}
	}
	api, err := client.New(c.url, append([]client.Option{
		client.WithRootCAs(c.roots), client.WithAPIKey(key),
		client.WithUserAgent(userAgent + "/" + version),
	}, options...)...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url (or %s): %w", urlEnv, err)}
	}
	return api, nil
}

// transport makes single calls to the server.
func (c *connection) transport() http.RoundTripper {
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok || c.roots == nil {
		return http.DefaultTransport
	}
	private := standard.Clone()
	private.TLSClientConfig = &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12}
	return private
}
