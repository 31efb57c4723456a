package filter

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const referencePage = "../../../docs-cms/reference/filter.md"

// tables gives the cells of every row of every table of the page, by the first cell of the table's head.
func tables(t *testing.T) map[string][][]string {
	t.Helper()
	page, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][][]string{}
	head := ""
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			head = ""
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		switch {
		case head == "":
			head = cells[0]
		case !strings.HasPrefix(cells[0], "---"):
			found[head] = append(found[head], cells)
		}
	}
	return found
}

// TestReferencePage checks what the page for users says against the code, so that the two cannot drift apart.
func TestReferencePage(t *testing.T) {
	page := tables(t)

	ops := Operators()
	if len(page["Operator"]) != len(ops) {
		t.Fatalf("the page has %d operators, the language %d", len(page["Operator"]), len(ops))
	}
	for i, row := range page["Operator"] {
		want := []string{"`" + ops[i].Name + "`", ops[i].Operand, ops[i].Summary, "`" + ops[i].Example + "`"}
		if strings.Join(row, "|") != strings.Join(want, "|") {
			t.Errorf("the page says %q, the code %q", row, want)
		}
	}

	cell := regexp.MustCompile("^(?:`(.*)` )?(yes|no)$")
	checked := 0
	for _, row := range page["Filter"] {
		e := mustParse(t, strings.Trim(row[0], "`"))
		for i, text := range row[1:] {
			if text == "" {
				continue
			}
			m := cell.FindStringSubmatch(text)
			if m == nil || len(row) != 8 {
				t.Fatalf("row %q has the odd cell %q", row[0], text)
			}
			md := `{"f":` + m[1] + `}`
			if i == 0 {
				md = `{}`
			}
			if got := Match(e, metadata(t, md)); got != (m[2] == "yes") {
				t.Errorf("the page says %s on %s is %s", row[0], md, m[2])
			}
			checked++
		}
		for i, op := range ops {
			if strings.Contains(row[0], op.Name+`"`) || op.Op == Eq && !strings.Contains(row[0], "$") {
				ops[i].Summary = "" // seen
			}
		}
	}
	for _, op := range ops {
		if op.Summary != "" {
			t.Errorf("the truth table has no row for %s", op.Name)
		}
	}
	if checked < 150 {
		t.Errorf("only %d cells were checked", checked)
	}

	version := regexp.MustCompile("`([^`]+)`")
	for _, row := range page["Range"] {
		for _, m := range version.FindAllStringSubmatch(row[0], -1) {
			if _, err := parseRange(m[1]); err != nil {
				t.Errorf("range %s: %v", m[1], err)
			}
		}
	}
	for _, row := range page["Field of the metadata"] {
		md := metadata(t, strings.ReplaceAll(strings.Split(strings.Trim(row[0], "`"), "` ")[0], "…", "1"))
		if strings.Contains(row[0], "one backslash") && md[`a\b`] == nil {
			t.Errorf("row %q is not about a backslash", row)
		}
		for _, m := range version.FindAllStringSubmatch(row[1], -1) {
			if !Match(mustParse(t, m[1]), md) {
				t.Errorf("%s does not match %s", m[1], row[0])
			}
		}
	}
	text, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{`{"name":{"$startwith":"x"}}`, `{"battery":{"$lt":true}}`, `{"a":{"$in":[1,[]]}}`} {
		if _, err := Parse(src); err == nil || !strings.Contains(string(text), "\n"+err.Error()+"\n") {
			t.Errorf("the page does not have the error of %s: %v", src, err)
		}
	}
	if e := mustParse(t, `{"b.lt": 5.0, "a": {"$eq": 1}}`); !strings.Contains(string(text), "`"+e.String()+"`") {
		t.Errorf("the page does not have the canonical form %s", e)
	}
	d := DefaultLimits
	for i, want := range []int{d.Depth, d.Clauses, d.InValues, d.RegexBytes, d.PathParts, d.StringBytes} {
		if got := strings.TrimSuffix(page["Limit"][i][1], " bytes"); got != strconv.Itoa(want) {
			t.Errorf("the page says the limit of %s is %s, it is %d", page["Limit"][i][0], got, want)
		}
	}
}
