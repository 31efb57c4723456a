package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// adminServer serves operators at an address of their own, which nobody else is to reach. The zero value serves nobody.
type adminServer struct {
	listener net.Listener
	http     *http.Server
	ended    sync.WaitGroup
	once     sync.Once
}

// listenAdmin listens at an address; an empty one is no fault, and then nobody is served.
func listenAdmin(ctx context.Context, address string) (*adminServer, error) {
	if address == "" {
		return &adminServer{}, nil
	}
	l, err := listen(ctx, address, "admin")
	if err != nil {
		return nil, err
	}
	return &adminServer{listener: l}, nil
}

// serve answers from now on.
func (a *adminServer) serve(handler http.Handler, logger *slog.Logger) {
	if a.listener == nil {
		return
	}
	a.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		WriteTimeout:   30 * time.Second, // a profile adds the time that it was asked for
		MaxHeaderBytes: 1 << 14, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	a.ended.Go(func() {
		if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("operators are served no more", slog.Any("error", err)) // which is no reason to leave everybody else
		}
	})
}

// address is where it listens; empty: nowhere.
func (a *adminServer) address() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

// close ends it, a scrape that is under way in a second at most. Closing again does nothing.
func (a *adminServer) close() {
	if a.listener == nil {
		return
	}
	a.once.Do(func() {
		if a.http == nil {
			_ = a.listener.Close()
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := a.http.Shutdown(ctx); err != nil {
			_ = a.http.Close() // a profile that was asked for is cut off
		}
		a.ended.Wait()
	})
}
