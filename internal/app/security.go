package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/prism-data-layer/prism/internal/auth"
)

// security is what secures connections and notes what is done. It stays as it is while a server runs.
type security struct {
	tls       *auth.Reloader
	audit     *slog.Logger
	auditFile *os.File
}

// secure opens what the configuration says about security. It refuses to serve whoever comes on an address that others reach.
func secure(ctx context.Context, cfg Config, logger *slog.Logger) (s *security, err error) {
	if err := cfg.checkExposure(ctx, logger); err != nil {
		return nil, err
	}
	s = new(security)
	if err := s.openAudit(cfg.AuditLog); err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		if s.tls, err = auth.ServerTLS(*cfg.TLS, logger); err != nil { //nolint:contextcheck // it reads files again until it is closed
			s.close()
			return nil, fmt.Errorf("tls: %w", err)
		}
	}
	return s, nil
}

// openAudit opens the audit log, which is for its owner's eyes.
func (s *security) openAudit(name string) (err error) {
	out := os.Stderr
	switch name {
	case "":
		return nil
	case "stderr":
	default:
		if s.auditFile, err = os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return fmt.Errorf("audit_log: %w", err)
		}
		out = s.auditFile
	}
	s.audit = slog.New(slog.NewJSONHandler(out, nil))
	return nil
}

func (s *security) close() {
	if s.auditFile != nil {
		_ = s.auditFile.Close() // every entry was written at once
	}
	if s.tls != nil {
		s.tls.Close()
	}
}

// checkExposure refuses, or at least warns of, addresses at which others could do what they should not.
func (c Config) checkExposure(ctx context.Context, logger *slog.Logger) error {
	for _, at := range []struct{ name, address string }{{"grpc", c.Listen.GRPC}, {"http", c.Listen.HTTP}} {
		switch {
		case loopback(at.address):
		case c.Auth == nil && !c.Insecure:
			return fmt.Errorf("listen.%s: %s can be reached from elsewhere, and without auth whoever reaches it may do everything; "+
				"configure auth, listen on 127.0.0.1, or say --insecure (insecure: true in the configuration)", at.name, at.address)
		case c.Auth == nil:
			logger.LogAttrs(ctx, slog.LevelWarn, "INSECURE: whoever reaches this address may do everything",
				slog.String("listen", at.name), slog.String("address", at.address))
		case c.TLS == nil:
			logger.LogAttrs(ctx, slog.LevelWarn, "tokens and messages travel in plain text: configure tls, unless something in front "+
				"of this server has it", slog.String("listen", at.name), slog.String("address", at.address))
		}
	}
	if c.Listen.Admin != "" && !loopback(c.Listen.Admin) {
		logger.LogAttrs(ctx, slog.LevelWarn, "operators are asked for no credentials: see to it that nobody else reaches this address",
			slog.String("listen", "admin"), slog.String("address", c.Listen.Admin))
	}
	return nil
}

// loopback tells whether an address can be reached from this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
