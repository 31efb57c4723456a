package slottest

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The vocabulary is small, so that random filters hit random metadata about as often as they miss, and odd, so that what is
// compared is what implementations get wrong: integers that a float64 cannot hold, numbers of both kinds that are equal,
// keys that look like operators or paths, arrays where a scalar is expected, versions, null.
var (
	randomKeys = []string{"s", "version", "n", "list", "a", "b", "sub", "lt", "a.b", "$eq", "é", "", "x y", `back\slash`}

	randomNumbers = []any{
		int64(0), int64(1), int64(-1), int64(5), float64(5), 0.5, -0.5, 1e-7, 1e300, -1e300, int64(42),
		int64(1 << 53), int64(1<<53 + 1), float64(1 << 53), int64(math.MaxInt64), int64(math.MinInt64), float64(1 << 63),
		uint64(1 << 63), uint64(1<<63 + 1), uint64(math.MaxUint64), float64(1 << 62), 1.5,
	}
	randomStrings = []any{
		"a", "ab", "1.2.3", "b", "room-1", "abc", "1.3.0-rc.1", "2.0.0", "", "room-10", "room-2", "v1.2.3", "1.2", "0.0.1",
		"B", "5", "true", "null", "é", "e\u0301", "日本", "😀", "*", "%", ".", "a.b", "a\nb", `"`, `\`, "\x00", "$eq",
	}
	randomVersions = []any{"1.2.3", "1.3.0-rc.1", "2.0.0", "v1.2.3", "1.2", "0.0.1", "1.2.3+build", "01.2.3", "latest"}
	randomPatterns = []any{"^a", "b$", "^room-[0-9]$", "a.b", ".", "^$", "(?i)B", "é|日", `\.`, "[[:digit:]]+", "^[^a]*$", "(a)(b)?"}
	randomRanges   = []any{">=1.2 <2", "^1.2", "~1.2.3", "1.x", "*", "1.2.3", ">1.2.3", "<=2.0.0", "1 - 2", "^1 || ^2", ">=1.3.0-rc.1"}
	randomTypes    = []any{"string", "number", "bool", "null", "array", "object"}
	orderOps       = []string{"$lt", "$lte", "$gt", "$gte"}
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// common picks the first ones more often, so that metadata and filters meet.
func common[T any](rng *rand.Rand, from []T) T {
	r := rng.Float64()
	return from[int(r*r*r*float64(len(from)))]
}

// RandomMetadata returns metadata of up to four levels, with the value types that Identity.Metadata lists.
func RandomMetadata(rng *rand.Rand) map[string]any { return randomObject(rng, 3) }

func randomObject(rng *rand.Rand, depth int) map[string]any {
	object := make(map[string]any)
	for range rng.IntN(9) {
		key := common(rng, randomKeys)
		object[key] = randomValueOf(rng, key, depth)
	}
	return object
}

// randomValueOf returns what a key promises, most of the time.
func randomValueOf(rng *rand.Rand, key string, depth int) any {
	if rng.IntN(4) > 0 {
		switch key {
		case "s":
			return common(rng, randomStrings)
		case "version":
			return common(rng, randomVersions)
		case "n":
			return common(rng, randomNumbers)
		case "list":
			return randomList(rng, 1)
		}
	}
	return randomValue(rng, depth)
}

func randomList(rng *rand.Rand, depth int) []any {
	list := make([]any, rng.IntN(4))
	for i := range list {
		list[i] = randomValue(rng, depth)
	}
	return list
}

func randomValue(rng *rand.Rand, depth int) any {
	switch n := rng.IntN(10); {
	case n < 2 && depth > 0:
		return randomObject(rng, depth-1)
	case n == 2 && depth > 0:
		return randomList(rng, min(depth-1, 1))
	default:
		return randomScalar(rng)
	}
}

func randomScalar(rng *rand.Rand) any {
	switch rng.IntN(10) {
	case 0:
		return nil
	case 1:
		return rng.IntN(2) == 0
	case 2, 3, 4, 5:
		return common(rng, randomNumbers)
	default:
		return common(rng, randomStrings)
	}
}

// RandomFilter returns the source of a filter, within the default limits, that uses every operator sooner or later.
func RandomFilter(rng *rand.Rand) string {
	clauses := 12
	f := randomFilter(rng, 2, &clauses)
	switch rng.IntN(3) {
	case 0:
		f = map[string]any{"$not": f}
	case 1:
		f = map[string]any{"$or": []any{f, randomFilter(rng, 2, &clauses)}}
	}
	source, err := json.Marshal(f)
	if err != nil {
		panic(err) // the vocabulary is JSON
	}
	return string(source)
}

func randomFilter(rng *rand.Rand, depth int, clauses *int) map[string]any {
	f := make(map[string]any)
	for range 1 + rng.IntN(2) {
		if *clauses <= 0 {
			break
		}
		if depth == 0 || rng.IntN(3) > 0 {
			*clauses--
			f[randomPath(rng)] = randomCondition(rng)
			continue
		}
		switch rng.IntN(3) {
		case 0:
			f["$not"] = randomFilter(rng, depth-1, clauses)
		case 1:
			f["$and"] = randomFilters(rng, depth-1, clauses)
		case 2:
			f["$or"] = randomFilters(rng, depth-1, clauses)
		}
	}
	if len(f) == 0 {
		*clauses-- // the empty filter counts as one
	}
	return f
}

func randomFilters(rng *rand.Rand, depth int, clauses *int) []any {
	list := make([]any, 1+rng.IntN(2))
	for i := range list {
		list[i] = randomFilter(rng, depth, clauses)
	}
	return list
}

// randomPath is the name of a field of one to three parts, with everything special in it taken literally.
func randomPath(rng *rand.Rand) string {
	var path strings.Builder
	for i := range 1 + max(0, rng.IntN(8)-5) {
		if i > 0 {
			path.WriteByte('.')
		}
		key := common(rng, randomKeys)
		for key == "" { // a path has no empty parts
			key = common(rng, randomKeys)
		}
		for j := range len(key) {
			if key[j] == '.' || key[j] == '\\' || j == 0 && (key[j] == '$' || key == "lt") {
				path.WriteByte('\\')
			}
			path.WriteByte(key[j])
		}
	}
	return path.String()
}

func randomCondition(rng *rand.Rand) any {
	switch rng.IntN(9) {
	case 0:
		return randomScalar(rng)
	case 1:
		return map[string]any{"$not": randomOperator(rng)}
	case 2: // a range
		return map[string]any{"$gte": common(rng, randomNumbers), "$lt": common(rng, randomNumbers)}
	default:
		return randomOperator(rng)
	}
}

func randomOperator(rng *rand.Rand) map[string]any {
	op, operand := "", any(nil)
	switch rng.IntN(14) {
	case 0, 12:
		op, operand = "$eq", randomScalar(rng)
	case 1, 13:
		op, operand = "$ne", randomScalar(rng)
	case 2, 3:
		op, operand = pick(rng, orderOps), common(rng, randomNumbers)
		if rng.IntN(2) == 0 {
			operand = common(rng, randomStrings)
		}
	case 4, 5:
		list := make([]any, rng.IntN(6))
		for i := range list {
			list[i] = randomScalar(rng)
		}
		op, operand = pick(rng, []string{"$in", "$nin"}), list
	case 6:
		op, operand = pick(rng, []string{"$startswith", "$endswith"}), common(rng, randomStrings)
	case 7:
		op, operand = "$contains", randomScalar(rng)
	case 8:
		op, operand = "$regex", pick(rng, randomPatterns)
	case 9:
		op, operand = "$exists", rng.IntN(2) == 0
	case 10:
		op, operand = "$type", pick(rng, randomTypes)
	case 11:
		op, operand = "$semver", pick(rng, randomRanges)
	}
	return map[string]any{op: operand}
}

// newRandom returns a source whose seed a failing test prints. SLOTTEST_SEED sets it.
func newRandom(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if set := os.Getenv("SLOTTEST_SEED"); set != "" {
		var err error
		seed, err = strconv.ParseUint(set, 10, 64)
		noError(t, err, "SLOTTEST_SEED")
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with SLOTTEST_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}
