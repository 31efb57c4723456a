package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// What keys mean and their defaults: from the comments of the structs in internal/app/config.go and of those they consist of.

const (
	module     = "github.com/prism-data-layer/prism/"
	configPath = "internal/app"
)

// A code is the parsed packages of the module that were asked for.
type code struct {
	root     string
	packages map[string]*pkg
}

// pkg is a package: its structs and constants by name, and the constants of each type of its own in their order.
type pkg struct {
	path    string
	structs map[string]structIn
	consts  map[string]ast.Expr
	typed   map[string][]string
}

type structIn struct {
	*ast.StructType

	imports map[string]string
}

// A field is a field of a struct with its comment.
type field struct {
	name, doc string
	typ       ast.Expr
	in        *pkg
	imports   map[string]string
}

// isMap tells whether the keys of a field's value are no fields, but names that values are kept under.
func (f field) isMap() bool {
	_, ok := f.typ.(*ast.MapType)
	return ok
}

func (c *code) load(path string) (*pkg, error) {
	if p := c.packages[path]; p != nil {
		return p, nil
	}
	p := &pkg{path: path, structs: make(map[string]structIn), consts: make(map[string]ast.Expr), typed: make(map[string][]string)}
	c.packages[path] = p
	files, err := filepath.Glob(filepath.Join(c.root, path, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		p.read(file)
	}
	return p, nil
}

func (p *pkg) read(file *ast.File) {
	imports := make(map[string]string)
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value) // a literal, by the grammar
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports[name] = path
	}
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if st, ok := s.Type.(*ast.StructType); ok {
					p.structs[s.Name.Name] = structIn{st, imports}
				}
			case *ast.ValueSpec:
				for i, name := range s.Names {
					if group.Tok == token.CONST && i < len(s.Values) {
						p.consts[name.Name] = s.Values[i]
						if typ, ok := s.Type.(*ast.Ident); ok {
							p.typed[typ.Name] = append(p.typed[typ.Name], name.Name)
						}
					}
				}
			}
		}
	}
}

// fields lists the fields of a struct, embedded ones in place.
func (c *code) fields(p *pkg, s structIn) ([]field, error) {
	var out []field
	for _, f := range s.Fields.List {
		if len(f.Names) == 0 {
			in, inner, err := c.structOf(field{typ: f.Type, in: p, imports: s.imports})
			if err != nil {
				return nil, err
			}
			embedded, err := c.fields(in, inner)
			if err != nil {
				return nil, err
			}
			out = append(out, embedded...)
			continue
		}
		for _, name := range f.Names {
			doc := strings.Join(strings.Fields(f.Doc.Text()), " ")
			out = append(out, field{name: name.Name, doc: doc, typ: f.Type, in: p, imports: s.imports})
		}
	}
	return out, nil
}

// structOf finds the struct that is the type of a field, of what it points to, or of its elements.
func (c *code) structOf(f field) (*pkg, structIn, error) {
	switch t := f.typ.(type) {
	case *ast.StructType:
		return f.in, structIn{t, f.imports}, nil
	case *ast.StarExpr:
		f.typ = t.X
		return c.structOf(f)
	case *ast.ArrayType:
		f.typ = t.Elt
		return c.structOf(f)
	case *ast.MapType:
		f.typ = t.Value
		return c.structOf(f)
	case *ast.Ident:
		if s, ok := f.in.structs[t.Name]; ok {
			return f.in, s, nil
		}
	case *ast.SelectorExpr:
		path, ours := strings.CutPrefix(f.imports[t.X.(*ast.Ident).Name], module)
		if !ours {
			break
		}
		in, err := c.load(path)
		if err != nil {
			return nil, structIn{}, err
		}
		if s, ok := in.structs[t.Sel.Name]; ok {
			return in, s, nil
		}
	}
	return nil, structIn{}, fmt.Errorf("field %s of %s is no struct that could be found", f.name, f.in.path)
}

// flat lists what can be the field of a key: the fields of a struct and, after them, of those that belong to a slot's backend
// of a type: Redis, its Conn, Replica.
func (c *code) flat(all []field, typ string) ([]field, error) {
	out := all
	for _, f := range all {
		name := strings.ToLower(f.name)
		if name != typ && name != "conn" && (name != "replica" || typ == "") {
			continue
		}
		in, s, err := c.structOf(f)
		if err != nil {
			return nil, err
		}
		inner, err := c.fields(in, s)
		if err != nil {
			return nil, err
		}
		if inner, err = c.flat(inner, typ); err != nil {
			return nil, err
		}
		out = append(out, inner...)
	}
	return out, nil
}

// fieldNames are the fields whose keys are called otherwise.
var fieldNames = map[string]string{"name": "namespace", "identity_schema": "schema"}

// fieldOf finds the field of a key: the last one, which is the innermost, whose name is the key's.
func fieldOf(fields []field, key string) (field, bool) {
	plain := strings.ReplaceAll(key, "_", "")
	for _, want := range []string{
		plain, plain + "s", strings.TrimSuffix(plain, "y") + "ies", strings.TrimPrefix(plain, "max"),
		strings.TrimPrefix(plain, "replica"), fieldNames[key],
	} {
		for i := len(fields) - 1; i >= 0 && want != ""; i-- {
			if strings.EqualFold(fields[i].name, want) {
				return fields[i], true
			}
		}
	}
	return field{}, false
}

// choicesOf lists the values of a field whose type has constants, such as roles.
func (c *code) choicesOf(f field) []string {
	typ := f.typ
	if list, ok := typ.(*ast.ArrayType); ok {
		typ = list.Elt
	}
	name, ok := typ.(*ast.Ident)
	if !ok || f.in == nil {
		return nil
	}
	var out []string
	for _, constant := range f.in.typed[name.Name] {
		if v, ok := c.value(f.in, f.imports, "", constant); ok && v.ExactString() != `""` {
			out = append(out, strings.Trim(v.ExactString(), `"`))
		}
	}
	return out
}

var (
	defaultForm = regexp.MustCompile(`Default(?: \([^)]*\))?:? ([^ ].*?)\.(?: |$)`)
	constName   = regexp.MustCompile(`\b(?:([a-z]+)\.)?([A-Z][A-Za-z]+)\b`)
	units       = map[string]int64{
		"Nanosecond": 1, "Microsecond": 1e3, "Millisecond": 1e6, "Second": 1e9, "Minute": 60e9, "Hour": 3600e9,
	}
)

// value returns the value of a constant, if its name is one: a number or a text.
func (c *code) value(in *pkg, imports map[string]string, qualifier, name string) (constant.Value, bool) {
	if qualifier == "time" && units[name] != 0 {
		return constant.MakeInt64(units[name]), true
	}
	if qualifier != "" {
		path, ours := strings.CutPrefix(imports[qualifier], module)
		if !ours {
			path = "patterns/multicast_registry/" + qualifier // a comment may name what its file does not import
		}
		other, err := c.load(path)
		if err != nil {
			return nil, false
		}
		in = other
	}
	expr, ok := in.consts[name]
	if !ok {
		return nil, false
	}
	return c.evaluate(in, imports, expr)
}

func (c *code) evaluate(in *pkg, imports map[string]string, expr ast.Expr) (constant.Value, bool) {
	switch e := expr.(type) {
	case *ast.BasicLit:
		v := constant.MakeFromLiteral(e.Value, e.Kind, 0)
		return v, v.Kind() != constant.Unknown
	case *ast.Ident:
		return c.value(in, imports, "", e.Name)
	case *ast.SelectorExpr:
		return c.value(in, imports, e.X.(*ast.Ident).Name, e.Sel.Name)
	case *ast.BinaryExpr:
		x, ok := c.evaluate(in, imports, e.X)
		y, also := c.evaluate(in, imports, e.Y)
		if !ok || !also {
			return nil, false
		}
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), true
		}
		return constant.BinaryOp(x, e.Op, y), true
	}
	tv, err := types.Eval(token.NewFileSet(), nil, token.NoPos, types.ExprString(expr))
	return tv.Value, err == nil && tv.Value != nil
}
