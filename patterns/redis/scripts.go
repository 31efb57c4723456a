package redis

import (
	_ "embed"
	"strings"

	"github.com/redis/rueidis"
)

// The scripts, each with its head in its file. Those of a registry share outage.lua, those among them that change it
// change.lua, and those that work on queues queue.lua.
var (
	//go:embed lua/outage.lua
	outageSource string
	//go:embed lua/change.lua
	changeSource string
	//go:embed lua/put.lua
	putSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/delete.lua
	deleteSource string
	//go:embed lua/sweep.lua
	sweepSource string
	//go:embed lua/count.lua
	countSource string
	//go:embed lua/head.lua
	headSource string

	//go:embed lua/queue.lua
	queueSource string
	//go:embed lua/enqueue.lua
	enqueueSource string
	//go:embed lua/claim.lua
	claimSource string
	//go:embed lua/fetch.lua
	fetchSource string
	//go:embed lua/remove.lua
	removeSource string
	//go:embed lua/purge.lua
	purgeSource string
	//go:embed lua/check.lua
	checkSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/lease.lua
	leaseSource string
	//go:embed lua/stored.lua
	storedSource string
	//go:embed lua/record.lua
	recordSource string
	//go:embed lua/settle.lua
	settleSource string

	putScript    = rueidis.NewLuaScript(changing(putSource))
	renewScript  = rueidis.NewLuaScript(changing(renewSource))
	deleteScript = rueidis.NewLuaScript(changing(deleteSource))
	sweepScript  = rueidis.NewLuaScript(changing(sweepSource))
	countScript  = rueidis.NewLuaScriptReadOnly(reading(countSource))
	headScript   = rueidis.NewLuaScriptReadOnly(reading(headSource))

	enqueueScript = newScript(below(enqueueSource, queueSource))
	claimScript   = newScript(below(claimSource, queueSource))
	fetchScript   = newScript(below(fetchSource, queueSource))
	removeScript  = newScript(below(removeSource, queueSource))
	checkScript   = newScript(below(checkSource, queueSource))
	releaseScript = newScript(below(releaseSource, queueSource))
	storedScript  = newReadingScript(storedSource)
	settleScript  = newScript(settleSource)
	purgeQueue    = rueidis.NewLuaScript(below(purgeSource, queueSource))
	leaseScript   = rueidis.NewLuaScript(leaseSource)
	recordScript  = rueidis.NewLuaScript(recordSource)
)

// reading puts what all scripts of a registry share below the first line of a script, which holds its flags.
func reading(source string) string { return below(source, outageSource) }

// changing puts what all changes of a registry share there.
func changing(source string) string { return reading(below(source, changeSource)) }

// below puts what a script shares with others below its first line.
func below(source, common string) string {
	flags, body, _ := strings.Cut(source, "\n")
	return flags + "\n" + common + "\n" + body
}
