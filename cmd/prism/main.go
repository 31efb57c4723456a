// Command prism is the multicast registry in one binary: the server, and a verb for everything that a client can do.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		cancel()
		second := <-signals // whoever cannot wait for an orderly end
		os.Exit(exitSignal + int(second.(syscall.Signal)))
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program without its process: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	p := &program{in: in, out: out, err: errOut, columns: width(out)}
	return p.run(ctx, args)
}

func (p *program) run(ctx context.Context, args []string) int {
	root := newRootCmd(p) //nolint:contextcheck // verbs get the context from cobra
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	return p.report(interrupted(ctx, root.ExecuteContext(traced(ctx)), ""))
}
