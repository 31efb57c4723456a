package redis

import (
	_ "embed"
	"strings"

	"github.com/redis/rueidis"
)

// The scripts, each with its head in its file. Those that change something share change.lua.
var (
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

	putScript    = rueidis.NewLuaScript(changing(putSource))
	renewScript  = rueidis.NewLuaScript(changing(renewSource))
	deleteScript = rueidis.NewLuaScript(changing(deleteSource))
	sweepScript  = rueidis.NewLuaScript(changing(sweepSource))
	countScript  = rueidis.NewLuaScriptReadOnly(countSource)
	headScript   = rueidis.NewLuaScriptReadOnly(headSource)
)

// changing puts what all changes share below the first line of a script, which holds its flags.
func changing(source string) string {
	flags, body, _ := strings.Cut(source, "\n")
	return flags + "\n" + changeSource + "\n" + body
}
