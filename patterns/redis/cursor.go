package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// cursor is a place in the history of a group of keys. Without an epoch there is no history yet. Run is the run id of the
// server, which is another after each start: it may have begun with older data. Empty: it is not known.
type cursor struct {
	epoch    string
	revision uint64
	run      string
}

func (c cursor) position() multicastregistry.Position {
	return multicastregistry.Position(c.epoch + ":" + strconv.FormatUint(c.revision, 10) + ":" + c.run)
}

// parsePosition is the inverse of cursor.position.
func parsePosition(p multicastregistry.Position) (c cursor, ok bool) {
	parts := strings.Split(string(p), ":")
	if len(parts) != 3 {
		return cursor{}, false
	}
	revision, err := strconv.ParseUint(parts[1], 10, 63)
	if err != nil || parts[0] == "" && revision != 0 {
		return cursor{}, false
	}
	return cursor{epoch: parts[0], revision: revision, run: parts[2]}, true
}

// continues tells whether a history at c is one that has come past from.
func (c cursor) continues(from cursor) bool {
	return (c.epoch == from.epoch || from.epoch == "") && c.revision >= from.revision &&
		(c.run == from.run || c.run == "" || from.run == "")
}

// readHead finds out where the history is, and what outage is not part of it yet.
func (r *Registry) readHead(ctx context.Context) (cursor, outage, error) {
	fields, err := headScript.Exec(ctx, r.conn.read, []string{r.keys.head}, []string{r.after}).ToArray()
	if err != nil {
		return cursor{}, outage{}, err
	}
	if len(fields) != 5 {
		return cursor{}, outage{}, fmt.Errorf("%w: head: %d fields", errReply, len(fields))
	}
	away, err := parseOutage(fields[3], fields[4])
	if err != nil {
		return cursor{}, outage{}, fmt.Errorf("%w: head: %w", errReply, err)
	}
	at, err := r.parseHead(fields)
	return at, away, err
}

// parseHead reads where the history is.
func (r *Registry) parseHead(fields []rueidis.RedisMessage) (cursor, error) {
	run, err := fields[2].ToString()
	if err != nil {
		return cursor{}, err
	}
	if fields[0].IsNil() || fields[1].IsNil() {
		return cursor{run: run}, nil
	}
	epoch, err := fields[0].ToString()
	if err != nil {
		return cursor{}, err
	}
	revision, err := fields[1].AsUint64()
	if err != nil || epoch == "" {
		return cursor{}, fmt.Errorf("%w: key %s: epoch %q: %w", errReply, r.keys.head, epoch, errors.Join(err))
	}
	return cursor{epoch: epoch, revision: revision, run: run}, nil
}
