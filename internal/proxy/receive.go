package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// receive reads requests until the client closes its side. That alone does not end the stream: a client may have said all
// it wants to say and go on listening.
func (u *subscription) receive() error {
	for {
		req, err := u.wire.Recv()
		switch {
		case errors.Is(err, io.EOF) && len(u.attached) == 0:
			return errServed
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		switch r := req.GetRequest().(type) {
		case *patternpb.SubscribeRequest_Attach:
			err = u.attach(r.Attach)
		case *patternpb.SubscribeRequest_Detach:
			err = u.detach(r.Detach)
		case *patternpb.SubscribeRequest_Acks:
			err = u.ack(r.Acks)
		default:
			err = invalid("request", "must be one of attach, detach and acks")
		}
		if err != nil {
			return err
		}
	}
}

func (u *subscription) attach(req *patternpb.Attach) error {
	if err := u.enter(req.GetNamespace()); err != nil {
		return err
	}
	ids := req.GetIdentities()
	if err := checkIdentities("attach/identities", ids); err != nil {
		return err
	}
	if err := u.mayAttach(ids, req.GetKeepAlive()); err != nil {
		return err
	}
	fresh := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		if _, known := u.attached[id]; !known {
			fresh[id] = struct{}{}
		}
	}
	if most := u.server.cfg.MaxAttached; len(u.attached)+len(fresh) > most {
		return fmt.Errorf("%w: one stream may have %d identities attached, this one would have %d; open another stream",
			multicastregistry.ErrQuota, most, len(u.attached)+len(fresh))
	}
	if err := u.taken.Attach(len(fresh)); err != nil {
		return err
	}
	if err := u.sub.Attach(u.life, req.GetKeepAlive(), ids...); err != nil {
		return err
	}
	for id := range fresh {
		u.attached[id] = struct{}{}
	}
	u.metrics.Attached(len(fresh))
	u.confirm(&patternpb.SubscribeResponse{Response: &patternpb.SubscribeResponse_Attached{
		Attached: &patternpb.Attached{Identities: ids},
	}})
	return nil
}

// mayAttach checks that the identities are the caller's, and, to keep them alive, that the caller may renew their leases. It
// counts as a call.
func (u *subscription) mayAttach(ids []string, keepAlive bool) error {
	operations := []auth.Operation{auth.OpSubscribe}
	if keepAlive {
		operations = append(operations, auth.OpHeartbeat)
	}
	for _, op := range operations {
		n, err := u.server.enterFor(u.life, u.namespace, op)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := n.grant.CheckIdentity(id); err != nil {
				return err
			}
		}
		if op != auth.OpSubscribe {
			continue
		}
		if err := n.Limits.Call(n.owner, op); err != nil {
			return err
		}
	}
	return nil
}

// enter settles the namespace of the stream with the first attach, and holds later ones to it.
func (u *subscription) enter(name string) error {
	if u.sub != nil && (name == "" || name == u.namespace) {
		return nil
	}
	if u.sub != nil {
		return invalid("attach/namespace", fmt.Sprintf(
			"one stream serves one namespace, this one %q; open another stream", u.namespace))
	}
	n, err := u.server.hold(u.life, name, callOf(u.life))
	if err != nil {
		return err
	}
	if u.taken, err = n.Limits.Stream(n.owner); err != nil {
		return err
	}
	u.namespace, u.metrics = n.Coordinator.Config().Namespace, u.server.measured(n.Coordinator)
	u.wanted <- n.served // has room: asked once
	select {
	case <-u.open:
		return nil
	case <-u.life.Done():
		return u.life.Err()
	}
}

func (u *subscription) detach(req *patternpb.Detach) error {
	ids := req.GetIdentities()
	if err := checkIdentities("detach/identities", ids); err != nil {
		return err
	}
	var known []string
	for _, id := range ids {
		if _, ok := u.attached[id]; ok {
			known = append(known, id)
			delete(u.attached, id)
		}
	}
	u.metrics.Attached(-len(known))
	if len(known) > 0 {
		if err := u.sub.Detach(u.life, known...); err != nil {
			return err
		}
		u.taken.Detach(len(known))
	}
	u.confirm(&patternpb.SubscribeResponse{Response: &patternpb.SubscribeResponse_Detached{
		Detached: &patternpb.Detached{Identities: ids},
	}})
	return nil
}

// ack hands acks down. One that does not arrive ends nothing: the sender learns that it has no proof. The first of a
// stream is logged.
func (u *subscription) ack(req *patternpb.Acks) error {
	answers := make([]multicastregistry.Answer, len(req.GetAcks()))
	for i, a := range req.GetAcks() {
		if err := checkReply(i, a.GetReplyBody()); err != nil {
			return err
		}
		answers[i] = multicastregistry.Answer{
			MessageName: multicastregistry.MessageName{Identity: a.GetIdentity(), ID: a.GetMessageId()},
			Reply:       multicastregistry.Reply{Code: a.GetReplyCode(), Body: a.GetReplyBody()},
		}
	}
	if u.sub == nil || len(answers) == 0 {
		return nil
	}
	u.metrics.Acks(len(answers))
	if err := u.sub.Ack(u.life, answers...); err != nil && u.life.Err() == nil {
		if u.badAcks++; u.badAcks == 1 {
			u.server.sparing.write(u.life, slog.LevelWarn, kindName{what: "acks"}, "acks were lost", slog.String("namespace", u.namespace),
				slog.String("request_id", requestID(u.life)), slog.Any("error", err))
		}
	}
	u.unacked.Add(-int64(len(answers)))
	select {
	case u.acked <- struct{}{}:
	default:
	}
	return nil
}

// checkReply refuses the reply of the ack at a place when it is too large to be carried.
func checkReply(i int, body []byte) error {
	if len(body) <= multicastregistry.MaxReplyBytes {
		return nil
	}
	return invalid(fmt.Sprintf("acks/%d/reply_body", i),
		fmt.Sprintf("is %d bytes long, at most %d are allowed", len(body), multicastregistry.MaxReplyBytes))
}

// confirm queues a confirmation. It waits while the client has not read the ones before.
func (u *subscription) confirm(r *patternpb.SubscribeResponse) {
	select {
	case u.confirmations <- r:
	case <-u.life.Done():
	}
}

// checkIdentities refuses a list that is empty or too long, and names the first identity that is none.
func checkIdentities(field string, ids []string) error {
	if len(ids) == 0 {
		return invalid(field, "must name at least one identity")
	}
	if len(ids) > maxAttach {
		return invalid(field, fmt.Sprintf("names %d identities, at most %d are allowed at once", len(ids), maxAttach))
	}
	for i, id := range ids {
		if bad, ok := errors.AsType[*multicastregistry.InvalidError](multicastregistry.CheckIdentity(id)); ok {
			return invalid(field+"/"+strconv.Itoa(i), bad.Problem)
		}
	}
	return nil
}
