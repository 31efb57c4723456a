package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

// subscribeFlags is what subscribe is told.
type subscribeFlags struct {
	register  bool
	keepAlive bool
	meta      []string
	json      string
	ttl       string
	count     int
	noAck     bool
	replyCode uint32
	reply     string
}

func newSubscribeCmd(p *program) *cobra.Command {
	var f subscribeFlags
	cmd := &cobra.Command{
		Use:   "subscribe ID...",
		Short: "Receive the messages of identities",
		Long: `Receive the messages of identities, print and acknowledge them, until Ctrl-C. It attaches again by itself when the server
was away. Each message is printed once: a repeat of one that was acknowledged is acknowledged again and not printed. What was
stored while the identity was away, or is handed over again after it was not acknowledged, is marked as redelivered.

With --reply-code and --reply every message is answered; the sender sees the answers with prism multicast --replies.

With --register it also registers the identities, replacing what is registered under their names, keeps their leases, and
unregisters them in the end. With --keep-alive it keeps the leases of identities that somebody else registers.

` + metadataHelp,
		Example: `  prism subscribe dev-1 --register --meta room=lab --ttl 30s
  prism subscribe dev-1 dev-2 --keep-alive
  prism subscribe dev-1 --count 1 -o json
  prism subscribe lock-1 --register --reply-code 7 --reply 'jammed'`,
		Args:              args(cobra.MinimumNArgs(1), "at least one ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, ids []string) error { return p.subscribe(cmd, ids, f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.register, "register", false, "register the identities too, and unregister them in the end")
	flags.BoolVar(&f.keepAlive, "keep-alive", false, "keep the leases of the identities")
	addMetadataFlags(cmd, &f.meta, &f.json, &f.ttl)
	flags.IntVar(&f.count, "count", 0, "end after `N` messages (default: never)")
	flags.BoolVar(&f.noAck, "no-ack", false, "do not acknowledge messages: senders that ask for acks see a timeout")
	flags.Uint32Var(&f.replyCode, "reply-code", 0, "answer every message with the code `N`; 0 means success")
	flags.StringVar(&f.reply, "reply", "", "answer every message with `TEXT`, @FILE, or - for standard input, up to 4,096 bytes")
	must(cmd.RegisterFlagCompletionFunc("count", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("reply-code", cobra.NoFileCompletions))
	return cmd
}

// errNoAck makes the client leave a message without its ack.
var errNoAck = errors.New("not acknowledged, as asked for")

func (p *program) subscribe(cmd *cobra.Command, ids []string, f subscribeFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	outer := cmd.Context()
	reply, err := p.reply(outer, f.reply)
	if err != nil {
		return err
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := context.WithCancelCause(outer)
	defer stop(nil)

	var received atomic.Int64
	handle := func(_ context.Context, m client.Message) error {
		if err := p.message(m); err != nil {
			stop(err) // nobody reads what we print
			return err
		}
		if n := received.Add(1); f.count > 0 && n >= int64(f.count) {
			stop(errEnough)
		}
		if f.noAck {
			return errNoAck
		}
		return m.Reply(f.replyCode, reply)
	}
	if f.register {
		all := make([]client.Registration, len(ids))
		for i, id := range ids {
			if all[i], err = registration(cmd, id, f.json, f.meta, f.ttl); err != nil {
				return err
			}
		}
		err = c.JoinAll(ctx, all, handle, p.hooks(ids, f)...)
	} else {
		err = c.Receive(ctx, ids, handle, p.hooks(ids, f)...)
	}
	cause := context.Cause(ctx)
	switch {
	case cause == nil: // it ended by itself
		return err
	case errors.Is(cause, errEnough), outer.Err() != nil:
		return nil
	}
	return cause
}

// check finds flags that do not go together.
func (f subscribeFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case !f.register && (len(f.meta) > 0 || f.json != "" || f.ttl != ""):
		return usagef(cmd, "--meta, --json and --ttl say what to register: add --register")
	case f.count < 0:
		return usagef(cmd, "--count must not be negative")
	case f.noAck && (given("reply-code") || given("reply")):
		return usagef(cmd, "a reply goes with the ack: --no-ack sends neither")
	}
	return nil
}

// reply reads what --reply names.
func (p *program) reply(ctx context.Context, from string) ([]byte, error) {
	reply, err := p.payload(ctx, from)
	switch {
	case err != nil:
		return nil, interrupted(ctx, fmt.Errorf("--reply: %w", err), "")
	case len(reply) > client.MaxReplyBytes:
		return nil, fmt.Errorf("--reply: is %d bytes long; a reply has at most %d", len(reply), client.MaxReplyBytes)
	}
	return reply, nil
}

// errEnough ends a subscription that has received what it was to receive.
var errEnough = errors.New("enough")

// hooks tell on stderr what happens, so that stdout has nothing but messages.
func (p *program) hooks(ids []string, f subscribeFlags) []client.JoinOption {
	who := cell(ids[0])
	if len(ids) > 1 {
		who = fmt.Sprintf("%d identities", len(ids))
	}
	options := []client.JoinOption{
		client.OnJoined(func() { p.complainf("receiving for %s; Ctrl-C ends", who) }),
		client.OnLeft(func(err error) { p.complainf("%s; trying again", brief(err.Error())) }),
		client.OnDropped(func(n uint64) {
			p.complainf("lost %s, because they were not read fast enough", counted(int(n), "message", "messages"))
		}),
		client.OnLeasesLost(func(lost []string) {
			words := "register it to be found by filters"
			if f.register {
				words = "registering again"
			}
			p.complainf("not registered (any more): %s; %s", cell(strings.Join(lost, ", ")), words)
		}),
	}
	if f.keepAlive {
		options = append(options, client.WithKeepAlive())
	}
	return options
}

// messageOut is a message for machines.
type messageOut struct {
	ReceivedAt    time.Time  `json:"received_at"`
	SentAt        *time.Time `json:"sent_at,omitempty"`
	Identity      string     `json:"identity"`
	MessageID     string     `json:"message_id"`
	ContentType   string     `json:"content_type,omitempty"`
	Payload       *string    `json:"payload,omitempty"`
	PayloadBase64 []byte     `json:"payload_base64,omitempty"`
	AckWanted     bool       `json:"ack_wanted"`
	Redelivered   bool       `json:"redelivered,omitempty"`
	Once          bool       `json:"once,omitempty"`
}

// message prints one message as it comes: a line each, or in YAML a document.
func (p *program) message(m client.Message) error {
	now := time.Now()
	if p.format == formatTable {
		mark := ""
		if m.Redelivered {
			mark = "  (redelivered)"
		}
		_, err := fmt.Fprintf(p.out, "%s  %s  %s%s\n", now.Format("15:04:05.000"), cell(m.Identity), payloadText(m.Payload), mark)
		return err
	}
	out := messageOut{
		ReceivedAt: now.UTC(), SentAt: moment(m.SentAt), Identity: m.Identity, MessageID: m.ID, ContentType: m.ContentType,
		AckWanted: m.AckWanted, Redelivered: m.Redelivered, Once: m.Once,
	}
	if utf8.Valid(m.Payload) {
		out.Payload = new(string(m.Payload))
	} else {
		out.PayloadBase64 = m.Payload
	}
	return p.line(out)
}

// payloadText is a payload on one line.
func payloadText(payload []byte) string {
	if utf8.Valid(payload) {
		return printable(string(payload), false)
	}
	return "base64:" + base64.StdEncoding.EncodeToString(payload)
}
