package app_test
import ("testing";"time";"strings";"github.com/prism-data-layer/prism/internal/app")
func TestZZ(t *testing.T){
	for _,s:=range []string{"[","{","- ","? ","a: ","&a ","!x ","a:\n ", "- a:\n ", "\"", "'", "|\n", "*a ", "{a: ","[a, ", "---\n", "%a\n", "# c\n", "a: b\n", ": ", "\n", "\r", "- |\n", "a: |\n x\n", "-\n", "{}", "? - ", "]", "}", ",", "<<: "} {
		for _,n:=range []int{8,16,24, 32,200,2000, 20000} {
			st:=time.Now(); 
			src := strings.Repeat(s,n)
			if len(src) > 1<<18 { continue }
			_,_ = app.Parse("f",[]byte(src)); if d:=time.Since(st); d>200*time.Millisecond { t.Logf("%q x %d: %v",s,n,d); break }
		}
	}
}
