// Command server serves the conformance cases until its input ends or it is stopped. It prints its URL.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/earmark-dev/earmark/test/conformance"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "the address to listen on")
	upstream := flags.String("upstream", "", "the URL of an Earmark without keys; without it, cases that need one are left out")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	base := "http://" + listener.Addr().String()
	handler, err := conformance.NewServer(base, *upstream)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // whoever started it holds the other end
		cancel()
	}()
	server := conformance.NewHTTPServer(handler)
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	fmt.Fprintln(stdout, base)
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}
